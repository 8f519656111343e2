"""The processes of one training, seen from one of them: where each is, which one fails, which one is lost.

Each process writes signs of life into the store of torchrun, and one that waits for the others looks at theirs once a
second. So nobody waits for one that is killed, halted or stuck. The first that fails says why; the others end quietly.
"""

import atexit
import math
import os
import signal
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch.distributed as dist

from tinyaction.files import is_alive

SECONDS_TO_SPEAK = 5  # after a broken connection, for the process at the other end to say why


class PeerFailedError(Exception):
    """Another process failed, and says why itself. ``may_save``: between two steps, in all processes alike."""

    def __init__(self, sentence: str, *, may_save: bool = False) -> None:
        super().__init__(sentence)
        self.may_save = may_save


class TrainingInterrupted(Exception):  # noqa: N818  (not an error)
    """A signal asked the run to stop; ``signum`` is its number."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


@dataclass
class Sign:
    """What a process last wrote into the store."""

    beat: int  # counts up
    host: str
    pid: int
    log: str  # of torchrun, "" without one
    where: str

    @classmethod
    def parse(cls, line: str) -> "Sign":
        beat, host, pid, log, where = line.split("\t", 4)
        return cls(int(beat), host, int(pid), log, where)


@dataclass
class Peers:
    """The other processes of this one.

    A thread exchanges the signs of life, so that only the thread waits where the machine of the store hangs.

    Attributes:
        limit_seconds: longest time without a sign of life while this process waits; no limit before training begins.
    """

    store: Any  # a torch.distributed.Store
    rank: int
    num_processes: int
    limit_seconds: float = math.inf
    _where: str = "the start"
    _beat: int = 0
    _failed: str = ""  # rank and sentence of the first that failed
    _answered: float = field(default_factory=time.monotonic)  # by the store
    _waiting_since: float = 0.0
    _told: threading.Event = field(default_factory=threading.Event)
    _seen: dict[int, tuple[str, float]] = field(default_factory=dict)  # rank -> its last line, when it was new

    def __post_init__(self) -> None:
        self._is_closing = False
        self._thread = threading.Thread(target=self._exchange_signs, daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def close(self) -> None:
        """End the thread: Python that ends while a thread is within the store aborts the process."""
        self._is_closing = True
        self._told.set()
        self._thread.join(SECONDS_TO_SPEAK)

    def _exchange_signs(self) -> None:
        with suppress(RuntimeError):  # the store ends with torchrun
            while not self._is_closing:
                self.store.set(str(self.rank), f"{self._beat}\t{socket.gethostname()}\t{os.getpid()}\t{_own_log()}\t"
                                               f"{self._where}")
                if self.store.check(["failed"]):
                    self._failed = self.store.get("failed").decode()
                for rank in range(self.num_processes):
                    if rank != self.rank and self.store.check([str(rank)]):
                        line = self.store.get(str(rank)).decode()
                        if line != self._seen.get(rank, ("", 0.0))[0]:
                            self._seen[rank] = line, time.monotonic()
                self._answered = time.monotonic()
                self._told.wait(0.5)
                self._told.clear()

    def tell(self, where: str = "") -> None:
        """Give a sign of life, and say where this process is."""
        self._where, self._beat = where or self._where, self._beat + 1
        if where:
            self._told.set()

    def fail(self, sentence: str) -> bool:
        """Record why this process fails; False where another one failed before, which speaks for all.

        Where the store does not answer, one process of each machine speaks.
        """
        first: list[str] = []

        def ask() -> None:
            with suppress(RuntimeError):
                first.append(self.store.compare_set("failed", "", f"{self.rank}\t{sentence}").decode())

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        thread.join(SECONDS_TO_SPEAK)
        if self.rank == 0 and not has_store_of_torchrun():
            time.sleep(2)  # the store ends with this process, and the others have to look
        if not first:  # the store is gone: with rank 0, with torchrun, or with the network
            return os.environ["LOCAL_RANK"] == "0" if has_store_of_torchrun() else self.rank == 1
        return first[0].partition("\t")[0] == str(self.rank)

    def check(self) -> None:
        """Raise PeerFailedError where another process failed, ChildProcessError where one gives no sign of life."""
        self.tell()
        rank_failed, _, sentence = self._failed.partition("\t")
        if self._failed and int(rank_failed) != self.rank:
            raise PeerFailedError(sentence)
        now = time.monotonic()
        if has_store_of_torchrun() and now - max(self._answered, self._waiting_since) > self.limit_seconds:
            raise ChildProcessError(f"torchrun on {os.environ.get('MASTER_ADDR')} gave no sign of life for "
                                    f"{self.limit_seconds:g} s")
        for rank, (_, since) in sorted(self._seen.items()):
            seconds = now - max(since, self._waiting_since)
            if seconds > self.limit_seconds:
                raise self._lost(rank, f"gave no sign of life for {seconds:.0f} s")

    def wait(self, work: dist.Work, *, is_on_device: bool = False) -> None:
        """Wait for the others in a collective; raises as :meth:`check`."""
        self._waiting_since = time.monotonic()
        next_check = self._waiting_since + 1
        while is_on_device and not work.is_completed():  # nccl aborts all processes on a timeout
            time.sleep(0.0005)
            if time.monotonic() > next_check:
                next_check += 1
                self.check()
        while True:
            try:
                work.wait(timedelta(seconds=1))
                return
            except RuntimeError as error:
                if not str(error).startswith("Operation timed out"):
                    raise self._cause(error) from None
            self.check()

    def _cause(self, error: RuntimeError) -> Exception:
        """Find out why a connection broke."""
        until = time.monotonic() + SECONDS_TO_SPEAK
        while time.monotonic() < until:
            self.check()
            for rank, (line, _) in self._seen.items():
                sign = Sign.parse(line) if line else None
                if sign is not None and sign.host == socket.gethostname() and not is_alive(sign.pid):
                    return self._lost(rank, "was killed")
            time.sleep(0.1)
        now = time.monotonic()
        silent = [rank for rank, (_, since) in self._seen.items() if now - since > SECONDS_TO_SPEAK / 2]
        return self._lost(silent[0], "was lost") if silent else ChildProcessError(f"a process was lost: {error}")

    def _lost(self, rank: int, how: str) -> ChildProcessError:
        line = self._seen[rank][0]
        if not line:
            return ChildProcessError(f"rank {rank} {how}")
        sign = Sign.parse(line)
        log = f"its output is in {sign.log}" if sign.log else "torchrun --redirects 3 --log-dir DIR keeps its output"
        return ChildProcessError(f"rank {rank} (process {sign.pid} on {sign.host}) {how} at {sign.where}; {log}")


_LAUNCHER = os.getppid()


def has_store_of_torchrun() -> bool:
    """Whether the store outlives the processes; without torchrun it is in rank 0."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def is_launcher_gone() -> bool:
    """Whether torchrun was killed, so that nobody would end this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ and os.getppid() != _LAUNCHER


def _own_log() -> str:
    """The file into which torchrun writes the errors of this process, where it was asked to."""
    path = Path(os.environ.get("TORCHELASTIC_ERROR_FILE", ""), "..", "stderr.log")
    return str(path.resolve()) if path.is_file() else ""
