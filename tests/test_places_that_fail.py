"""Servers that fail in the middle of a command, uploads that end late, runs that are killed and go on elsewhere."""

import threading
import time

import fsspec
import pytest
import torch
from servers import serve
from toys import save_toy, write_set

from tinyaction import places
from tinyaction.cli import main
from tinyaction.data.annotations import find_data
from tinyaction.models.checkpoint import Checkpoint
from tinyaction.places import PlaceError, read_place, write_place

FLAGS = ("--model conv2d --method finetune --size 24 --clip-len 2 --num-workers 0 --batch-size 2 --device cpu "
         "--epochs 2 --save-every 1 --lr 0.02 --shortcuts none").split()


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    pytest.importorskip("aiohttp", reason="of the extra 'cloud'")
    return write_set(tmp_path_factory.mktemp("failing") / "clips", num_train=6, num_val=2, num_frames=4)


@pytest.fixture(scope="module")
def undisturbed(clips):
    """(a run of local files, number of requests that the same one over HTTP makes)."""
    run = clips.parent / "undisturbed"
    with serve(clips.parent) as server:
        assert main(["train", "--data", f"{server.url}/clips", "--out", str(run), *FLAGS]) == 0
        return run, server.num_requests


@pytest.fixture
def server(clips, monkeypatch):
    monkeypatch.setattr(places, "FIRST_WAIT_SECONDS", 0.05)
    monkeypatch.setattr(places, "SECONDS_A_TRY", 0.4)
    with serve(clips.parent) as running:
        yield running


def are_equal(run, other):
    ours, theirs = (Checkpoint.load(folder / "last.pt") for folder in (run, other))
    assert ours.epoch == theirs.epoch
    return all(torch.equal(ours.state_dict[name], theirs.state_dict[name]) for name in theirs.state_dict)


@pytest.mark.parametrize("failure", [503, *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("drop", "stall"))])
def test_training_outlasts_a_server_that_recovers(failure, server, undisturbed, tmp_path):
    run, num_requests = undisturbed
    server.failure, server.num_fine, server.num_failures = failure, num_requests * 2 // 3, 2
    assert main(["train", "--data", f"{server.url}/clips", "--out", str(tmp_path / "run"), *FLAGS]) == 0
    assert server.num_failures == 0
    assert are_equal(tmp_path / "run", run)


@pytest.mark.parametrize("failure", [503, *(pytest.param(kind, marks=pytest.mark.slow) for kind in
                                            (403, 404, "drop", "stall"))])
def test_training_ends_with_a_server_that_does_not(failure, server, undisturbed, tmp_path, capsys, monkeypatch):
    """Also where bad videos are skipped: nothing is wrong with them. What was trained goes on when it is back."""
    monkeypatch.setenv("TINYACTION_PLACE_SECONDS", "0.6")
    run, num_requests = undisturbed
    server.failure, server.num_fine = failure, num_requests * 2 // 3
    is_of_one_file = failure in (403, 404)
    skip = [] if is_of_one_file else ["--on-error", "skip", "--max-skipped", "1"]
    begin = time.monotonic()
    out = tmp_path / "run"
    assert main(["train", "--data", f"{server.url}/clips", "--out", str(out), *FLAGS, *skip]) == 2
    assert time.monotonic() - begin < 10
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith(f"error: {server.url}/clips/")
    assert ("mend the file" in error) == is_of_one_file
    assert error.endswith(f"go on with: tinyaction train --resume {out}")
    server.failure = 0
    assert main(["train", "--resume", str(out)]) == 0
    assert are_equal(out, run)
    assert not (out / "bad_files.txt").exists()


@pytest.mark.parametrize("failure", [503, *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("drop", "stall"))])
def test_predict_outlasts_a_failure_or_ends_with_one_sentence(failure, server, clips, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TINYACTION_PLACE_SECONDS", "0.6")
    save_toy(tmp_path / "a.pt")
    words = ["--checkpoint", str(tmp_path / "a.pt"), "--csv"]
    assert main(["predict", str(clips / "train"), *words, str(tmp_path / "local.csv")]) == 0
    server.failure, server.num_fine, server.num_failures = failure, 14, 1
    assert main(["predict", f"{server.url}/clips/train/", *words, str(tmp_path / "a.csv")]) == 0
    assert server.num_failures == 0
    scores = [[line.split(",")[1:] for line in (tmp_path / name).read_text().splitlines()]
              for name in ("local.csv", "a.csv")]
    assert scores[0] == scores[1]
    capsys.readouterr()
    server.num_fine, server.num_failures = 14, 10**9
    begin = time.monotonic()
    assert main(["predict", f"{server.url}/clips/train/", *words, str(tmp_path / "b.csv")]) == 2
    assert time.monotonic() - begin < 10                               # the rest is not asked for
    assert capsys.readouterr().err.count("error: ") == 1


def test_a_neighbour_that_is_refused_is_no_refused_list(server):
    """S3 says 403 over https of a file that is not there."""
    server.refused = frozenset({"classes.txt"})
    data = find_data(f"{server.url}/clips/bars_train_list.txt")
    assert (len(data.train), len(data.val), data.class_names) == (6, 2, ["0", "1"])
    server.refused = frozenset({"bars_train_list.txt"})
    with pytest.raises(PlaceError, match=r"bars_train_list.txt: access is refused \(403\)"):
        find_data(f"{server.url}/clips/bars_train_list.txt")


def test_an_upload_that_ends_late_does_not_replace_a_newer_one(monkeypatch):
    monkeypatch.setattr(places, "SECONDS_A_TRY", 0.1)
    monkeypatch.setenv("TINYACTION_PLACE_SECONDS", "0.1")
    system = fsspec.filesystem("memory")
    may_end, put = threading.Event(), type(system).pipe_file

    def late(self, path, value, **arguments):
        if value == b"older":
            may_end.wait(5)
        put(self, path, value, **arguments)

    monkeypatch.setattr(type(system), "pipe_file", late)
    with pytest.raises(PlaceError, match="no answer, after 1 try"):
        write_place("memory://late/a.txt", b"older")
    with pytest.raises(PlaceError, match="an earlier copy is still on its way"):
        write_place("memory://late/a.txt", b"newer")
    may_end.set()
    write_place("memory://late/a.txt", b"newer")
    assert not places._tries_of                                        # a store writes to a million addresses
    time.sleep(0.1)
    assert read_place("memory://late/a.txt") == b"newer"
    system.rm("/late", recursive=True)
