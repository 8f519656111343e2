"""Run a command at an event: :func:`parse_command` reads ``--run``, :class:`CommandRunner` runs it beside the camera.

    notify {label} {time}   ->   the arguments "notify", "fall", "2026-05-01T12:00:00+02:00"

The text is split into arguments first and the fields are put in afterwards, each into its own argument, and no shell
sees them: a class called ``; rm -rf`` is a strange name and nothing more. The same values are in the environment, as
TINYACTION_LABEL, for scripts.
"""

import os
import re
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

FIELDS = ("label", "score", "time", "seconds", "source", "clip")
MOST_RUNNING = 8  # commands at a time; more hang, or are slower than the events
TIMEOUT_SECONDS = 10.0

_FIELD = re.compile(r"\{(\w+)\}")


def parse_command(text: str) -> list[str]:
    """Split a command with fields into its arguments; ValueError says what cannot be read."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ValueError(f"--run {text!r} cannot be split into arguments: {str(error).lower()}") from None
    if not words:
        raise ValueError("--run is empty; it must be a program with its arguments, such as 'notify {label} {time}'")
    for word in words:
        for name in _FIELD.findall(word):
            if name not in FIELDS:
                raise ValueError(f"--run has the field {{{name}}}; it must be one of "
                                 f"{', '.join(f'{{{field}}}' for field in FIELDS)}")
    return words


class CommandRunner:
    """Runs a command for each event in the background; what goes wrong is one sentence to ``on_line``.

    A command that has not ended after ``timeout_seconds`` is killed with all that it started.
    """

    def __init__(self, words: Sequence[str], *, on_line: Callable[[str], None],
                 timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self.words = list(words)
        self.timeout_seconds = timeout_seconds
        self._on_line = on_line
        self._pool = ThreadPoolExecutor(MOST_RUNNING)
        self._running: list[Future[None]] = []

    def run(self, values: Mapping[str, str]) -> None:
        """Begin to run the command with the values of its :data:`FIELDS`, and return at once."""
        self._running = [one for one in self._running if not one.done()]
        if len(self._running) >= MOST_RUNNING:
            self._on_line(f"--run {self.words[0]}: not run for {values['label']}, as {MOST_RUNNING} earlier ones have "
                          "not ended yet")
            return
        words = [_FIELD.sub(lambda match: values[match[1]], word) for word in self.words]
        self._running.append(self._pool.submit(self._run, words, values))

    def close(self) -> None:
        """Wait for the commands that run, each until its own timeout."""
        self._pool.shutdown(wait=True)

    def _run(self, words: Sequence[str], values: Mapping[str, str]) -> None:
        environment = os.environ | {f"TINYACTION_{name.upper()}": value for name, value in values.items()}
        with tempfile.TemporaryFile() as errors:                       # a pipe would be kept open by grandchildren
            try:
                process = subprocess.Popen(words, env=environment, stdin=subprocess.DEVNULL,
                                           stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True)
            except (OSError, ValueError) as error:
                reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
                self._on_line(f"--run {words[0]}: it cannot be run ({reason.lower()})")
                return
            try:
                code = process.wait(self.timeout_seconds)
            except subprocess.TimeoutExpired:
                _kill(process)
                self._on_line(f"--run {words[0]}: killed, as it had not ended after {self.timeout_seconds:g} s")
                return
            if code != 0:
                errors.seek(0)
                said = "".join(f" ({line})" for line in errors.read(2000).decode(errors="replace").splitlines()[-1:])
                self._on_line(f"--run {words[0]}: it failed with exit code {code}{said}")


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """Kill a process and what it started, and wait for it, so that no zombie stays."""
    with suppress(OSError):
        if os.name == "nt":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)                     # it leads a session of its own
    process.wait()
