"""Runs of several processes that are killed, halted or stopped, and resumed by another number of them.

The processes are those of a fork server, which start in 0.1 s; torchrun itself is in test_distributed.py.
"""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from ranks import (
    Ranks,
    environment_of,
    free_port,
    has_saved,
    open_list,
    processes,
    wait_for,
    weight_difference,
)
from toys import write_set

from tinyaction.data.loader import EpochSampler, VideoLoader
from tinyaction.files import is_alive
from tinyaction.training.config import RunConfig
from tinyaction.training.job import folder_of_job, launcher_name, requeue_job
from tinyaction.training.resume import own_part
from tinyaction.training.rounds import share_step

FLAGS = ("--model conv2d --method finetune --size 16 --clip-len 2 --batch-size 2 --epochs 2 --num-workers "
         "1 --lr 0.02 --mixup 0.2 --ema 0.9 --freeze-norms --device cpu --video-timeout 30").split()
@pytest.fixture(scope="module")
def bars(tmp_path_factory) -> Path:
    return write_set(tmp_path_factory.mktemp("bars"), num_train=19, num_val=3, num_frames=3)


@pytest.fixture(scope="module")
def alone(bars, tmp_path_factory) -> Path:
    """The run of one process with the steps of two with half the accumulation."""
    run = tmp_path_factory.mktemp("alone") / "run"
    ranks = Ranks(1, run.parent / "output", "--data", bars, "--out", run, "--grad-accum", 4, *FLAGS)
    assert ranks.end() == [0]
    return run


def test_a_run_goes_on_with_any_number_of_processes(bars, alone, tmp_path):
    """Begun by two, one of them killed; then four, one of them asked to stop; then one. Mixup and dropout included."""
    run = tmp_path / "run"
    ranks = Ranks(2, tmp_path / "two", "--data", bars, "--out", run, "--grad-accum", 2, "--save-every", 1, *FLAGS)
    wait_for(has_saved(run, 2))
    ranks.kill(signal.SIGKILL, 1)
    assert ranks.end(within=20) == [2, -9]
    (error,) = ranks.errors()
    assert f"error: rank 1 (process {ranks.processes[1].pid} on " in error and ") was killed at train batch" in error
    ranks = Ranks(4, tmp_path / "four", "--resume", run, "--num-workers", 0)
    wait_for(has_saved(run, 1))
    ranks.kill(signal.SIGTERM, 2)
    assert ranks.end() == [128 + signal.SIGTERM] * 4
    assert "stopped by SIGTERM in epoch" in (run / "log.txt").read_text()
    assert Ranks(1, tmp_path / "one", "--resume", run).end() == [0]
    log = (run / "log.txt").read_text()
    assert log.count("resumed in epoch ") == 2
    assert "\n4 processes: a step is made of 4 batches of 2\n" in log
    assert weight_difference(run, alone) < 1e-5


@pytest.mark.slow
def test_the_same_number_of_processes_goes_on_to_the_bit(bars, tmp_path):
    flags = ["--data", bars, "--grad-accum", 2, "--save-every", 1, *FLAGS]
    assert Ranks(2, tmp_path / "whole", *flags, "--out", tmp_path / "run 1").end() == [0, 0]
    run = tmp_path / "run 2"
    ranks = Ranks(2, tmp_path / "stopped", *flags, "--out", run)
    wait_for(has_saved(run, 2))
    ranks.kill(signal.SIGUSR1, 0)
    assert ranks.end() == [128 + signal.SIGUSR1] * 2
    ranks = Ranks(2, tmp_path / "again", "--resume", run, "--num-workers", 2)
    wait_for(has_saved(run, 1))
    ranks.kill(signal.SIGKILL, 0, 1)
    assert ranks.end() == [-9, -9]
    assert Ranks(2, tmp_path / "last", "--resume", run).end() == [0, 0]
    assert weight_difference(run, tmp_path / "run 1") == 0


def test_a_broken_file_of_one_process_ends_all_with_one_sentence(bars, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(bars, data)
    (data / "train" / "clip 7.mp4").write_bytes(b"no video")
    ranks = Ranks(2, tmp_path / "output", "--data", data, "--out", tmp_path / "run", "--save-every", 1, *FLAGS)
    assert ranks.end() == [2, 2]
    (error,) = ranks.errors()
    assert "clip 7.mp4" in error
    assert "Traceback" not in ranks.output.read_text()


@pytest.mark.slow
def test_skipped_videos_of_all_processes_count(bars, tmp_path):
    """Three of 19, which both processes have some of: more than a share of 0.15, and of each fewer."""
    data = tmp_path / "data"
    shutil.copytree(bars, data)
    for number in (3, 7, 12):
        (data / "train" / f"clip {number}.mp4").write_bytes(b"no video")
    ranks = Ranks(2, tmp_path / "output", "--data", data, "--out", tmp_path / "run", "--on-error", "skip",
                  "--max-skipped", 0.15, *FLAGS)
    assert ranks.end() == [2, 2]
    (error,) = ranks.errors()
    assert "3 of 19 videos are bad; at most a share of 0.15 may be skipped (max_skipped):" in error
    assert ranks.output.read_text().count("error: ") == 1


@pytest.mark.slow
def test_synchronized_norms_train_as_one_process_on_whole_batches(bars, tmp_path):
    """Two processes with batches of 2 are one with batches of 4; the last batch of 19 videos has 3: 2 and 1."""
    flags = ["--data", bars, *FLAGS[:FLAGS.index("--mixup")], "--device", "cpu"]
    for num, batch_size, norms in ((1, 4, []), (2, 2, ["--sync-batch-norm"]), (2, 2, [])):
        name = f"{num} {len(norms)}"
        ranks = Ranks(num, tmp_path / f"output {name}", *flags, "--batch-size", batch_size, *norms, "--out",
                      tmp_path / name, has_dropout=False)
        assert ranks.end() == [0] * num
    assert weight_difference(tmp_path / "2 1", tmp_path / "1 0") < 1e-5
    assert weight_difference(tmp_path / "2 0", tmp_path / "1 0") > 1e-3  # norms of each process's own videos


@pytest.mark.slow
@pytest.mark.parametrize("halted", [0, 1])
def test_a_halted_process_is_named_within_the_limit(halted, bars, tmp_path):
    flags = [*FLAGS, "--video-timeout", 3, "--save-every", 1, "--epochs", 50]
    ranks = Ranks(2, tmp_path / "output", "--data", bars, "--out", tmp_path / "run", *flags)
    wait_for(has_saved(tmp_path / "run", 2))
    ranks.kill(signal.SIGSTOP, halted)
    codes = ranks.end(within=3 + 15, but=halted)
    ranks.kill(signal.SIGKILL, halted)
    assert codes[1 - halted] == 2
    (error,) = ranks.errors()
    assert f"rank {halted} (process {ranks.processes[halted].pid} on " in error
    assert "gave no sign of life for " in error


@pytest.mark.slow
def test_a_full_disk_of_the_first_ends_all(bars, tmp_path):
    ranks = Ranks(2, tmp_path / "output", "--data", bars, "--out", tmp_path / "run", *FLAGS, max_file_bytes=200_000)
    assert ranks.end() == [2, 2]
    (error,) = ranks.errors()
    assert "last.pt: file too large; the checkpoint could not be saved" in error


@pytest.mark.parametrize(("own", "words"), [
    (["--lr", "0.5"], "--lr of rank 0 and rank 1 differ (0.02 and 0.5); all processes of a run need the same"),
    (["--batch-size", "16"], "19 training videos are 2 batches of 16, too few for 3 processes; take a smaller"),
    (["--resume", "nowhere"], "nowhere: no such run folder to resume"),
])
def test_what_cannot_train_together_is_one_sentence(own, words, bars, tmp_path):
    where = {1: own} if own[0] == "--lr" else dict.fromkeys(range(3), own)
    flags = [] if own[0] == "--resume" else ["--data", bars, "--out", tmp_path / "run", *FLAGS]
    ranks = Ranks(3, tmp_path / "output", *flags, own=where)
    assert ranks.end() == [2, 2, 2]
    (error,) = ranks.errors()
    assert words in error
    assert not (tmp_path / "run").exists()


# ---- lists ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("machines", "arguments", "num_calls", "same_memory"), [
    (["", "", ""], "aaa", [1, 0, 0], [0, 0, 0]),                       # one machine
    (["x", "y", "y"], "aaa", [1, 1, 0], [0, 1, 1]),                    # two
    (["", "", ""], "aba", [1, 1, 0], [0, 1, 0]),                       # rank 1 was given other data
    (["unreachable"] * 3, "aaa", [1, 1, 1], [0, 1, 2]),                # such as without /proc
])
def test_a_list_is_read_once_a_machine(machines, arguments, num_calls, same_memory, tmp_path):
    port = free_port()
    ranks = [processes.Process(target=open_list, args=(environment_of(rank, 3, port), tmp_path, machine, argument))
             for rank, (machine, argument) in enumerate(zip(machines, arguments, strict=True))]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(60)
    assert [process.exitcode for process in ranks] == [0, 0, 0]
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(3)]
    assert [names for names, _, _ in found] == [[f"{argument} {i}.mp4" for i in range(500)] for argument in arguments]
    assert [num for _, num, _ in found] == num_calls
    inodes = [inode for _, _, inode in found]
    assert [inodes.index(inode) for inode in inodes] == same_memory


# ---- arithmetic ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("num_now", "keep_rounds", "expected"), [
    (1, False, (4, 4)), (2, False, (4, 2)), (4, False, (4, 1)), (8, False, (2, 1)), (16, False, (1, 1)),
    (1, True, (8, 2)), (2, True, (4, 2)), (4, True, (2, 2)), (8, True, (1, 2)),
])
def test_a_step_is_shared_by_other_numbers_of_processes(num_now, keep_rounds, expected):
    assert share_step(4, 2, num_before=2, num_now=num_now, keep_rounds=keep_rounds) == expected


def test_a_step_that_cannot_be_shared_names_the_numbers_that_can():
    with pytest.raises(ValueError, match=r"^a step of this run is 12 videos \(2 processes, 2 batches of 3 each\), "
                                         r"which 5 processes cannot share alike; start 1, 2, 3, 4, 6, 12 of them$"):
        share_step(3, 2, num_before=2, num_now=5)


class Numbers:
    """Item i is i."""

    def __len__(self) -> int:
        return 39

    def filename(self, index: int) -> str:
        return f"{index}.mp4"

    def __getitem__(self, key: tuple[int, int]) -> int:
        return key[1]


def loader_of(rank: int, num_ranks: int, batch_size: int = 2) -> VideoLoader:
    loader = VideoLoader(Numbers(), batch_size=batch_size, sampler=EpochSampler(39, shuffle=True, seed=1),
                         collate=list, rank=rank, num_ranks=num_ranks)
    loader.set_epoch(3)
    return loader


@pytest.mark.parametrize("num_before", [1, 2, 4])
@pytest.mark.parametrize("num_now", [1, 2, 4, 8])
def test_the_order_goes_on_whatever_the_number_of_processes(num_before, num_now):
    """Steps of 16 videos; those before and those behind the stop are all of the epoch, in its order."""
    order = EpochSampler(39, shuffle=True, seed=1)
    order.epoch = 3
    for num_steps in range(4):
        num_rounds = min(16 * num_steps, 40) // (2 * num_before)
        state = loader_of(0, num_before).state_at(num_rounds, 0)
        given = []
        for rank in range(num_now):
            loader = loader_of(rank, num_now)
            loader.load_state_dict(state)
            given.append([batch or [] for batch in loader.rounds()])
        in_turn = [item for batches in zip(*given, strict=True) for batch in batches for item in batch]
        assert in_turn == order.order()[16 * num_steps:].tolist()


def test_a_position_within_a_step_is_refused():
    with pytest.raises(ValueError, match="num_done is 6; an epoch has 39 videos in rounds of 8"):
        loader_of(0, 4).load_state_dict(loader_of(0, 1).state_at(3, 0))


def test_sums_and_dropped_videos_of_all_processes_go_to_the_first():
    def part(loss: float, bad: list[str], lost: dict[int, str]) -> dict:
        return {"state": {"step": 5, "total_loss": loss, "num_right": 1, "num_videos": 4}, "random": loss,
                "loader": {"epoch": 1, "bad": bad, "never_again": lost}}

    saved = {"ranks": [part(1.5, ["a"], {}), part(2.0, ["b"], {7: "hung"})], "objects": {"model": 1}}
    assert own_part(saved, 1, 2)["state"]["total_loss"] == 2.0 and own_part(saved, 1, 2)["random"] == 2.0
    first, second = own_part(saved, 0, 4), own_part(saved, 1, 4)
    assert first["state"] == {"step": 5, "total_loss": 3.5, "num_right": 2, "num_videos": 8}
    assert second["state"] == {"step": 5, "total_loss": 0.0, "num_right": 0, "num_videos": 0}
    assert first["objects"]["train_loader"] == {"epoch": 1, "bad": ["a", "b"], "never_again": {7: "hung"}}
    assert second["objects"]["train_loader"] == {"epoch": 1, "bad": [], "never_again": {7: "hung"}}


def test_a_restart_is_known_by_its_count_or_by_its_torchrun(tmp_path, monkeypatch):
    config = RunConfig("data", out=str(tmp_path))
    for job, count, launcher, is_own in (("a", 0, launcher_name(), True), ("a", 1, launcher_name(), True),
                                         ("a", 1, "process 1 on b", True), ("a", 0, "process 1 on b", False),
                                         ("b", 1, launcher_name(), False), ("", 1, launcher_name(), False)):
        (tmp_path / "config.json").write_text(json.dumps({"job": "a" if job else "", "launcher": launcher}))
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", job)
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", str(count))
        assert folder_of_job(config) == (str(tmp_path) if is_own else "")


def test_requeue_asks_slurm(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert requeue_job().startswith("not requeued: this is no job of SLURM")
    command = tmp_path / "scontrol"
    command.write_text(f"#!/bin/sh\necho \"$@\" > {tmp_path}/words\n")
    command.chmod(0o755)
    monkeypatch.setenv("SLURM_JOB_ID", "17; rm x")
    assert requeue_job() == "job 17; rm x is requeued"
    assert (tmp_path / "words").read_text() == "requeue 17; rm x\n"
    command.write_text("#!/bin/sh\necho no such job >&2\nexit 1\n")
    assert requeue_job() == "not requeued: scontrol requeue 17; rm x says no such job"


# ---- torchrun ------------------------------------------------------------------------------------------------------

# Rank 1 is killed within its third batch, once.
PROGRAM = """
import os, signal, sys
import torch
import tinyaction.training.loop as loop
from tinyaction.cli.train import main

torch.set_num_threads(1)
train_one_batch = loop.train_one_batch
num_batches = 0

def train_or_be_killed(*arguments, **more):
    global num_batches
    num_batches += 1
    if num_batches == 3 and os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        os.kill(os.getpid(), signal.SIGKILL)
    train_one_batch(*arguments, **more)

loop.train_one_batch = train_or_be_killed
raise SystemExit(main(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("torchrun_is_killed", [False, True])
def test_torchrun_restarts_from_the_last_save(torchrun_is_killed, bars, alone, tmp_path):
    """A rank is killed, and torchrun starts both again; then torchrun itself is, and the run is resumed by one."""
    (tmp_path / "program.py").write_text(PROGRAM)
    run = tmp_path / "run"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "--max-restarts=1",
               tmp_path / "program.py", "--data", bars, "--out", run, "--grad-accum", 2, "--save-every", 1, *FLAGS]
    with open(tmp_path / "output", "w") as output:
        torchrun = subprocess.Popen([*map(str, command)], stdout=output, stderr=subprocess.STDOUT)
    try:
        wait_for(lambda: (run / "log.txt").exists() and "resumed in epoch" in (run / "log.txt").read_text())
        if torchrun_is_killed:
            wait_for(has_saved(run, 1))
            ranks = [int(pid) for path in Path(f"/proc/{torchrun.pid}/task").glob("*/children")
                     for pid in path.read_text().split()]
            assert len(ranks) >= 2
            torchrun.kill()
            wait_for(lambda: not any(map(is_alive, ranks)))
            assert "stopped by SIGTERM in epoch" in (run / "log.txt").read_text()
            assert Ranks(1, tmp_path / "one", "--resume", run).end() == [0]
        else:
            assert torchrun.wait(timeout=60) == 0
    finally:
        torchrun.kill()
    printed = (tmp_path / "output").read_text()
    assert "error: rank 1 (process " in printed and ") was killed at train batch" in printed
    assert (run / "log.txt").read_text().count("resumed in epoch ") == 1 + torchrun_is_killed
    assert weight_difference(run, alone) < 1e-5
