"""The nearest clips: cosines of features, of the run's training clips, from the cache; and the command."""

import json
from pathlib import Path

import pytest
import torch
from toys import CLASSES, save_toy, write_set

from tinyaction import Checkpoint, eval_pipeline, find_data, load_model
from tinyaction.cli import main
from tinyaction.results.features import FeatureCache, extract_features
from tinyaction.results.neighbors import ClipLibrary, Neighbor, nearest, read_neighbors, write_neighbors


@pytest.fixture
def run(tmp_path) -> Path:
    """A checkpoint that knows its data."""
    write_set(tmp_path / "data", num_train=5, num_val=1)
    save_toy(tmp_path / "best.pt")
    checkpoint = Checkpoint.load(tmp_path / "best.pt")
    checkpoint.config = {"data": str(tmp_path / "data")}
    checkpoint.save(tmp_path / "best.pt")
    return tmp_path


def command(capsys, *words) -> str:
    assert main(["neighbors", *map(str, words), "--device", "cpu", "--num-workers", "0"]) == 0
    return capsys.readouterr().out


def test_nearest_is_the_largest_cosine():
    library = torch.tensor([[3.0, 0], [0, 2], [1, 1], [-1, 0], [5, 5]])
    order, cosines = nearest(torch.tensor([[2.0, 0], [1, 1]]), library, num=3)
    assert order.tolist() == [[0, 2, 4], [2, 4, 0]]                    # of equal ones the first
    root = 0.5**0.5
    torch.testing.assert_close(cosines, torch.tensor([[1, root, root], [1, 1, root]]))
    assert nearest(torch.ones(1, 2), library, num=9)[0].shape == (1, 5)


def test_the_nearest_training_clips_of_a_run(run, capsys):
    video = run / "data" / "val" / "clip 0.mp4"
    found = ClipLibrary.build(run, device="cpu").nearest(video, num=3)[0]
    model, checkpoint = load_model(run)
    pipeline, data = eval_pipeline(**checkpoint.eval_pipeline), find_data(run / "data")
    train, val = (extract_features(model, videos, pipeline, FeatureCache(None), device=torch.device("cpu")).features
                  .float().mean(dim=(1, 2, 4, 5)) for videos in (data.train, data.val))
    cosines = torch.nn.functional.cosine_similarity(val, train)        # (5,)
    order = cosines.argsort(descending=True)[:3].tolist()
    assert [one.filename for one in found] == [data.train[index][0] for index in order]
    assert [one.similarity for one in found] == pytest.approx(cosines[order].tolist(), abs=1e-5)
    assert [one.class_name for one in found] == [CLASSES[data.train[index][1]] for index in order]
    rows = json.loads(command(capsys, video, "--checkpoint", run, "-n", "3", "--json"))
    assert [row["path"] for row in rows["neighbors"]] == [one.filename for one in found]
    lines = command(capsys, video, "--checkpoint", run, "-n", "2").splitlines()
    assert lines[0] == str(video) and lines[1].split()[:2] == [f"{found[0].similarity:.3f}", found[0].class_name]


def test_a_training_clip_is_not_its_own_neighbor(run):
    library = ClipLibrary.build(run, device="cpu")
    found = library.nearest([run / "data" / "train" / f"clip {number}.mp4" for number in range(5)], num=9)
    assert [len(one) for one in found] == [4] * 5
    assert all(Path(one.filename).name != f"clip {number}.mp4" for number, near in enumerate(found) for one in near)


def test_the_library_is_read_from_the_cache(run, monkeypatch):
    first = ClipLibrary.build(run, device="cpu")
    monkeypatch.setattr("tinyaction.results.features._compute", lambda *_, **__: pytest.fail("computed again"))
    assert ClipLibrary.build(run, device="cpu").vectors.equal(first.vectors)
    assert list((run / "data-features").iterdir())


def test_clips_that_cannot_be_read_are_notes(run):
    (run / "data" / "train" / "clip 2.mp4").write_bytes(b"no video")
    library = ClipLibrary.build(run, device="cpu")
    assert len(library.filenames) == 4 and len(library.notes) == 1 and "clip 2.mp4" in library.notes[0]
    with pytest.raises(ValueError, match=r"clip 2.mp4"):
        library.nearest(run / "data" / "train" / "clip 2.mp4")


@pytest.mark.parametrize("words, message", [
    (["--checkpoint", "RUN", "--data", "nowhere"], "nowhere: no such folder; give the folder or list of labelled"),
    (["--model", "videomae-base"], "--model has no clips of its own to search; name labelled clips with --data"),
    (["--checkpoint", "RUN", "-n", "0"], "--num is 0; it must be at least 1"),
    (["--checkpoint", "plain"], "no clips to search are named; give the folder or list of labelled clips as data"),
])
def test_what_cannot_be_searched_is_one_sentence(run, monkeypatch, capsys, words, message):
    monkeypatch.chdir(run)
    (run / "plain").mkdir()
    save_toy(run / "plain" / "best.pt")
    video = run / "data" / "val" / "clip 0.mp4"
    assert main(["neighbors", str(video), *(str(run) if word == "RUN" else word for word in words)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}") and error.count("\n") == 1


def test_neighbors_of_a_run_survive_their_file(tmp_path):
    neighbors = {"a b.mp4": [Neighbor("=c,d.mp4", "lying", 0.75), Neighbor("e.mp4", "=1+1", 0.5)], "f.mp4": []}
    write_neighbors(tmp_path / "neighbors.csv", neighbors)
    assert read_neighbors(tmp_path / "neighbors.csv") == {"a b.mp4": neighbors["a b.mp4"]}
    assert read_neighbors(tmp_path / "none.csv") == {}
    (tmp_path / "neighbors.csv").write_text("path,neighbor\na,b\n")
    with pytest.raises(ValueError, match="neighbors.csv: cannot be read"):
        read_neighbors(tmp_path / "neighbors.csv")
