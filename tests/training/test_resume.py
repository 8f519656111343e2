"""A run that is killed, interrupted or out of disk goes on to the weights and metrics that it would have had."""

import csv
import json
import multiprocessing
import os
import pty
import random
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path

import pytest
import torch
from toys import write_clip, write_set

import tinyaction.training.run
from tinyaction.cli.train import main, parse_args
from tinyaction.models.checkpoint import Checkpoint, load_newest, previous_of
from tinyaction.results.run import RunFolder
from tinyaction.training.config import RunConfig
from tinyaction.training.identity import ListIdentity, RunIdentity, differences
from tinyaction.training.loop import TrainState
from tinyaction.training.resume import random_state, restore_training, set_random_state, training_state
from tinyaction.training.run import train

FLAGS = ("--size 16 --clip-len 2 --batch-size 2 --epochs 3 --num-workers 1 --optimizer adamw --lr 0.001 "
         "--save-every 1 --device cpu").split()
processes = multiprocessing.get_context("forkserver")  # clean processes that start in 0.1 s: torch is there already
processes.set_forkserver_preload(["tinyaction.cli.train", "torch._dynamo"])  # the latter by the first step


@pytest.fixture(scope="module")
def bars(tmp_path_factory) -> Path:
    return write_set(tmp_path_factory.mktemp("bars"), num_train=11, num_val=4)


@pytest.fixture(scope="module")
def whole(bars, tmp_path_factory) -> Path:
    """A run that nothing disturbs."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    process = start("--data", bars, "--out", run)
    process.join()
    assert process.exitcode == 0
    return run


def start(*words: object, max_file_bytes: int = 0, num_threads: int = 1):
    argv = [str(word) for word in words]
    process = processes.Process(target=train_here, args=(argv if "--resume" in argv else argv + FLAGS, max_file_bytes,
                                                         num_threads))
    process.start()
    return process


def train_here(argv: list[str], max_file_bytes: int, num_threads: int) -> None:
    torch.set_num_threads(num_threads)
    multiprocessing.set_start_method("fork", force=True)  # of the loader's workers, as in a process of its own
    tinyaction.training.outcome.write_report = lambda *_, **__: "none"  # pictures take longer than these runs
    if max_file_bytes:
        resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_bytes, max_file_bytes))
    raise SystemExit(main(argv))


def wait_for(condition) -> None:
    for _ in range(60_000):
        if condition():
            return
        time.sleep(0.001)
    raise AssertionError("nothing came within a minute")


def is_over(process, path: Path, saved: int) -> bool:
    return time_of(path) != saved or not process.is_alive()


def time_of(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:  # it is being replaced
        return 0


def assert_same_outcome(run: Path, whole: Path) -> None:
    for name in ("last.pt", "best.pt"):
        ours, theirs = Checkpoint.load(run / name), Checkpoint.load(whole / name)
        assert ours.epoch == theirs.epoch
        for key, tensor in theirs.state_dict.items():
            assert torch.equal(ours.state_dict[key], tensor), f"{name}: {key}"
    assert metrics_of(run) == metrics_of(whole)
    adam, other = (Checkpoint.load(folder / "last.pt").training.objects["optimizer"] for folder in (run, whole))
    for number, values in adam["state"].items():
        assert torch.equal(values["exp_avg_sq"], other["state"][number]["exp_avg_sq"])


def metrics_of(run: Path) -> list[list[str]]:
    with open(run / "metrics.csv", newline="") as file:
        rows = list(csv.reader(file))
    keep = [place for place, name in enumerate(rows[0]) if "seconds" not in name]
    return [[row[place] for place in keep] for row in rows]


# ---- killed, interrupted -------------------------------------------------------------------------------------------


def kill_and_resume(bars: Path, run: Path, num_kills: int) -> int:
    """Begin, kill at a random moment, go on, ...; then to the end. Returns the kills that met a running training.

    The moments are some saves after each start, of the 18 that the run has, and a little more.
    """
    rng = random.Random(0)
    process = start("--data", bars, "--out", run)
    num_met = 0
    for _ in range(num_kills):
        wait_for((run / "last.pt").exists)
        for _ in range(rng.randint(0, 18 // num_kills)):
            saved = time_of(run / "last.pt")
            wait_for(partial(is_over, process, run / "last.pt", saved))
        time.sleep(rng.uniform(0, 0.02))
        num_met += process.is_alive()
        process.kill()
        process.join()
        process = start("--resume", run)
    process.join()
    assert process.exitcode == 0
    return num_met


def test_killed_at_random_moments_it_ends_with_the_same_weights(bars, whole, tmp_path):
    assert kill_and_resume(bars, tmp_path / "run", 4) >= 3
    assert_same_outcome(tmp_path / "run", whole)


@pytest.mark.slow
def test_killed_at_twenty_random_moments(bars, whole, tmp_path):
    num_met = kill_and_resume(bars, tmp_path / "run", 20)
    print(f"{num_met} of 20 kills met a running training")
    assert_same_outcome(tmp_path / "run", whole)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_saves_and_says_how_to_go_on(signum, bars, whole, tmp_path):
    run = tmp_path / "run"
    process = start("--data", bars, "--out", run)
    wait_for(lambda: (run / "metrics.csv").exists())  # in the second epoch, or on the way to it
    os.kill(process.pid, signum)
    process.join()
    assert process.exitcode == 128 + signum
    log = (run / "log.txt").read_text()
    assert f"stopped by {signal.Signals(signum).name} in epoch " in log
    assert f"saved. To go on:\n  tinyaction train --resume {run}\n" in log
    process = start("--resume", run, "--num-workers", 0)  # what changes no weight may change
    process.join()
    assert process.exitcode == 0
    assert "resumed in epoch " in (run / "log.txt").read_text()
    assert_same_outcome(run, whole)


def test_a_finished_run_has_nothing_to_go_on_with(whole, capsys):
    before = Checkpoint.load(whole / "last.pt").state_dict
    assert main(["--resume", str(whole)]) == 0
    assert "best epoch" in capsys.readouterr().out
    after = Checkpoint.load(whole / "last.pt").state_dict
    assert all(torch.equal(after[key], before[key]) for key in before)


def test_a_run_that_is_not_there(tmp_path, capsys):
    assert main(["--resume", str(tmp_path / "none")]) == 2
    assert f"{tmp_path}/none: no such run folder to resume" in capsys.readouterr().err
    assert main(["--resume", str(tmp_path / "none"), "--lr", "1"]) == 2
    assert f"{tmp_path}/none: no such run folder to resume" in capsys.readouterr().err


def test_a_closed_terminal_saves_too(bars, whole, tmp_path):
    """The kernel sends SIGHUP to the session of a terminal that goes away, and every write to it then fails."""
    run = tmp_path / "run"
    pid, terminal = pty.fork()
    if pid == 0:
        script = Path(__file__).parents[2] / "scripts" / "train.py"
        os.execve(sys.executable, [sys.executable, str(script), "--data", str(bars), "--out", str(run), *FLAGS],
                  os.environ | {"OMP_NUM_THREADS": "1"})  # as the whole run: sums of two threads differ in last bits
    wait_for(lambda: (run / "metrics.csv").exists())
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 128 + signal.SIGHUP
    assert "stopped by SIGHUP in epoch " in (run / "log.txt").read_text()
    process = start("--resume", run, num_threads=2)  # another machine may have more cores: it goes on with one
    process.join()
    assert process.exitcode == 0
    assert_same_outcome(run, whole)


def test_nohup_is_respected(bars, tmp_path):
    script = Path(__file__).parents[2] / "scripts" / "train.py"
    run = tmp_path / "run"
    process = subprocess.Popen([sys.executable, script, "--data", bars, "--out", run, *FLAGS], stderr=subprocess.PIPE,
                               stdout=subprocess.PIPE, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    wait_for((run / "metrics.csv").exists)
    process.send_signal(signal.SIGHUP)
    process.communicate()
    assert process.returncode == 0
    assert "best epoch" in (run / "log.txt").read_text()


# ---- what must be the same -----------------------------------------------------------------------------------------


def swap_names(data: Path) -> None:
    (data / "classes.txt").write_text("standing\nlying\n")


def reorder(split: str):
    def change(data: Path) -> None:
        path = data / f"bars_{split}_list.txt"
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join([*lines[2:], *lines[:2]]))
    return change


def relabel(data: Path) -> None:
    path = data / "bars_val_list.txt"
    path.write_text(path.read_text().replace("clip 0.mp4 0", "clip 0.mp4 1"))


def shorten(split: str):
    def change(data: Path) -> None:
        path = data / f"bars_{split}_list.txt"
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    return change


def replace(split: str):
    def change(data: Path) -> None:
        write_clip(data / split / "clip 0.mp4", 0, seed=77, num_frames=12)
    return change


@pytest.mark.parametrize(("change", "words"), [
    (swap_names, "its classes were lying, standing, now they are standing, lying"),
    (shorten("train"), "it had 11 training videos, now there are 10"),
    (shorten("val"), "it had 4 validation videos, now there are 3"),
    (reorder("train"), "its training videos have other names, or another order"),
    (reorder("val"), "its validation videos have other names, or another order"),
    (relabel, "its validation videos have other labels"),
    (replace("train"), "files of its training videos were replaced: their sizes differ"),
    (replace("val"), "files of its validation videos were replaced: their sizes differ"),
])
def test_other_data_are_refused_with_the_difference(change, words, bars, whole, tmp_path, capsys):
    data = tmp_path / "moved"
    shutil.copytree(bars, data)
    change(data)
    before = (whole / "last.pt").read_bytes()
    assert main(["--resume", str(whole), "--data", str(data), "--num-workers", "0"]) == 2
    error = capsys.readouterr().err
    assert f"error: {whole} cannot go on: {words}. Put that back, or start a new run with --weights " in error
    assert error.count("\n") == 1
    assert (whole / "last.pt").read_bytes() == before


def test_the_same_data_in_another_folder_are_the_same_run(bars, whole, tmp_path):
    shutil.copytree(bars, tmp_path / "moved")
    shutil.copytree(whole, tmp_path / "run")
    assert main(["--resume", str(tmp_path / "run"), "--data", str(tmp_path / "moved"), "--num-workers", "0"]) == 0


def test_each_difference_of_two_runs_is_a_clause():
    videos = ListIdentity(5, "names", "labels", "sizes")
    run = RunIdentity(["a", "b"], videos, videos, {"lr": 0.1, "model": "conv2d"}, 2, "bfloat16")
    assert differences(run, run) == []
    assert RunIdentity.load(asdict(run)) == run
    other = RunIdentity(["a", "b"], videos, videos, {"lr": 0.2, "model": "conv2d"}, 1, "float32")
    assert differences(run, other) == [
        "--lr was 0.1, now it is 0.2", "it was begun by 2 processes, its config.json says 1",
        "it computed in bfloat16, this device would in float32 (--device)"]


def test_flags_from_python_are_held_to_the_run(bars, whole):
    flags = {**Checkpoint.load(whole / "last.pt").config, "lr": 0.5, "resume": str(whole), "num_workers": 0}
    with pytest.raises(ValueError, match=r"cannot go on: --lr was 0\.001, now it is 0\.5\."):
        train(RunConfig(**flags))


def test_a_config_edited_by_hand_changes_nothing(whole, tmp_path, capsys):
    shutil.copytree(whole, tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    path.write_text(path.read_text().replace('"lr": 0.001', '"lr": 7.5').replace('"epochs": 3', '"epochs": 4'))
    assert main(["--resume", str(tmp_path / "run"), "--num-workers", "0"]) == 0
    out = capsys.readouterr().out
    assert f"note: {path} says --lr 7.5; the 0.001 in last.pt holds" in out
    assert f"note: {path} says --epochs 4; the 3 in last.pt holds" in out
    assert len(metrics_of(tmp_path / "run")) == 1 + 3


@pytest.mark.parametrize("damage", [lambda text: text.replace('"lying"', '"LYING"', 1), lambda text: "{}",
                                    lambda text: text[:50]])
def test_a_config_that_is_damaged_is_written_anew(damage, whole, tmp_path, capsys):
    """Else the run would go on to its end, and fail there at its report."""
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    before = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(damage((run / "config.json").read_text()))
    assert main(["--resume", str(run), "--num-workers", "0"]) == 0
    assert f"note: {run / 'config.json'} was edited or damaged; it is written anew" in capsys.readouterr().out
    after = json.loads((run / "config.json").read_text())
    may_differ = {"num_workers", "resume", "date", "command", "out", "job", "launcher"}
    assert {name for name in before | after if before.get(name) != after.get(name)} <= may_differ


def test_a_flag_that_cannot_change_says_what_does_work(whole, capsys):
    assert main(["--resume", str(whole), "--lr", "1", "--balanced"]) == 2
    error = capsys.readouterr().err
    command = error.split("start a new run from its weights: tinyaction train ")[1].strip()
    config = parse_args(shlex.split(command))
    assert (config.lr, config.balanced, config.weights, config.out) == (1.0, True, str(whole / "best.pt"), "")
    assert config.optimizer == "adamw" and config.size == 16  # of the run


def set_in(*keys, value):
    def change(training):
        place = training
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value
    return change


def without_key(*keys):
    def change(training):
        place = training
        for key in keys[:-1]:
            place = place[key]
        del place[keys[-1]]
    return change


@pytest.mark.parametrize("change", [
    without_key("objects"), without_key("state"), without_key("random"), without_key("best"), without_key("identity"),
    without_key("state", "step"), without_key("objects", "optimizer"), without_key("identity", "train"),
    set_in("objects", value=[1, 2]), set_in("state", value="x"), set_in("best", value={"epoch": "first"}),
    set_in("best", value={"epoch": 1}), set_in("state", "epoch", value="2"), set_in("state", "num_batches", value=-5),
    set_in("state", "total_loss", value=float("nan")), set_in("state", "extra", value=1),
    set_in("objects", "optimizer", value={}), set_in("objects", "optimizer", "state", value={0: {"exp_avg": 1}}),
    set_in("objects", "optimizer", "param_groups", 0, "lr", value="fast"),
    set_in("objects", "optimizer", "state", 0, "exp_avg", value=torch.zeros(3)),
    set_in("objects", "train_loader", value={"epoch": 1}), set_in("objects", "train_loader", "num_done", value=99),
    set_in("objects", "train_loader", "bad", value=[{"name": "x"}]), set_in("objects", "model", value=None),
    set_in("random", "numpy", value=("MT19937",)), set_in("random", "torch", value=torch.zeros(3)),
    set_in("random", "python", value=(3, (1, 2), None)),
    set_in("random", "num_threads", value=10**9), set_in("identity", "train", value=7),
    set_in("identity", value=None),
])
def test_a_tampered_training_state_is_one_sentence(change, whole, tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    for name in ("config.json", "best.pt", "metrics.csv"):
        shutil.copy(whole / name, run / name)
    saved = torch.load(whole / "last.pt", weights_only=True)
    change(saved["training"])
    torch.save(saved, run / "last.pt")
    assert main(["--resume", str(run), "--num-workers", "0"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {run / 'last.pt'}: ") and error.count("\n") == 1


def test_a_run_of_an_earlier_version_says_what_to_do(whole, tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(whole / "config.json", run)
    saved = torch.load(whole / "last.pt", weights_only=True)
    saved["training"]["videos"] = saved["training"].pop("identity")["train"]["names"]
    saved["config"]["max_bad"] = saved["config"].pop("max_skipped")
    torch.save(saved, run / "last.pt")
    assert main(["--resume", str(run), "--num-workers", "0"]) == 2
    assert "resume with the version that wrote it, or start a new run with --weights" in capsys.readouterr().err


# ---- checkpoints ---------------------------------------------------------------------------------------------------


def test_a_full_disk_leaves_the_checkpoint_before(bars, tmp_path):
    """A limit on the size of files stands for the full disk: the first checkpoint fits, those with Adam's do not."""
    run = tmp_path / "run"
    process = start("--data", bars, "--out", run, max_file_bytes=600_000)
    process.join()
    assert process.exitcode == 2
    saved = Checkpoint.load(run / "last.pt")
    assert saved.training.state["step"] == 0
    assert [path.name for path in run.iterdir() if path.name.endswith(".part")] == []


def checkpoint_of(epoch: int, **tensors: torch.Tensor) -> Checkpoint:
    return Checkpoint({"name": "conv2d", "num_classes": 2}, tensors, ["a", "b"], {"clip_len": 2}, epoch)


def test_a_failed_write_keeps_the_one_before(tmp_path, monkeypatch):
    path = tmp_path / "last.pt"
    checkpoint_of(1).save(path, keep_previous=True)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    sentence = "No space left on device; the checkpoint could not be saved"
    with pytest.raises(OSError, match=f"{sentence}, the one before is whole"):
        checkpoint_of(2).save(path, keep_previous=True)
    with pytest.raises(OSError, match=f"{sentence}: "):                # there is none before
        checkpoint_of(2).save(tmp_path / "first.pt", keep_previous=True)
    assert Checkpoint.load(path).epoch == 1
    assert [child.name for child in tmp_path.iterdir()] == ["last.pt"]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_cut_checkpoint_falls_back_to_the_one_before(share, tmp_path):
    path = tmp_path / "last.pt"
    for epoch in (1, 2):
        checkpoint_of(epoch, w=torch.arange(1000)).save(path, keep_previous=True)
    assert load_newest(path)[0].epoch == 2
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    checkpoint, note = load_newest(path)
    assert checkpoint.epoch == 1
    assert note.endswith("going on from last.previous.pt")
    previous_of(path).unlink()
    with pytest.raises(ValueError, match=r"last\.pt: not a readable checkpoint"):
        load_newest(path)


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path):
    path = tmp_path / "last.pt"
    checkpoint_of(1).save(path)
    path.rename(previous_of(path))
    assert load_newest(path)[0].epoch == 1


class Code:
    def __reduce__(self):
        return os.system, ("touch carried_out",)


def test_a_checkpoint_that_carries_code_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"format": "tinyaction-1", "epoch": Code()}, "last.pt")
    with pytest.raises(ValueError, match=r"last\.pt: .* reading it would run code, \w+\.system"):
        Checkpoint.load("last.pt")
    assert not Path("carried_out").exists()


def test_random_states_come_back():
    import numpy as np

    num_threads = torch.get_num_threads()
    before = random_state()
    torch.set_num_threads(num_threads + 1)
    drawn = random.random(), np.random.randn(), torch.rand(3)
    set_random_state(before)
    assert torch.get_num_threads() == num_threads
    again = random.random(), np.random.randn(), torch.rand(3)
    assert drawn[:2] == again[:2]
    assert torch.equal(drawn[2], again[2])


def test_objects_that_do_not_fit_are_named():
    model = torch.nn.Linear(2, 2)
    saved = training_state(TrainState(epoch=3, step=7), {"model": model})
    assert restore_training(saved, {"model": model}) == TrainState(epoch=3, step=7)
    with pytest.raises(ValueError, match="the run was saved with model, now there are model, ema"):
        restore_training(saved, {"model": model, "ema": model})
    with pytest.raises(ValueError, match="the saved model does not fit: .*size mismatch"):
        restore_training(saved, {"model": torch.nn.Linear(2, 3)})


# ---- the folder ----------------------------------------------------------------------------------------------------


def hold(path: Path, connection) -> None:
    run = RunFolder(path)
    connection.send(f"held {run.path.name}"[:4])
    time.sleep(60)


def test_two_runs_never_write_one_folder(tmp_path):
    ours, theirs = processes.Pipe()
    process = processes.Process(target=hold, args=(tmp_path / "run", theirs))
    process.start()
    assert ours.recv() == "held"
    for reopen in (False, True):
        with pytest.raises(ValueError, match="another run is writing to this folder"):
            RunFolder(tmp_path / "run", reopen=reopen)
    process.kill()
    process.join()
    RunFolder(tmp_path / "run", reopen=True).close()  # the lock goes with the process


def test_rows_of_epochs_that_will_be_done_again_are_taken_out(tmp_path):
    run = RunFolder(tmp_path / "run")
    (run.path / "metrics.csv").write_text("epoch,lr\n1,0.1\n2,0.2\n3,0.")
    run.forget_after(1)
    assert (run.path / "metrics.csv").read_text() == "epoch,lr\n1,0.1\n"
    run.close()
