"""Checkpoints whose pickle names what is not installed, or what would do harm."""

import builtins
import collections
import copy
import io
import os
import pickle
import resource
import struct
import zipfile

import pytest
import torch

from tinyaction.models.pickle_scan import MAX_TUPLE_DEPTH, Name
from tinyaction.models.torch_file import StandIn, is_code, read_torch_file

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


@pytest.mark.parametrize("zip_format", [True, False])
def test_tensors_and_plain_containers_come_back(tmp_path, zip_format):
    plain = {"list": [1, 2.5, None, "s"], "tuple": (True, {"deep": 2**70}), 7: "number"}
    torch.save({"state_dict": TENSORS, "shared": TENSORS["part"], **plain}, tmp_path / "a.pth",
               _use_new_zipfile_serialization=zip_format)
    content = read_torch_file(tmp_path / "a.pth")
    assert {key: content[key] for key in plain} == plain
    assert list(content["state_dict"]) == list(TENSORS)
    for key, tensor in TENSORS.items():
        read = content["state_dict"][key]
        assert read.dtype == tensor.dtype and read.shape == tensor.shape and read.equal(tensor), key
    assert content["shared"].tolist() == [3, 4, 5, 6]


def test_mmengines_checkpoint_is_read_without_mmengine(shared):
    path = shared / "reference" / "mmengine_epoch_2.pth"
    content = read_torch_file(path, stand_ins=True)
    assert set(content) == {"meta", "state_dict", "message_hub", "optimizer"}
    assert content["meta"]["mmengine_version"] == "0.10.7" and content["meta"]["epoch"] == 2
    assert len(content["state_dict"]) == 16
    assert all(isinstance(tensor, torch.Tensor) for tensor in content["state_dict"].values())
    assert content["state_dict"]["backbone.conv1.0.weight"].shape == (64, 3, 3, 7, 7)
    assert isinstance(content["message_hub"]["log_scalars"]["train/loss"], StandIn)
    with pytest.raises(ValueError, match=r"mmengine_epoch_2\.pth: .* it holds [\w.]+, which is none of torch's"):
        read_torch_file(path)


# ---------------------------------------------------------------------------------------------------------------------
# code
# ---------------------------------------------------------------------------------------------------------------------

CODE = {
    "os.system": ("touch {path}",), "posix.system": ("touch {path}",), "nt.system": ("touch {path}",),
    "os.popen": ("touch {path}",), "os.mkdir": ("{path}",), "os.remove": ("{path}",), "os.rename": ("{path}", "x"),
    "os.execvp": ("touch", ["touch", "{path}"]), "os.spawnlp": (0, "touch", "touch", "{path}"),
    "os.putenv": ("A", "B"), "posix.open": ("{path}", 65), "builtins.eval": ("open({path!r}, 'w')",),
    "builtins.exec": ("open({path!r}, 'w')",), "builtins.compile": ("1", "a", "eval"),
    "builtins.open": ("{path}", "w"), "builtins.__import__": ("antigravity",), "builtins.setattr": ("a", "b", 1),
    "builtins.delattr": ("a", "b"), "builtins.globals": (), "builtins.vars": (), "builtins.breakpoint": (),
    "builtins.input": (), "io.open": ("{path}", "w"), "io.FileIO": ("{path}", "w"), "shutil.rmtree": ("{path}",),
    "shutil.move": ("{path}", "x"), "subprocess.Popen": (["touch", "{path}"],),
    "subprocess.call": (["touch", "{path}"],),
    "subprocess.check_output": (["touch", "{path}"],), "subprocess.getoutput": ("touch {path}",),
    "runpy.run_path": ("{path}",), "runpy.run_module": ("antigravity",), "importlib.import_module": ("antigravity",),
    "code.interact": (), "pty.spawn": ("touch {path}",), "timeit.timeit": ("open({path!r}, 'w')",),
    "cProfile.run": ("open({path!r}, 'w')",), "pickle.loads": (b"x",), "marshal.loads": (b"x",),
    "socket.create_connection": (("127.0.0.1", 1),), "urllib.request.urlopen": ("file://{path}",),
    "webbrowser.open": ("file://{path}",), "ctypes.CDLL": ("libc.so.6",), "threading.Thread": (),
    "multiprocessing.Process": (), "asyncio.run": (1,), "signal.signal": (2, 1), "sys.exit": (1,),
    "sys.setrecursionlimit": (1,), "tempfile.mkdtemp": (), "zipfile.ZipFile": ("{path}", "w"),
    "sqlite3.connect": ("{path}",), "logging.config.fileConfig": ("{path}",), "operator.attrgetter": ("system",),
    "operator.methodcaller": ("system", "touch {path}"), "itertools.repeat": (1,), "types.FunctionType": (1, 2),
    "functools.partial": (1,), "codecs.open": ("{path}", "w"), "inspect.getsource": (1,), "gc.get_objects": (),
}
DATA_ONLY = {"types.FunctionType", "functools.partial", "logging.config.fileConfig"}  # their stand-ins do nothing


def global_of(full):
    """The opcode that pushes a name, whether it can be imported or not."""
    module, _, name = full.rpartition(".")
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n"


def pickled(value):
    """Protocol 2 without its first and last opcode."""
    return pickle.dumps(value, protocol=2)[2:-1]


def zip_with(path, program, **records):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02" + program + b".")
        archive.writestr("a/version", "3\n")
        for key, data in records.items():
            archive.writestr(f"a/data/{key[1:]}", data)
    return path


def legacy_with(path, program, keys=(), storages=b""):
    parts = [pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2), pickle.dumps(1001, protocol=2),
             pickle.dumps({"little_endian": True}, protocol=2), b"\x80\x02" + program + b".",
             pickle.dumps(list(keys), protocol=2)]
    path.write_bytes(b"".join(parts) + storages)
    return path


CONTEXTS = {
    "alone": lambda call: call,
    "in a dict": lambda call: b"}X\x01\x00\x00\x00a" + call + b"s",
    "as a key": lambda call: b"}" + call + b"K\x01s",
}


@pytest.mark.parametrize("form", [zip_with, legacy_with])
@pytest.mark.parametrize("full", CODE)
def test_code_of_pythons_own_library_is_named_and_never_run(tmp_path, monkeypatch, form, full):
    """As a call, as an object that is made, and with a state; written as a zip file and as before torch 1.6."""
    monkeypatch.chdir(tmp_path)
    harm = tmp_path / "harm"
    fill = {str: lambda text: text.format(path=str(harm)), list: lambda texts: [fill[str](text) for text in texts]}
    arguments = pickled(tuple(fill.get(type(value), lambda value: value)(value) for value in CODE[full]))
    call, make = global_of(full) + arguments + b"R", global_of(full) + arguments + b"\x81"
    for program in (*(wrap(call) for wrap in CONTEXTS.values()), make, call + b"}b", make + b"}b"):
        path = form(tmp_path / "a.pth", program)
        for stand_ins in (False, True):
            try:
                content = read_torch_file(path, stand_ins=stand_ins)
                assert full in DATA_ONLY and stand_ins
                assert only_stand_ins(content)
            except ValueError as error:
                assert "a.pth: not a readable checkpoint: " in str(error) and "\n" not in str(error)
                assert full in DATA_ONLY or "would run code" in str(error)
    assert os.listdir(tmp_path) == ["a.pth"]


def only_stand_ins(content):
    if isinstance(content, dict):
        return all(only_stand_ins(item) for pair in content.items() for item in pair)
    return isinstance(content, StandIn | str | int)


class Calls:
    """Pickles as a call of ``function`` with ``arguments``."""

    def __init__(self, function, *arguments):
        self.parts = (function, arguments)

    def __reduce__(self):
        return self.parts


@pytest.mark.parametrize("zip_format", [True, False])
@pytest.mark.parametrize("make", [
    lambda path: Calls(os.system, f"touch {path}"), lambda path: Calls(eval, f"open({str(path)!r}, 'w').close()"),
    lambda path: Calls(open, str(path), "w"), lambda path: Calls(builtins.__import__, "antigravity"),
])
def test_a_payload_that_works_is_not_run(tmp_path, zip_format, make):
    torch.save({"state_dict": TENSORS, "extra": make(tmp_path / "harm")}, tmp_path / "a.pth",
               _use_new_zipfile_serialization=zip_format)
    for stand_ins in (False, True):
        with pytest.raises(ValueError, match=r"a\.pth: .* reading it would run code, [\w.]+; nothing of it was run"):
            read_torch_file(tmp_path / "a.pth", stand_ins=stand_ins)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("form", [zip_with, legacy_with])
@pytest.mark.parametrize("program", [
    # getattr(getattr(os-like, "system"), ...)
    global_of("__builtin__.getattr") + b"(" + global_of("torch.hub.os") + pickled("system") + b"tR"
    + pickled(("touch harm",)) + b"R",
    # the state of a class, of a stand-in, of what a stand-in returned
    global_of("torch.load") + b"}X\x08\x00\x00\x00__code__X\x01\x00\x00\x00asb",
    global_of("mmengine.Config") + b")R(N}X\x09\x00\x00\x00__class__X\x01\x00\x00\x00astb",
    # the functions that build tensors
    global_of("torch._utils._rebuild_tensor_v2") + b"(N}X\x08\x00\x00\x00__code__X\x01\x00\x00\x00astb",
    global_of("torch._utils._rebuild_wrapper_subclass") + pickled((1, 2, 3)) + b"R",
    global_of("torch._tensor._rebuild_from_type_v2") + b"(" + global_of("torch.Tensor") + b"NK\x01\x85}tR",
    global_of("numpy.testing._private.utils.runstring") + pickled(("import antigravity", {})) + b"R",
    global_of("torch.hub.load") + pickled(("touch", "harm")) + b"R",
    global_of("torch.load") + pickled(("a.pth",)) + b"R", global_of("torch.nn.Module") + b")\x81",
    b"(S'touch'\nitorch.hub\nload\n", b"\x8c\x02os\x8c\x06system\x93" + pickled(("touch harm",)) + b"R",
    global_of("collections.OrderedDict") + b")R}X\x05\x00\x00\x00itemsX\x01\x00\x00\x00asb",
])
def test_what_a_file_calls_or_changes_is_refused_or_a_stand_in(tmp_path, monkeypatch, form, program):
    monkeypatch.chdir(tmp_path)
    before = (torch.load.__code__, torch.hub.load.__code__, torch._utils._rebuild_tensor_v2.__code__)
    try:
        content = read_torch_file(form(tmp_path / "a.pth", program), stand_ins=True)
        assert isinstance(content, StandIn | collections.OrderedDict)
    except ValueError as error:
        assert "not a readable checkpoint" in str(error)
    assert before == (torch.load.__code__, torch.hub.load.__code__, torch._utils._rebuild_tensor_v2.__code__)
    assert os.listdir(tmp_path) == ["a.pth"]


def test_a_stand_in_takes_everything_and_keeps_nothing():
    thing = StandIn(1, a=2)
    thing.append(1)
    thing.extend([1])
    thing.__setstate__({"a": 1})
    assert vars(thing) == {} and list(thing) == [] and {thing: 1} == {StandIn(): 1}


def test_no_stand_in_stays_registered(tmp_path):
    path = zip_with(tmp_path / "a.pth", global_of("mmengine.Config") + b")R")
    assert isinstance(read_torch_file(path, stand_ins=True), StandIn)
    assert torch.serialization.get_unsafe_globals_in_checkpoint(path) == ["mmengine.Config"]


@pytest.mark.parametrize("module, name, expected", [
    ("builtins", "eval", True), ("builtins", "apply", True), ("builtins", "getattr", False),
    ("builtins", "frozenset", False), ("os", "system", True), ("posix", "system", True), ("nt", "system", True),
    ("os.path", "join", True), ("runpy", "run_path", True), ("importlib", "import_module", True),
    ("collections", "deque", False), ("pathlib", "PosixPath", False), ("argparse", "Namespace", False),
    ("mmengine.config", "Config", False), ("numpy", "dtype", False),
])
def test_what_counts_as_code(module, name, expected):
    assert is_code(Name(module, name)) is expected


# ---------------------------------------------------------------------------------------------------------------------
# memory
# ---------------------------------------------------------------------------------------------------------------------

def storage(key="0", num_items=4, kind="torch.FloatStorage"):
    return b"(" + pickled("storage") + global_of(kind) + pickled(key) + pickled("cpu") + pickled(num_items) + b"tQ"


def tensor(offset, size, stride, **options):
    return (global_of("torch._utils._rebuild_tensor_v2") + b"(" + storage(**options) + pickled(offset) + pickled(size)
            + pickled(stride) + b"\x89" + global_of("collections.OrderedDict") + b")RtR")


FOUR = struct.pack("<4f", 1, 2, 3, 4)
FILES = {
    "zip": lambda path, program: zip_with(path, program, _0=FOUR),
    "legacy": lambda path, program: legacy_with(path, program.replace(b"tQ", b"NtQ"), ["0"],
                                                struct.pack("<q", 4) + FOUR),
}


@pytest.mark.parametrize("form", FILES)
def test_a_tensor_made_by_hand(tmp_path, form):
    """The programs below differ from this one, which is right, in a single number."""
    program = tensor(1, (3,), (1,))
    assert read_torch_file(FILES[form](tmp_path / "a.pth", program)).tolist() == [2, 3, 4]


@pytest.mark.parametrize("form", FILES)
@pytest.mark.parametrize("program, reason", [
    (tensor(0, (5,), (1,)), "reaches beyond its storage of 16 bytes"), (tensor(3, (2,), (1,)), "reaches beyond"),
    (tensor(0, (3,), (2,)), "reaches beyond"), (tensor(5, (1,), (1,)), "reaches beyond"),
    (tensor(0, (-1,), (1,)), "otherwise than torch.save does"), (tensor(-1, (1,), (1,)), "otherwise"),
    (tensor(0, (1,), (-1,)), "otherwise"), (tensor(0, (1, 1), (1,)), "otherwise"),
    (tensor(0, (1,) * 40, (1,) * 40), "otherwise"), (tensor(0, (2.0,), (1,)), "otherwise"),
    (tensor(0, (2 * 10**9,), (0,)), "its tensors would take 8,000 MB, and the file has 0.000 MB"),
    (tensor(0, (44721, 44721), (0, 0)), "its tensors would take 8,000 MB"),
    (tensor(0, (1,), (1,), num_items=2 * 10**9), "should have 8000000000 bytes, and has fewer|it is cut"),
    (tensor(0, (1,), (1,), num_items=5), "should have 20 bytes, and has fewer|it is cut"),
    (tensor(0, (1,), (1,), key="1", num_items=1), "should have 4 bytes|it is cut|torch cannot load it"),
    (tensor(0, (1,), (1,), kind="torch.storage.TypedStorage"), "a storage otherwise than torch.save does"),
    (tensor(0, (1,), (1,), num_items=-4), "a storage otherwise"), (pickled("storage") + b"Q", "something else than"),
    (global_of("torch.Tensor") + pickled((2 * 10**9,)) + b"R", r"calls torch\.Tensor, which no file of weights"),
    (global_of("torch.FloatTensor") + pickled((2 * 10**9,)) + b"R", r"calls torch\.FloatTensor"),
    (global_of("torch.storage.UntypedStorage") + pickled((2 * 10**9,)) + b"R", "calls torch.storage.UntypedStorage"),
    (global_of("builtins.bytearray") + pickled((8 * 10**9,)) + b"R", "calls builtins.bytearray otherwise"),
    (global_of("builtins.bytearray") + pickled((8 * 10**9,)) + b"\x81", "makes builtins.bytearray"),
    (global_of("_codecs.encode") + pickled(("a" * 9, "idna")) + b"R", "calls _codecs.encode otherwise"),
    (pickled("a" * 9_000) + b"q\x01]("
     + (global_of("_codecs.encode") + b"h\x01" + pickled("latin1") + b"\x86R") * 900 + b"e",
     "its tensors would take 8 MB"),
    (global_of("torch._utils._rebuild_qtensor") + pickled((1, 2, 3)) + b"R", "calls torch._utils._rebuild_qtensor"),
])
def test_nothing_larger_than_the_file_is_made(tmp_path, form, program, reason):
    path = FILES[form](tmp_path / "a.pth", program)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=rf"a\.pth: not a readable checkpoint: .*({reason})"):
        read_torch_file(path, stand_ins=True)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kilobytes


@pytest.mark.parametrize("form", FILES)
@pytest.mark.parametrize("key", [
    b")" + b"\x85" * 200_000, b"N" + b"\x85" * (MAX_TUPLE_DEPTH + 1), b")q\x00" + b"h\x00\x86q\x00" * 200_000,
    b"(" * 100_000 + b"t" * 100_000,
])
def test_a_deeply_nested_key_does_not_overflow_the_stack(tmp_path, form, key):
    path = FILES[form](tmp_path / "a.pth", b"}" + key + b"K\x01s")
    with pytest.raises(ValueError, match=rf"its pickle (nests tuples more than {MAX_TUPLE_DEPTH} deep|is damaged)"):
        read_torch_file(path, stand_ins=True)


def test_deeply_nested_lists_are_only_read(tmp_path):
    content = read_torch_file(zip_with(tmp_path / "a.pth", b"]" * 100_000 + b"a" * 99_999))
    assert isinstance(content, list)


def test_too_many_steps(tmp_path, monkeypatch):
    monkeypatch.setattr("tinyaction.models.pickle_scan.MAX_OPCODES", 1000)
    with pytest.raises(ValueError, match="its pickle has more than 1000 steps"):
        read_torch_file(zip_with(tmp_path / "a.pth", b"](" + b"N" * 1200 + b"e"))


def test_compressed_members_are_refused_before_they_are_unpacked(tmp_path):
    """4 MB of zeros in 4 KB; torch.load would unpack as many bytes as the directory says."""
    torch.save({"a": torch.zeros(1_000_000)}, tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "a.pth") as good, \
            zipfile.ZipFile(tmp_path / "b.pth", "w", zipfile.ZIP_DEFLATED) as small:
        for name in good.namelist():
            small.writestr(name, good.read(name))
    assert (tmp_path / "b.pth").stat().st_size < 10_000
    assert torch.load(tmp_path / "b.pth", weights_only=True)["a"].shape == (1_000_000,)
    with pytest.raises(ValueError, match=r"b\.pth: .*: its members are compressed or encrypted"):
        read_torch_file(tmp_path / "b.pth")


def test_members_that_share_their_bytes_are_refused(tmp_path):
    """Ten entries of the directory point to the same megabyte."""
    torch.save({"a": torch.zeros(250_000)}, tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "a.pth", "a") as archive:
        (member,) = [member for member in archive.infolist() if member.filename.endswith("data/0")]
        for number in range(1, 10):
            again = copy.copy(member)
            again.filename = member.filename[:-1] + str(number)
            archive.filelist.append(again)
            archive.NameToInfo[again.filename] = again
        archive._didModify = True
    with pytest.raises(ValueError, match=r"a\.pth: not a readable checkpoint: it is damaged: its members are larger"):
        read_torch_file(tmp_path / "a.pth")


# ---------------------------------------------------------------------------------------------------------------------
# other files
# ---------------------------------------------------------------------------------------------------------------------

def saved(form):
    buffer = io.BytesIO()
    torch.save({"a": torch.ones(300)}, buffer, _use_new_zipfile_serialization=form != "legacy")
    return buffer.getvalue()


@pytest.mark.parametrize("data, reason", [
    (b"", "it is not a file of torch.save"), (b"hello", "it is not a file of torch.save"),
    (b"\x00\x00\x00\x20ftypisom", "it is not a file of torch.save"),
    (pickle.dumps({"a": 1}), "it is not a file of torch.save"), (saved("zip")[:-200], "it is cut"),
    (saved("legacy")[:-200], "it is cut"), (saved("legacy")[:40], "its pickle is damaged or cut"),
    (saved("zip") + b"tail", "damaged|not a file|cut"), (b"GIF89a" + saved("zip"), "torch cannot load it|damaged"),
])
def test_what_is_no_checkpoint_is_said_so(tmp_path, data, reason):
    (tmp_path / "a.pth").write_bytes(data)
    with pytest.raises(ValueError, match=rf"a\.pth: not a readable checkpoint: .*({reason})"):
        read_torch_file(tmp_path / "a.pth", stand_ins=True)


@pytest.mark.parametrize("records, reason", [
    ({"word/document.xml": "<a/>"}, "it is a zip file, but not one of torch.save"),
    ({"a/data.pkl": pickle.dumps({}), "a/byteorder": "big"}, "not written on a little-endian machine"),
    ({"a/data.pkl": pickle.dumps({}), "b/data/0": "x"}, "its members are not those of torch.save"),
    ({"a/data.pkl": pickle.dumps({}), "a/DATA.pkl": pickle.dumps({})}, "not those of torch.save"),
    ({"a/data.pkl": pickle.dumps({}), "a/constants.pkl": pickle.dumps({})}, "it is a TorchScript program"),
])
def test_other_zip_files(tmp_path, records, reason):
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        for name, data in records.items():
            archive.writestr(name, data)
    with pytest.raises(ValueError, match=rf"a\.pth: not a readable checkpoint: .*{reason}"):
        read_torch_file(tmp_path / "a.pth")


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.pth: no such file"):
        read_torch_file(tmp_path / "none.pth")
