"""Checkpoints whose pickle names what is not installed, or what would do harm."""

import builtins
import collections
import io
import os
import pickle
import struct
import zipfile

import pytest
import torch

from tinyaction.models.inert_pickle import Inert, is_code, read_inert

TENSORS = collections.OrderedDict(
    transposed=torch.arange(12.0).reshape(3, 4).t(),
    part=torch.arange(10, dtype=torch.int64)[3:7],
    empty=torch.zeros(0, 2),
    scalar=torch.tensor(2.5, dtype=torch.float64),
    half=torch.tensor([1.5, -2.0], dtype=torch.float16),
    brain=torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    flags=torch.tensor([True, False]),
    bytes=torch.tensor([0, 255], dtype=torch.uint8),
    parameter=torch.nn.Parameter(torch.ones(2, 2)),
)


class Calls:
    """Pickles as a call of ``function`` with ``arguments``."""

    def __init__(self, function, *arguments, state=None):
        self.parts = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.parts


@pytest.mark.parametrize("zip_format", [True, False])
def test_tensors_and_plain_containers_come_back(tmp_path, zip_format):
    plain = {"list": [1, 2.5, None, "s"], "tuple": (True, {"deep": 2**70}), 7: "number"}
    torch.save({"state_dict": TENSORS, "shared": TENSORS["part"], **plain}, tmp_path / "a.pth",
               _use_new_zipfile_serialization=zip_format)
    content, names = read_inert(tmp_path / "a.pth")
    assert names == []
    assert {key: content[key] for key in plain} == plain
    assert list(content["state_dict"]) == list(TENSORS)
    for key, tensor in TENSORS.items():
        read = content["state_dict"][key]
        assert read.dtype == tensor.dtype and read.shape == tensor.shape and read.equal(tensor), key
    assert content["shared"].tolist() == [3, 4, 5, 6]


def test_mmengines_checkpoint_is_read_without_mmengine(shared):
    content, names = read_inert(shared / "reference" / "mmengine_epoch_2.pth")
    assert set(content) == {"meta", "state_dict", "message_hub", "optimizer"}
    assert content["meta"]["mmengine_version"] == "0.10.7" and content["meta"]["epoch"] == 2
    assert len(content["state_dict"]) == 16
    assert all(isinstance(tensor, torch.Tensor) for tensor in content["state_dict"].values())
    assert content["state_dict"]["backbone.conv1.0.weight"].shape == (64, 3, 3, 7, 7)
    assert "mmengine.logging.history_buffer.HistoryBuffer" in names and "builtins.getattr" in names


def marker_code(path):
    return f"open({str(path)!r}, 'w').close()"


@pytest.mark.parametrize("zip_format", [True, False])
@pytest.mark.parametrize("name, make", [
    ("posix.system", lambda path: Calls(os.system, f"touch {path}")),
    ("builtins.eval", lambda path: Calls(eval, marker_code(path))),
    ("builtins.exec", lambda path: Calls(exec, marker_code(path))),
    ("builtins.__import__", lambda path: Calls(builtins.__import__, "os")),
    ("io.open", lambda path: Calls(open, str(path), "w")),
    ("shutil.rmtree", lambda path: Calls(__import__("shutil").rmtree, str(path))),
    ("subprocess.Popen", lambda path: Calls(__import__("subprocess").Popen, ["touch", str(path)])),
])
def test_code_of_pythons_own_library_is_named_and_not_run(tmp_path, zip_format, name, make):
    if os.name == "nt":
        name = name.replace("posix", "nt")
    torch.save({"state_dict": TENSORS, "extra": make(tmp_path / "harm")}, tmp_path / "a.pth",
               _use_new_zipfile_serialization=zip_format)
    with pytest.raises(ValueError, match=rf"a\.pth: carries code \(its pickle names {name}\); nothing of it was run"):
        read_inert(tmp_path / "a.pth")
    assert not (tmp_path / "harm").exists()


def zip_with(path, pickled):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", pickled)
        archive.writestr("a/byteorder", "little")
    return path


def by_hand(module, name):
    """The opcodes that push a global, so that a name can be pickled that Python itself would not."""
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n"


@pytest.mark.parametrize("pickled", [
    # getattr(getattr(os-like, "system"), ...): every link is a placeholder, and so is what it returns
    by_hand("__builtin__", "getattr") + b"(" + by_hand("torch.hub", "os") + b"X\x06\x00\x00\x00systemtR"
    + b"(X\x05\x00\x00\x00touchtR.",
    # build the state of a class, of a placeholder, of a placeholder's result
    by_hand("torch", "load") + b"(dX\x08\x00\x00\x00__code__X\x01\x00\x00\x00as" + b"b.",
    by_hand("mmengine", "Config") + b"(tR(N}X\x09\x00\x00\x00__class__X\x01\x00\x00\x00as" + b"tb.",
    # the very functions that build tensors
    by_hand("torch._utils", "_rebuild_tensor_v2") + b"(N}X\x08\x00\x00\x00__code__X\x01\x00\x00\x00as" + b"tb.",
    by_hand("numpy.testing._private.utils", "runstring") + b"(X\x08\x00\x00\x00import o}tR.",
    b"(S'touch'\n" + b"i" + b"torch.hub\nload\n" + b".",
    by_hand("collections", "OrderedDict") + b")R(dX\x01\x00\x00\x00aX\x01\x00\x00\x00bs" + b"b.",
])
def test_whatever_it_calls_or_sets_is_a_placeholder(tmp_path, pickled):
    before = (torch.load.__code__, torch.hub.load.__code__, torch._utils._rebuild_tensor_v2.__code__)
    try:
        content, _ = read_inert(zip_with(tmp_path / "a.pth", pickled))
        assert isinstance(content, Inert | dict) or not callable(content) or type(content).__module__ == \
            "tinyaction.models.inert_pickle"
    except ValueError as error:
        assert "not a readable checkpoint" in str(error)
    assert before == (torch.load.__code__, torch.hub.load.__code__, torch._utils._rebuild_tensor_v2.__code__)


def test_getattr_is_a_placeholder_too(tmp_path):
    """mmengine's files name it, so it is no reason to refuse a file; it gets hold of nothing."""
    pickled = (by_hand("__builtin__", "getattr") + b"(" + by_hand("collections", "OrderedDict") + b")R"
               + b"X\x05\x00\x00\x00cleartR.")
    content, names = read_inert(zip_with(tmp_path / "a.pth", pickled))
    assert isinstance(content, Inert) and names == ["builtins.getattr"]


def test_a_placeholder_takes_everything_and_returns_placeholders():
    thing = Inert(1, a=2)
    thing.append(1)
    thing.extend([1])
    thing.add(1)
    thing["key"] = 1
    thing.__setstate__({"a": 1})
    assert isinstance(thing(1, b=2), Inert) and vars(thing) == {}


@pytest.mark.parametrize("module, name, expected", [
    ("builtins", "eval", True), ("builtins", "apply", True), ("builtins", "getattr", False),
    ("builtins", "set", False), ("os", "system", True), ("posix", "system", True), ("nt", "system", True),
    ("os.path", "join", True), ("runpy", "run_path", True), ("importlib", "import_module", True),
    ("collections", "deque", False), ("pathlib", "PosixPath", False), ("argparse", "Namespace", False),
    ("mmengine.config", "Config", False), ("numpy", "dtype", False),
])
def test_what_counts_as_code(module, name, expected):
    assert is_code(module, name) is expected


def damaged(kind):
    buffer = io.BytesIO()
    torch.save({"a": torch.ones(300)}, buffer, _use_new_zipfile_serialization=kind != "legacy")
    return buffer.getvalue()


@pytest.mark.parametrize("data, reason", [
    (b"", "not a file of torch.save"),
    (b"hello", "not a file of torch.save"),
    (b"\x00\x00\x00\x20ftypisom", "not a file of torch.save"),
    (damaged("zip")[:-200], "it is cut"),
    (damaged("legacy")[:-200], "it is cut"),
    (damaged("legacy")[:40], "not a readable checkpoint"),
])
def test_what_is_no_checkpoint_is_said_so(tmp_path, data, reason):
    (tmp_path / "a.pth").write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.pth: not a readable checkpoint") as error:
        read_inert(tmp_path / "a.pth")
    assert reason in str(error.value)


def test_other_zip_files_and_big_endian_ones_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("word/document.xml", "<a/>")
    with pytest.raises(ValueError, match=r"other\.zip: not a readable checkpoint \(a zip file, but not one of torch"):
        read_inert(tmp_path / "other.zip")
    with zipfile.ZipFile(tmp_path / "big.pth", "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps({}))
        archive.writestr("a/byteorder", "big")
    with pytest.raises(ValueError, match=r"big\.pth: .*big-endian"):
        read_inert(tmp_path / "big.pth")


@pytest.mark.parametrize("offset, size, stride", [
    (0, (5,), (1,)), (3, (2,), (1,)), (0, (-1,), (1,)), (-1, (1,), (1,)),
])
def test_a_tensor_cannot_look_outside_its_storage(tmp_path, offset, size, stride):
    torch.save({"a": torch.zeros(4)}, tmp_path / "good.pth")
    with zipfile.ZipFile(tmp_path / "good.pth") as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("data.pkl")]
        pickled = archive.read(name)
        data = archive.read(name.replace("data.pkl", "data/0"))
    numbers = [b"K" + struct.pack("<B", value) if value >= 0 else b"J" + struct.pack("<i", value)
               for value in (offset, *size, *stride)]
    good = b"K\x00K\x04\x85"  # offset 0, (4,) before the memo of the size
    assert good in pickled
    bad = pickled.replace(good, numbers[0] + numbers[1] + b"\x85")
    with zipfile.ZipFile(tmp_path / "bad.pth", "w") as archive:
        archive.writestr("a/data.pkl", bad)
        archive.writestr("a/data/0", data)
    with pytest.raises(ValueError, match=r"bad\.pth: not a readable checkpoint"):
        read_inert(tmp_path / "bad.pth")
