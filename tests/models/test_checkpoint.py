"""One plain dict, written whole or not at all, read without running anything."""

import os
import pickle
from pathlib import Path

import pytest
import torch

from tinyaction import create_model, load_checkpoint, load_model, save_checkpoint
from tinyaction.models import checkpoint
from tinyaction.models.checkpoint import FORMAT

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


@pytest.mark.parametrize("kind", [str, Path])
def test_what_is_written_is_read(tmp_path, model, kind):
    path = kind(tmp_path / "a.pt")
    save_checkpoint(path, content_of(model))
    read, checkpoint = load_model(path)
    inputs = torch.randint(0, 256, (2, 1, 3, 4, 32, 32), dtype=torch.uint8)
    assert torch.equal(read(inputs, mode="logits"), model(inputs, mode="logits"))
    assert not read.training
    assert {key: checkpoint[key] for key in CONTENT} == CONTENT
    assert checkpoint["format"] == FORMAT
    assert checkpoint["versions"]["torch"] == str(torch.__version__)
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]  # no temporary file stays


def test_a_crash_while_writing_leaves_the_old_one(tmp_path, model, monkeypatch):
    path = tmp_path / "last.pt"
    save_checkpoint(path, content_of(model))
    before = path.read_bytes()

    def crash_in_the_middle(content, file):
        file.write(before[: len(before) // 2])
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", crash_in_the_middle)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(path, content_of(model))
    assert path.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


def test_the_name_appears_only_when_the_file_is_whole_and_on_the_disk(tmp_path, model, monkeypatch):
    path = tmp_path / "last.pt"
    steps = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda number: (steps.append(("fsync", path.exists())), fsync(number)))
    monkeypatch.setattr(os, "replace", lambda a, b: (steps.append(("replace", path.exists())), replace(a, b)))
    save_checkpoint(path, content_of(model))
    assert steps == [("fsync", False), ("replace", False)]
    load_checkpoint(path)


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
    with pytest.raises(ValueError, match=r"evil\.pt: not a readable checkpoint: .* would run code, \w+\.system"):
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
    save_checkpoint(path, content_of(model))
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ValueError, match=r"cut\.pt: not a readable checkpoint: it is damaged, cut, or of"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    "data", [b"hello\n", b"PK\x03\x04 not a zip", bytes(range(256)), pickle.dumps({"a": 1}, protocol=4)[:-1]]
)
def test_a_foreign_file(tmp_path, data):
    (tmp_path / "foreign.pt").write_bytes(data)
    with pytest.raises(ValueError, match=r"foreign\.pt: not a readable checkpoint") as caught:
        load_checkpoint(tmp_path / "foreign.pt")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "found"),
    [({"format": "tinyaction-99"}, "'tinyaction-99'"), ({"state_dict": {}}, "None"), ([1, 2], "'list'"),
     (torch.zeros(2), "'Tensor'")],
)
def test_another_format(tmp_path, content, found):
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=rf"other\.pt: not a checkpoint of this version of .*\(format {found}, not"):
        load_checkpoint(tmp_path / "other.pt")


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.pt: no such checkpoint"):
        load_checkpoint(tmp_path / "none.pt")


@pytest.mark.parametrize(
    "change",
    [{"model": {"name": "conv2d", "num_classes": 4}}, {"model": {"name": "conv3d", "num_classes": 3}},
     {"model": {"name": "conv9d", "num_classes": 3}}, {"model": {"name": "conv2d", "num_classes": 3, "depth": 9}},
     {"state_dict": {}}],
)
def test_weights_that_are_not_those_of_the_model(tmp_path, model, change):
    save_checkpoint(tmp_path / "a.pt", content_of(model) | change)
    with pytest.raises(ValueError, match=r"a\.pt: its model cannot be made \(") as caught:
        load_model(tmp_path / "a.pt")
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_a_gpu_is_read_on_the_cpu(tmp_path, model, monkeypatch):
    """Where it was trained does not matter: the file is read onto the CPU, with weights_only."""
    seen = {}
    load = torch.load
    monkeypatch.setattr(checkpoint.torch, "load", lambda path, **kw: seen.update(kw) or load(path, **kw))
    save_checkpoint(tmp_path / "a.pt", content_of(model))
    load_checkpoint(tmp_path / "a.pt")
    assert seen == {"map_location": "cpu", "weights_only": True}
