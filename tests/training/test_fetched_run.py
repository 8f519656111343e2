"""Runs in S3 that are killed, and go on from their address on other machines, by one process and by several."""

import json
import shutil
import signal
from pathlib import Path

import fsspec
import pytest
from ranks import Ranks, has_saved, wait_for, weight_difference
from servers import serve_s3
from toys import write_set

from tinyaction.results.run_copy import local_run_folder
from tinyaction.training.config import RunConfig
from tinyaction.training.fetched_run import _folder_of
from tinyaction.training.job import folder_of_job

FLAGS = ("--model conv2d --method finetune --size 16 --clip-len 2 --batch-size 2 --epochs 2 --save-every 1 "
         "--num-workers 0 --lr 0.02 --mixup 0.2 --ema 0.9 --freeze-norms --device cpu --video-timeout 30").split()


@pytest.fixture(scope="module")
def bars(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("bars"), num_train=13, num_val=3, num_frames=3)


@pytest.fixture(scope="module")
def s3():
    """The environment of a server that stands for S3, with a bucket."""
    with serve_s3() as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        fsspec.filesystem("s3").mkdir("bucket")
        yield environment


@pytest.fixture
def machines(tmp_path):
    folders = [tmp_path / f"machine {number}" for number in range(6)]
    for folder in folders:
        folder.mkdir()
    return folders


def no_secret_in(folder):
    return not [path for path in folder.rglob("*") if path.is_file() and b"the-secret" in path.read_bytes()]


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_was_stopped_goes_on_elsewhere(signum, bars, s3, machines, tmp_path):
    place = f"s3://bucket/{signum.name}"
    flags = ["--data", bars, "--grad-accum", 2, *FLAGS]
    assert Ranks(1, tmp_path / "whole", *flags, "--out", tmp_path / "whole run").end() == [0]
    run = machines[0] / "runs" / signum.name
    ranks = Ranks(1, tmp_path / "begun", *flags, "--out", place, folders=machines, environment=s3)
    wait_for(has_saved(run, 3))
    ranks.kill(signum, 0)
    assert ranks.end() == [128 + signum if signum == signal.SIGTERM else -signum]
    assert Ranks(1, tmp_path / "again", "--resume", place, folders=machines[1:], environment=s3).end() == [0]
    assert "resumed in epoch" in (machines[1] / "runs" / signum.name / "log.txt").read_text()
    for again in (machines[1] / "runs" / signum.name, Path(place)):
        assert weight_difference(again, tmp_path / "whole run") == 0
    assert no_secret_in(tmp_path)


@pytest.mark.slow
def test_several_processes_on_machines_that_see_no_common_folder(bars, s3, machines, tmp_path):
    """Two begin, both are killed; two others go on, are stopped, and one ends it."""
    place, flags = "s3://bucket/several", ["--data", bars, *FLAGS]
    assert Ranks(2, tmp_path / "whole", *flags, "--out", tmp_path / "whole run").end() == [0, 0]
    ranks = Ranks(2, tmp_path / "begun", *flags, "--out", place, folders=machines, environment=s3)
    wait_for(has_saved(machines[0] / "runs" / "several", 2))
    ranks.kill(signal.SIGKILL, 0, 1)
    assert ranks.end() == [-9, -9]
    ranks = Ranks(2, tmp_path / "again", "--resume", place, folders=machines[2:], environment=s3)
    wait_for(has_saved(machines[2] / "runs" / "several", 1))
    ranks.kill(signal.SIGTERM, 1)
    assert ranks.end() == [128 + signal.SIGTERM] * 2
    assert not (machines[1] / "runs").exists() and not (machines[3] / "runs").exists()  # only rank 0 writes
    ranks = Ranks(2, tmp_path / "last", "--resume", place, folders=machines[4:], environment=s3)
    assert ranks.end() == [0, 0], (tmp_path / "last").read_text()
    assert weight_difference(Path(place), tmp_path / "whole run") == 0
    ranks = Ranks(2, tmp_path / "not there", "--resume", "s3://bucket/nothing", folders=machines, environment=s3)
    assert ranks.end() == [2, 2]
    assert ranks.errors()[0].startswith("error: s3://bucket/nothing/config.json: no such file")
    ranks = Ranks(2, tmp_path / "there", *flags, "--out", place, folders=[machines[1], machines[3]], environment=s3)
    assert ranks.end() == [2, 2]
    (error,) = ranks.errors()
    assert error.startswith("error: s3://bucket/several: exists already and is not empty")


@pytest.mark.slow
def test_machines_that_go_on_from_different_folders_are_refused(bars, machines, tmp_path):
    """Each sees a folder of the run of its own, and none of them lies elsewhere."""
    begun = Ranks(1, tmp_path / "begun", "--data", bars, "--out", "run", *FLAGS, "--epochs", 1, folders=machines)
    assert begun.end() == [0]
    shutil.copytree(machines[0] / "run", machines[1] / "run")
    (machines[1] / "run" / "last.pt").unlink()
    ranks = Ranks(2, tmp_path / "both", "--resume", "run", folders=machines)
    assert ranks.end() == [2, 2]
    (error,) = ranks.errors()
    assert "do not see the same run/last.pt; let all machines see the run folder, or begin runs with --out" in error


def test_a_restarted_job_finds_its_run_elsewhere(tmp_path, monkeypatch):
    """Rank 0 is on a machine that has not seen the run; or on the one that fetched it."""
    monkeypatch.chdir(tmp_path)
    system, place = fsspec.filesystem("memory"), f"memory://{tmp_path.name}/run"
    config = {"job": "a", "launcher": "process 1 on b", "out": "runs/original"}
    system.pipe_file(f"/{tmp_path.name}/run/config.json", json.dumps(config).encode())
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "a")
    for count, rank, job in ((0, 0, "a"), (1, 1, "a"), (1, 0, "c")):   # no restart, not rank 0, another job
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", str(count))
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", job)
        assert folder_of_job(RunConfig("data", out=place)) == ""
    assert folder_of_job(RunConfig("data", out=f"memory://{tmp_path.name}/none")) == ""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "a")
    assert folder_of_job(RunConfig("data", out=place)) == "runs/run"
    assert json.loads((tmp_path / "runs/run/config.json").read_text())["out"] == place
    assert _folder_of(place) == local_run_folder(place)                # of a restart, with --resume place
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "another")
    with pytest.raises(ValueError, match="runs/run is here already; go on with --resume runs/run"):
        _folder_of(place)
    system.rm(f"/{tmp_path.name}", recursive=True)
