"""One plain dict, written whole or not at all, read without running anything."""

import os
import pickle
import random
from pathlib import Path

import pytest
import torch

from tinyaction import Checkpoint, create_model, load_model
from tinyaction.models.checkpoint import FORMAT, BestEpoch, SavedTraining, load_newest, previous_of

CONTENT = {
    "class_names": ["run", "sit", "stand up"],
    "eval_pipeline": {"clip_len": 4, "size": 32, "num_clips": 2},
    "epoch": 7,
    "metrics": {"val_top1": 0.5},
    "config": {"lr": 0.01, "data": "clips"},
    "stand_in": False,
}


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    torch.manual_seed(0)
    model = create_model("conv2d", 3)
    model.backbone.conv1[1].running_mean.uniform_()  # buffers travel too
    return model.eval()


def content_of(model: torch.nn.Module) -> dict:
    return {"model": {"name": "conv2d", "num_classes": 3}, "state_dict": model.state_dict(), **CONTENT}


def checkpoint_of(model: torch.nn.Module) -> Checkpoint:
    return Checkpoint(**content_of(model))


@pytest.mark.parametrize("kind", [str, Path])
def test_what_is_written_is_read(tmp_path, model, kind):
    path = kind(tmp_path / "a.pt")
    checkpoint_of(model).save(path)
    read, checkpoint = load_model(path)
    inputs = torch.randint(0, 256, (2, 1, 3, 4, 32, 32), dtype=torch.uint8)
    assert torch.equal(read(inputs, mode="logits"), model(inputs, mode="logits"))
    assert not read.training
    assert {key: getattr(checkpoint, key) for key in CONTENT} == CONTENT
    assert checkpoint.versions["torch"] == str(torch.__version__)
    assert checkpoint.training is None
    assert set(torch.load(path, weights_only=True)) == {"format", "model", "state_dict", "versions", *CONTENT}
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]  # no temporary file stays


def test_a_crash_while_writing_leaves_the_old_one(tmp_path, model, monkeypatch):
    path = tmp_path / "last.pt"
    checkpoint_of(model).save(path)
    before = path.read_bytes()

    def crash_in_the_middle(content, file):
        file.write(before[: len(before) // 2])
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", crash_in_the_middle)
    with pytest.raises(KeyboardInterrupt):
        checkpoint_of(model).save(path)
    assert path.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


def test_the_name_appears_only_when_the_file_is_whole_and_on_the_disk(tmp_path, model, monkeypatch):
    path = tmp_path / "last.pt"
    steps = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda number: (steps.append(("fsync", path.exists())), fsync(number)))
    monkeypatch.setattr(os, "replace", lambda a, b: (steps.append(("replace", path.exists())), replace(a, b)))
    checkpoint_of(model).save(path)
    assert steps == [("fsync", False), ("replace", False), ("fsync", True)]  # the file, then the folder
    Checkpoint.load(path)


class Payload:
    """A pickle that runs a command when it is read."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return os.system, (f'echo "it ran" > "{self.trace}"',)


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_code_in_a_file_is_refused_and_does_not_run(tmp_path, model, writer):
    trace, path = tmp_path / "trace", tmp_path / "evil.pt"
    content = {"format": FORMAT, **content_of(model), "state_dict": Payload(trace)}
    if writer == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content, protocol=2))
    reason = r".* would run code, \w+\.system" if writer == "torch" else "it is not a file of torch.save"
    with pytest.raises(ValueError, match=rf"evil\.pt: not a readable checkpoint: {reason}"):
        load_model(path)
    assert not trace.exists()
    if writer == "torch":  # the payload is live: read without care, it does run
        torch.load(path, weights_only=False)
    else:
        pickle.loads(path.read_bytes())
    assert trace.exists()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.999])
def test_a_cut_file(tmp_path, model, share):
    path = tmp_path / "cut.pt"
    checkpoint_of(model).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ValueError, match=r"cut\.pt: not a readable checkpoint: it is"):
        Checkpoint.load(path)


@pytest.mark.parametrize(
    "data", [b"hello\n", b"PK\x03\x04 not a zip", bytes(range(256)), pickle.dumps({"a": 1}, protocol=4)[:-1]]
)
def test_a_foreign_file(tmp_path, data):
    (tmp_path / "foreign.pt").write_bytes(data)
    with pytest.raises(ValueError, match=r"foreign\.pt: not a readable checkpoint") as caught:
        Checkpoint.load(tmp_path / "foreign.pt")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "found"),
    [({"format": "tinyaction-99"}, "'tinyaction-99'"), ({"state_dict": {}}, "None"), ([1, 2], "'list'"),
     (torch.zeros(2), "'Tensor'")],
)
def test_another_format(tmp_path, content, found):
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=rf"other\.pt: not a checkpoint of this version of .*\(format {found}, not"):
        Checkpoint.load(tmp_path / "other.pt")


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.pt: no such checkpoint"):
        Checkpoint.load(tmp_path / "none.pt")


@pytest.mark.parametrize(
    "change",
    [{"model": {"name": "conv3d", "num_classes": 3}},
     {"model": {"name": "conv9d", "num_classes": 3}}, {"model": {"name": "conv2d", "num_classes": 3, "depth": 9}},
     {"state_dict": {}}],
)
def test_weights_that_are_not_those_of_the_model(tmp_path, model, change):
    Checkpoint(**content_of(model) | change).save(tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"a\.pt: its model cannot be made \(") as caught:
        load_model(tmp_path / "a.pt")
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_a_gpu_is_read_on_the_cpu(tmp_path, model, monkeypatch):
    """Where it was trained does not matter: the file is read onto the CPU, with weights_only."""
    seen = {}
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda path, **kw: seen.update(kw) or load(path, **kw))
    checkpoint_of(model).save(tmp_path / "a.pt")
    Checkpoint.load(tmp_path / "a.pt")
    assert seen == {"map_location": "cpu", "weights_only": True}


def test_a_run_folder_means_its_best_checkpoint(tmp_path, model):
    checkpoint_of(model).save(tmp_path / "best.pt")
    assert Checkpoint.load(tmp_path).epoch == 7
    with pytest.raises(FileNotFoundError, match=r"best\.pt: no such checkpoint"):
        Checkpoint.load(tmp_path.parent)


@pytest.mark.parametrize("best", [{}, {"epoch": 3, "top1": 0.75, "loss": 0.5}])
def test_a_checkpoint_of_the_first_version_loads(tmp_path, model, best):
    """The dict on the disk as the first version wrote it, with its list of videos as the only identity of a run."""
    training = {"state": {"epoch": 4}, "objects": {}, "random": {"python": (3, (1, 2), None)}, "best": best,
                "videos": "digest"}
    content = {"format": "tinyaction-1", "versions": {"tinyaction": "0.1"}, **content_of(model), "training": training}
    torch.save(content, tmp_path / "last.pt")
    saved = Checkpoint.load(tmp_path / "last.pt")
    assert saved.training == SavedTraining({"epoch": 4}, {}, {"python": (3, (1, 2), None)}, {"videos": "digest"},
                                           BestEpoch(3, 0.75, 0.5) if best else None)
    assert saved.versions == {"tinyaction": "0.1"} and saved.epoch == 7
    saved.save(tmp_path / "again.pt")
    assert Checkpoint.load(tmp_path / "again.pt").training == saved.training


KEYS_OF_THE_FIRST_VERSION = [
    *(f"backbone.{part}" for layer in ("conv1", "conv") for part in (
        f"{layer}.0.weight", f"{layer}.0.bias", f"{layer}.1.weight", f"{layer}.1.bias", f"{layer}.1.running_mean",
        f"{layer}.1.running_var", f"{layer}.1.num_batches_tracked")),
    "cls_head.fc.weight", "cls_head.fc.bias",
]


@pytest.mark.parametrize("name", ["conv2d", "conv3d"])
def test_a_model_of_the_first_version_scores_as_it_did(tmp_path, name):
    """The first version stored two arguments of a model, and tensors of these names."""
    model = create_model(name, 3).eval()
    state_dict = dict(zip(KEYS_OF_THE_FIRST_VERSION, model.state_dict().values(), strict=True))
    torch.save({"format": "tinyaction-1", "versions": {"tinyaction": "0.1"}, "model": {"name": name, "num_classes": 3},
                "state_dict": state_dict, "class_names": ["a", "b", "c"],
                "eval_pipeline": {"clip_len": 8, "size": 32, "num_clips": 2}, "epoch": 4, "metrics": {"val_top1": 0.5},
                "config": {}, "stand_in": False}, tmp_path / "best.pt")
    loaded, checkpoint = load_model(tmp_path)
    clips = torch.randint(0, 256, (2, 2, 3, 8, 32, 32), dtype=torch.uint8)
    assert torch.equal(loaded(clips, mode="logits"), model(clips, mode="logits"))
    assert (checkpoint.epoch, checkpoint.metrics, checkpoint.training) == (4, {"val_top1": 0.5}, None)


def test_a_checkpoint_is_shown_without_its_tensors(model):
    assert len(repr(checkpoint_of(model))) < 500


# ---- values that cannot be right ------------------------------------------------------------------------------------


@pytest.mark.parametrize("change, words", [
    ({"class_names": None}, "its class_names are no list of names"), ({"class_names": "run"}, "no list of names"),
    ({"class_names": [1, 2, 3]}, "no list of names"), ({"class_names": []}, "it has 0 class names and 3 classes"),
    ({"class_names": ["a", "b", "c", "d"]}, "it has 4 class names and 3 classes"),
    ({"model": {"name": "conv2d"}}, "'num_classes'"), ({"model": 3}, "'int'"), ({"state_dict": None}, "NoneType"),
    ({"model": {"name": "conv2d", "num_classes": 10**9}}, "it has 3 class names and 1000000000 classes"),
    ({"eval_pipeline": {"clip_len": 10**8, "size": 32, "num_clips": 1}}, "asks for 307,200 MB a video"),
    ({"eval_pipeline": {"clip_len": 8, "size": 10**5, "num_clips": 1}}, "asks for 240,000 MB a video"),
    ({"eval_pipeline": {"clip_len": 8, "size": 224, "num_clips": 10**6}}, "asks for 1,204,224 MB a video"),
    ({"eval_pipeline": {"clip_len": 0, "size": 224, "num_clips": 1}}, "its clip_len is 0; it must be at least 1"),
    ({"training": 3}, "'int'"), ({"training": {"best": {}}}, "missing"),
])
def test_impossible_values_are_one_sentence(tmp_path, model, change, words):
    torch.save({"format": FORMAT, **content_of(model), **change}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"a\.pt: not a usable checkpoint: ") as caught:
        load_model(tmp_path / "a.pt")
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("missing", ["model", "state_dict", "class_names", "eval_pipeline"])
def test_a_missing_part_is_named(tmp_path, model, missing):
    content = content_of(model)
    del content[missing]
    torch.save({"format": FORMAT, **content}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=rf"a\.pt: not a usable checkpoint: .*{missing}"):
        Checkpoint.load(tmp_path / "a.pt")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_no_numbers(tmp_path, model, value):
    content = content_of(model)
    weights = {key: tensor.clone() for key, tensor in content["state_dict"].items()}
    weights["cls_head.fc.weight"][1, 2] = value
    Checkpoint(**content | {"state_dict": weights}).save(tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"a\.pt: .*its cls_head.fc.weight holds NaN or infinite numbers, so every"):
        load_model(tmp_path / "a.pt")


# ---- damage ---------------------------------------------------------------------------------------------------------


def test_one_flipped_bit_is_found_or_changes_nothing(tmp_path, model):
    """torch.load alone reads other weights from most of these files without a word."""
    path = tmp_path / "last.pt"
    checkpoint_of(model).save(path)
    data, rng, num_found, num_silent = path.read_bytes(), random.Random(0), 0, 0
    for _ in range(200):
        place = rng.randrange(len(data))
        path.write_bytes(data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :])
        try:
            read = Checkpoint.load(path)
        except ValueError as error:
            assert "last.pt: not a readable checkpoint: " in str(error)
            num_found += 1
            num_silent += reads_silently(path, model)
            continue
        assert all(torch.equal(read.state_dict[key], tensor) for key, tensor in model.state_dict().items())
        assert {key: getattr(read, key) for key in CONTENT} == CONTENT
    assert num_found >= 190 and num_silent >= 150


def reads_silently(path, model) -> bool:
    """Whether torch.load reads other weights without an error."""
    try:
        state = torch.load(path, weights_only=True)["state_dict"]
        return not all(torch.equal(state[key], tensor) for key, tensor in model.state_dict().items())
    except Exception:
        return False


@pytest.mark.parametrize("damage", ["flipped bit", "nan"])
def test_a_damaged_last_checkpoint_falls_back_to_the_one_before(tmp_path, model, damage):
    path = tmp_path / "last.pt"
    content = content_of(model)
    for epoch in (1, 2):
        weights = {key: tensor.clone() for key, tensor in content["state_dict"].items()}
        if damage == "nan" and epoch == 2:
            weights["cls_head.fc.bias"][0] = float("nan")
        Checkpoint(**content | {"epoch": epoch, "state_dict": weights}).save(path, keep_previous=True)
    if damage == "flipped bit":
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    checkpoint, note = load_newest(path)
    assert checkpoint.epoch == 1 and note.endswith("going on from last.previous.pt")
    previous_of(path).unlink()
    with pytest.raises(ValueError, match=r"last\.pt: not a "):
        load_newest(path)
