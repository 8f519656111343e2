"""The loader when files are bad and workers hang or die. Items are made of their own number; no video is read."""

import faulthandler
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from tinyaction.data.loader import EpochSampler, VideoLoader
from tinyaction.video import VideoError


class Trouble:
    """Item i is the number i. ``what`` an item does instead: raise, sleep, abort, or something once only.

    An item that sleeps or aborts writes a line into ``mark``.
    """

    def __init__(self, num_items: int, what: dict[int, str], mark: Path | None = None) -> None:
        self.num_items = num_items
        self.what = what
        self.mark = mark  # a file that says how often it was done

    def __len__(self) -> int:
        return self.num_items

    def filename(self, index: int) -> str:
        return f"clip {index}.mp4"

    def __getitem__(self, key: tuple[int, int]) -> tuple[int, int]:
        kind = self.what.get(key[1], "")
        if kind == "raise":
            raise VideoError(f"clip {key[1]}.mp4", "not a readable video")
        if kind in ("sleep", "abort") and self.mark is not None:
            with open(self.mark, "a") as file:
                file.write(f"{kind}\n")
        if kind == "sleep":
            time.sleep(60)
        if kind == "abort":
            faulthandler.disable()  # pytest's would print a traceback
            os.abort()
        if kind == "defect":
            raise TypeError("a defect of the program")
        if kind in ("kill once", "exit once") and self.mark is not None and not self.mark.exists():
            self.mark.touch()
            if kind == "exit once":
                os._exit(3)
            os.kill(os.getpid(), signal.SIGKILL)
        return key


def loader_of(dataset: Trouble, *, batch_size: int = 4, shuffle: bool = True, **arguments) -> VideoLoader:
    sampler = EpochSampler(len(dataset), shuffle=shuffle, seed=3)
    return VideoLoader(dataset, batch_size=batch_size, sampler=sampler, collate=list, **arguments)


def epoch_of(loader: VideoLoader, epoch: int) -> list[list[int]]:
    loader.set_epoch(epoch)
    return [[index for _, index in batch] for batch in loader]


def without(batches: list[list[int]], *indices: int) -> list[list[int]]:
    """The same batches less some items; batches that become empty are left out."""
    left = [[index for index in batch if index not in indices] for batch in batches]
    return [batch for batch in left if batch]


WHOLE = epoch_of(loader_of(Trouble(20, {})), 0)  # 5 batches of 4


def test_the_order_is_that_of_the_sampler():
    assert sorted(sum(WHOLE, [])) == list(range(20))
    assert WHOLE != epoch_of(loader_of(Trouble(20, {})), 1)
    assert epoch_of(loader_of(Trouble(5, {}), shuffle=False), 0) == [[0, 1, 2, 3], [4]]


# ---- files that raise ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_bad_item_is_dropped_and_never_replaced(num_workers):
    loader = loader_of(Trouble(20, {7: "raise"}), num_workers=num_workers, on_error="skip")
    assert epoch_of(loader, 0) == without(WHOLE, 7)
    assert [(bad.index, bad.filename, bad.reason) for bad in loader.bad] == [
        (7, "clip 7.mp4", "not a readable video")]
    assert len(epoch_of(loader, 1)) == 5
    assert len(loader.bad) == 1  # of that epoch, not of both
    assert len(loader) == 5


@pytest.mark.parametrize("num_workers", [0, 2])
def test_by_default_it_is_an_error(num_workers):
    loader = loader_of(Trouble(20, {7: "raise"}), num_workers=num_workers)
    with pytest.raises(VideoError, match=r"^clip 7\.mp4: not a readable video$"):
        epoch_of(loader, 0)


def test_a_batch_of_bad_items_only_is_passed_over():
    whole = epoch_of(loader_of(Trouble(20, {}), batch_size=2), 0)
    first = whole[3]
    loader = loader_of(Trouble(20, dict.fromkeys(first, "raise")), batch_size=2, on_error="skip")
    assert epoch_of(loader, 0) == whole[:3] + whole[4:]
    assert loader.position == 10


def test_more_bad_items_than_the_share_stop_with_the_list():
    trouble = Trouble(20, {3: "raise", 7: "raise", 9: "raise"})
    loader = loader_of(trouble, on_error="skip", max_skipped=0.1)
    with pytest.raises(ValueError, match=r"^3 of 20 videos are bad; at most a share of 0\.1 may be skipped") as e:
        epoch_of(loader, 0)
    for index in (3, 7, 9):
        assert f"\n  clip {index}.mp4: not a readable video" in str(e.value)
    assert epoch_of(loader_of(trouble, on_error="skip", max_skipped=0.15), 0) == without(WHOLE, 3, 7, 9)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_defect_of_the_program_is_not_skipped(num_workers):
    with pytest.raises(TypeError, match="a defect of the program"):
        epoch_of(loader_of(Trouble(20, {7: "defect"}), num_workers=num_workers, on_error="skip"), 0)


@pytest.mark.parametrize("wrong", [{"on_error": "ignore"}, {"max_skipped": 1.5}, {"video_timeout": 0}])
def test_wrong_arguments_are_named(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"{name} is .*; it must be"):
        loader_of(Trouble(5, {}), **wrong)


# ---- workers that hang or die --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind, words", [
    ("sleep", "not read within 0.5 s"),
    ("abort", "the worker process that read it was killed by SIGABRT"),
])
def test_the_file_of_a_lost_worker_is_named(kind, words):
    loader = loader_of(Trouble(20, {7: kind}), num_workers=2, video_timeout=0.5)
    with pytest.raises(VideoError, match=rf"^clip 7\.mp4: {words}$"):
        epoch_of(loader, 0)


@pytest.mark.parametrize(("kind", "num_tries"), [("sleep", 1), ("abort", 2)])
def test_with_skip_the_others_are_read_on(kind, num_tries, tmp_path):
    loader = loader_of(Trouble(20, {7: kind}, tmp_path / "mark"), num_workers=2, on_error="skip", video_timeout=0.5)
    assert epoch_of(loader, 0) == without(WHOLE, 7)
    assert [bad.filename for bad in loader.bad] == ["clip 7.mp4"]
    assert 7 not in sum(epoch_of(loader, 1), [])
    assert (tmp_path / "mark").read_text().count(kind) == num_tries  # all in the first epoch
    assert [bad.filename for bad in loader.bad] == ["clip 7.mp4"]  # but counted in each


@pytest.mark.parametrize("kind", ["kill once", "exit once"])
def test_a_worker_that_is_killed_from_outside_costs_no_item(kind, tmp_path):
    loader = loader_of(Trouble(20, {7: kind}, tmp_path / "mark"), num_workers=2, on_error="skip")
    assert epoch_of(loader, 0) == WHOLE
    assert loader.bad == []


def test_a_killed_idle_worker_costs_nothing():
    loader = loader_of(Trouble(40, {}), num_workers=2)
    whole = epoch_of(loader_of(Trouble(40, {})), 0)
    loader.set_epoch(0)
    batches = []
    for number, batch in enumerate(loader):
        batches.append([index for _, index in batch])
        if number == 1:
            time.sleep(0.3)  # the workers are ahead and wait
            os.kill(loader._workers[0].pid, signal.SIGKILL)
            time.sleep(0.3)  # torch would raise here, in the midst of whatever the main process does
    assert batches == whole


def test_workers_end_with_a_main_process_that_is_killed_while_they_start():
    """torch's own watch would begin too late, and they would stay for ever."""
    program = """
import os, time
from test_loader import Trouble, epoch_of, loader_of
import tinyaction.data.loader as loader
main, start = os.getpid(), loader.start_worker
def start_late(worker_id):
    print("up", flush=True)
    while os.getppid() == main:
        time.sleep(0.01)
    start(worker_id)
loader.start_worker = start_late
epoch_of(loader_of(Trouble(8, {}), num_workers=2), 0)
"""
    places = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True,
                               env={**os.environ, "PYTHONPATH": places})
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == ["up\n", "up\n"]
    process.kill()
    process.communicate(timeout=60)  # returns when all who could write have ended


def test_the_main_process_keeps_its_own_signal_handler():
    before = signal.getsignal(signal.SIGCHLD)
    epoch_of(loader_of(Trouble(8, {}), num_workers=1), 0)
    assert signal.getsignal(signal.SIGCHLD) == before


def test_while_it_waits_the_loader_can_be_left():
    class LeaveError(Exception):
        pass

    def leave() -> None:
        raise LeaveError

    loader = loader_of(Trouble(8, {5: "sleep"}), num_workers=1, shuffle=False)
    loader.on_wait = leave
    given = []
    with pytest.raises(LeaveError):
        given.extend(loader)
    assert loader.position == 1
    loader.close()


def test_without_workers_the_loader_can_be_left_before_each_video():
    """A batch of long videos may take minutes; the step that it is for has not begun."""
    class LeaveError(Exception):
        pass

    asked = []

    def leave() -> None:
        asked.append(len(read))
        if len(asked) == 6:
            raise LeaveError

    read = []
    dataset = Trouble(8, {})
    loader = loader_of(dataset, num_workers=0, shuffle=False)
    loader.on_wait = leave
    with pytest.raises(LeaveError):
        read.extend(loader)
    assert loader.position == 1 and read == [[(0, index) for index in range(4)]] and asked == [0, 0, 0, 0, 1, 1]


# ---- going on in the middle ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("position", range(6))
def test_it_goes_on_at_its_position(position, num_workers):
    trouble = Trouble(20, {WHOLE[0][1]: "raise", WHOLE[4][0]: "raise"})
    loader = loader_of(trouble, on_error="skip", num_workers=num_workers)
    loader.set_epoch(0)
    whole, states = [], [loader.state_dict()]
    for batch in loader:
        whole.append([index for _, index in batch])
        states.append(loader.state_dict())
    other = loader_of(trouble, on_error="skip", num_workers=num_workers)
    other.load_state_dict(states[position])
    assert [[index for _, index in batch] for batch in other] == whole[position:]
    assert other.bad == loader.bad  # those of before the stop are still counted
    assert epoch_of(other, 1) == epoch_of(loader, 1)


def test_other_videos_are_refused():
    state = loader_of(Trouble(20, {})).state_dict()
    with pytest.raises(ValueError, match="made with 20 videos, now there are 19"):
        loader_of(Trouble(19, {})).load_state_dict(state)


def test_a_position_is_gone_on_from_once():
    first = loader_of(Trouble(20, {}))
    batches = iter(first)
    assert [[index for _, index in next(batches)] for _ in range(2)] == WHOLE[:2]
    state = first.state_dict()
    loader = loader_of(Trouble(20, {}))
    loader.load_state_dict(state)
    assert epoch_of(loader, 0) == WHOLE[2:]
    loader.load_state_dict(state)
    assert len(epoch_of(loader, 1)) == 5


def test_an_epoch_that_was_gone_on_with_is_whole_the_next_time():
    loader = loader_of(Trouble(20, {}))
    state = loader.state_dict() | {"num_done": 8}
    loader.load_state_dict(state)
    assert epoch_of(loader, 0) == WHOLE[2:]
    assert epoch_of(loader, 0) == WHOLE


def test_a_file_that_cost_a_worker_is_known_to_a_resumed_loader():
    loader = loader_of(Trouble(20, {7: "sleep"}), num_workers=2, on_error="skip", video_timeout=0.5)
    epoch_of(loader, 0)
    assert loader.state_dict()["never_again"] == {7: "not read within 0.5 s"}
    other = loader_of(Trouble(20, {7: "sleep"}), on_error="skip")  # without workers it would sleep
    other.load_state_dict(loader.state_dict())
    assert 7 not in sum(epoch_of(other, 1), [])
    assert [bad.filename for bad in other.bad] == ["clip 7.mp4"]


def test_nobody_elses_random_state_is_touched():
    before = torch.get_rng_state()
    epoch_of(loader_of(Trouble(20, {})), 0)
    epoch_of(loader_of(Trouble(20, {}), num_workers=1), 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_workers_that_die_of_no_file_end_the_run():
    def die(items):
        os._exit(3)

    loader = VideoLoader(Trouble(20, {}), batch_size=4, sampler=EpochSampler(20, shuffle=True, seed=3), collate=die,
                         num_workers=1)
    with pytest.raises(ChildProcessError, match="ended with exit code 3 again and again while they read no file"):
        epoch_of(loader, 0)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc, to see that a process is halted")
@pytest.mark.parametrize(("num_workers", "who"), [(1, r"process \d+ was"), (2, r"processes \d+, \d+ were")])
def test_halted_workers_end_the_run(num_workers, who):
    """Nobody wakes them: the loader would wait for ever."""
    loader = loader_of(Trouble(40, {}), num_workers=num_workers, video_timeout=1.5)
    batches = iter(loader)
    next(batches)
    for worker in loader._workers:
        os.kill(worker.pid, signal.SIGSTOP)
    with pytest.raises(ChildProcessError, match=rf"^no batch came within 1\.5 s, and the worker {who} "
                                                r"halted by a signal \(SIGSTOP\)$"):
        list(batches)


@pytest.mark.slow  # it imports torch in a process
def test_halted_workers_do_not_keep_python_from_its_end():
    """They do not answer the SIGTERM of multiprocessing, which waits for them when Python ends."""
    program = """
import os, signal
from test_loader import Trouble, loader_of
loader = loader_of(Trouble(40, {}), num_workers=2)
next(iter(loader))
for worker in loader._workers:
    os.kill(worker.pid, signal.SIGSTOP)
"""
    places = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    subprocess.run([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": places}, timeout=120, check=True)


def test_workers_that_stay_silent_end_the_run():
    """Here they hang after the reading, where no file is to blame."""
    def hang(items):
        time.sleep(60)

    loader = VideoLoader(Trouble(20, {}), batch_size=4, sampler=EpochSampler(20, shuffle=True, seed=3), collate=hang,
                         num_workers=1, video_timeout=0.5)
    with pytest.raises(ChildProcessError, match=r"^no batch came within 0\.5 s, and no worker process reads a file"):
        epoch_of(loader, 0)


def test_workers_that_do_not_start_are_tried_three_times(monkeypatch):
    tried = []

    def refuse(self, torch_loader):
        tried.append(torch_loader)
        raise RuntimeError("unable to open shared memory object </torch_1> in read-write mode")

    monkeypatch.setattr(VideoLoader, "_start_workers", refuse)
    with pytest.raises(ValueError, match=r"^shared memory \(/dev/shm\) is full: free some, .*--ipc=host"):
        epoch_of(loader_of(Trouble(8, {}), num_workers=1), 0)
    assert len(tried) == 3


@pytest.mark.parametrize("soft, hard, expected", [
    (24, 24, "this process may open 24 files, and 2 workers need 80 or more; raise the limit (ulimit -n 4096), or "
             "take no workers (--num-workers 0)\n"),
    (24, 400, "20\n"),  # as on many systems: the process may raise it
])
def test_the_limit_of_open_files(soft, hard, expected):
    program = f"""
import resource
from test_loader import Trouble, loader_of
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
try:
    print(sum(map(len, loader_of(Trouble(20, {{}}), num_workers=2))))
except ValueError as error:
    print(error)
"""
    places = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120,
                            env={**os.environ, "PYTHONPATH": places})
    assert result.stdout == expected, result.stderr


def test_torchs_loader_is_not_collected_with_its_owner_in_any_order():
    """What the end of its iterator hands to a thread, as the pipe of a queue, is the thread's to close."""
    ended, thread = [], []

    class Pipe:
        def __del__(self) -> None:
            ended.append("pipe")

    class TorchLoader:
        def __init__(self) -> None:
            self.pipe = Pipe()

        def __del__(self) -> None:
            ended.append("loader")
            thread.append(self.pipe)

    loader = loader_of(Trouble(4, {}), num_workers=2)
    loader._torch_loaders.append(TorchLoader())
    loader.itself = loader
    del loader
    gc.collect()
    assert ended == ["loader"]
    thread.clear()
    assert ended == ["loader", "pipe"]


def test_workers_are_killed_where_their_loader_is_collected():
    """After an error it is collected with its iterator, in any order; torch would wait 5 s for each halted worker."""
    loader = loader_of(Trouble(20, {}), num_workers=2)
    next(iter(loader))
    workers, loader.itself = list(loader._workers), loader
    for worker in workers:
        os.kill(worker.pid, signal.SIGSTOP)
    del loader
    gc.collect()
    for worker in workers:
        worker.join(10)
    assert [worker.exitcode for worker in workers] == [-signal.SIGKILL] * 2


def test_a_worker_that_got_no_batch_leaves_no_thread_without_its_pipe(capfd):
    """torch begins its thread when the iterator is collected."""
    for _ in range(5):
        loader = loader_of(Trouble(4, {}), num_workers=2)
        assert len(list(loader)) == 1
        loader.cycle = loader
        del loader
        gc.collect()
        for thread in threading.enumerate():
            if thread.name == "QueueFeederThread":
                thread.join(5)
    assert "Traceback" not in capfd.readouterr().err


def test_ctrl_c_leaves_the_workers_to_the_main_process():
    """Ctrl-C goes to the workers too; it is the main process that ends them."""
    loader = loader_of(Trouble(20, {}), num_workers=2)
    batches = iter(loader)
    given = [next(batches), next(batches)]  # one of each worker
    for worker in loader._workers:
        os.kill(worker.pid, signal.SIGINT)
    time.sleep(0.3)
    assert all(worker.is_alive() for worker in loader._workers)
    assert [[index for _, index in batch] for batch in given + list(batches)] == WHOLE


def test_the_epoch_is_gone_on_with():
    loader = loader_of(Trouble(20, {}))
    loader.set_epoch(3)
    batches = iter(loader)
    next(batches)
    other = loader_of(Trouble(20, {}))
    other.load_state_dict(loader.state_dict())
    assert list(other) == list(batches)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_items_that_make_no_batch_are_an_error(num_workers):
    def refuse(items):
        raise ValueError("frames of several sizes")

    loader = VideoLoader(Trouble(20, {}), batch_size=4, sampler=EpochSampler(20, shuffle=True, seed=3),
                         collate=refuse, num_workers=num_workers, on_error="skip")
    with pytest.raises(ValueError, match="^frames of several sizes$"):
        epoch_of(loader, 0)
