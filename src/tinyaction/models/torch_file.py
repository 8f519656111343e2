"""Read a file of torch.save from an untrusted source: check that it is whole, run nothing in it.

    1. the zip directory: members uncompressed and no larger than the file, each with its right CRC
    2. the pickle, without running it (pickle_scan.py): every tensor within its storage, every storage within the file
    3. torch.load with ``weights_only=True``; with ``stand_ins`` each class that is not torch's is an inert stand-in

torch.load by itself checks no CRC, unpacks compressed members of any size, and makes what the pickle asks for, however
large.
"""

import builtins
import os
import pickle
import sys
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from tinyaction.models.pickle_scan import MAX_BYTES_PER_FILE_BYTE, Name, PickleError, PickleScan, scan_pickle

LEGACY_START = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)  # of a file of torch.save before torch 1.6
ZIP_START = b"PK\x03\x04"
ZIP_END, ZIP_END_BYTES = b"PK\x05\x06", 22  # of the record that ends a zip file without a comment
MAX_PICKLE_BYTES = 64 << 20
SMALL_BYTES = 1 << 20  # below this nothing is counted

# Modules of Python's own library whose classes hold data; whatever else a pickle names there is code.
DATA_MODULES = {"_codecs", "argparse", "collections", "copyreg", "datetime", "decimal", "enum", "fractions",
                "functools", "logging", "pathlib", "re", "types", "uuid"}


class StandIn(list[Any]):
    """Replaces a class that is not torch's: accepts any argument, state and item, and does nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
    def __setstate__(self, state: Any) -> None: ...
    def append(self, value: Any) -> None: ...
    def extend(self, values: Any) -> None: ...
    def __hash__(self) -> int:  # type: ignore[override]  # a list has none, but this may be a key
        return 0                                                       # all are empty, so all are equal


def read_torch_file(path: str | Path, *, stand_ins: bool = False) -> Any:
    """Read a file of torch.save onto the CPU.

    Args:
        stand_ins: read a file of somebody else, which names classes that need not be installed; each of its objects
            becomes a :class:`StandIn`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no such file, is damaged or cut, asks for more memory than its own size justifies, or names
            code; nothing of it was run.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        scans = _scan_zip(path) if zipfile.is_zipfile(path) else _scan_legacy(path)
        names = [name for scan in scans for name in scan.names.values() if name.is_stand_in]
        for name in names:
            if is_code(name):
                raise PickleError(f"reading it would run code, {name.full}; nothing of it was run")
        if names and not stand_ins:
            raise PickleError(f"it holds {names[0].full}, which is none of torch's classes")
        return _load(path, names)
    except PickleError as error:
        raise ValueError(f"{path}: not a readable checkpoint: {error}") from None


def is_code(name: Name) -> bool:
    """Whether a name in Python's own library is code rather than data. (mmengine's files name getattr.)"""
    root = name.module.partition(".")[0]
    if root == "builtins":
        return name.name != "getattr" and not isinstance(getattr(builtins, name.name, None), type)
    return root in sys.stdlib_module_names and root not in DATA_MODULES


def check_finite(state_dict: Mapping[str, torch.Tensor]) -> None:
    """Raise ValueError for the first tensor with a NaN or an infinity in it."""
    for name, tensor in state_dict.items():
        numbers = tensor.float() if tensor.is_floating_point() and tensor.itemsize == 1 else tensor  # float8
        if not bool(torch.isfinite(numbers).all()):
            raise ValueError(f"its {name} holds NaN or infinite numbers, so every score would be meaningless")


def find_state_dict(content: Any, path: Path) -> dict[str, torch.Tensor]:
    """Find the state dict in a checkpoint's content: the content itself, or the value of a usual key."""
    for key in ("state_dict", "model", "model_state"):  # the last one is PyTorchVideo's
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if isinstance(content, Mapping):
        state = {str(key): value for key, value in content.items() if isinstance(value, torch.Tensor)}
        if state:
            return state
    raise ValueError(f"{path}: holds no state dict, names with tensors, neither alone nor under 'state_dict', "
                     "'model' or 'model_state'")


def _load(path: Path, names: Iterable[Name]) -> Any:
    stand_ins: list[Any] = [(type(name.name.rpartition(".")[2] or "Nameless", (StandIn,), {}), name.full)
                            for name in names]
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(stand_ins):
            warnings.simplefilter("ignore")                            # of how foreign files are pickled
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises half a dozen kinds
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise PickleError(f"torch cannot load it ({reason[:160]})") from None


# ---------------------------------------------------------------------------------------------------------------------
# the two forms of a file
# ---------------------------------------------------------------------------------------------------------------------


def _scan_zip(path: Path) -> list[PickleScan]:
    """Check the zip file and scan its pickle."""
    file_bytes = path.stat().st_size
    try:
        with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
            file.seek(-ZIP_END_BYTES, os.SEEK_END)
            if not file.read().startswith(ZIP_END):                    # torch and zipfile might see two directories
                raise PickleError("it is damaged: something follows its directory")
            members = archive.infolist()
            pickles = [member.filename for member in members if member.filename.endswith("data.pkl")
                       and member.filename.count("/") == 1]
            if len(pickles) != 1:
                raise PickleError("it is a zip file, but not one of torch.save")
            folder = pickles[0].removesuffix("data.pkl")
            _check_members(archive, members, folder, file_bytes)
            damaged = archive.testzip()                                # reads every byte
            if damaged is not None:
                raise PickleError(f"it is damaged: the checksum of {damaged} is wrong")
            scan = scan_pickle(archive.read(pickles[0]))
            sizes = {member.filename: member.file_size for member in members}
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, UnicodeError, OverflowError) as error:
        raise PickleError(f"it is damaged or cut ({error})") from None
    for key, num_bytes in scan.storages.items():
        if num_bytes > sizes.get(f"{folder}data/{key}", -1):
            raise PickleError(f"it is damaged: storage {key} should have {num_bytes} bytes, and has fewer")
    _check_total(scan, file_bytes)
    return [scan]


def _check_members(archive: zipfile.ZipFile, members: list[zipfile.ZipInfo], folder: str, file_bytes: int) -> None:
    """Check that the members are those of torch.save, uncompressed, and together no larger than the file."""
    names = [member.filename.lower() for member in members]            # torch's zip reader ignores case
    if len(set(names)) < len(names) or not all(name.startswith(folder.lower()) for name in names):
        raise PickleError("it is damaged: its members are not those of torch.save")
    if any(member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1 for member in members):
        raise PickleError("its members are compressed or encrypted, which torch.save does not do")
    if any(member.file_size != member.compress_size for member in members) \
            or sum(member.file_size for member in members) > file_bytes:
        raise PickleError("it is damaged: its members are larger than the file")
    if f"{folder}constants.pkl" in archive.namelist():
        raise PickleError("it is a TorchScript program, not a file of weights")
    if archive.getinfo(f"{folder}data.pkl").file_size > MAX_PICKLE_BYTES:
        raise PickleError(f"its pickle has more than {MAX_PICKLE_BYTES} bytes")
    order = f"{folder}byteorder"
    if order in archive.namelist() and archive.read(order) != sys.byteorder.encode():
        raise PickleError(f"it was not written on a {sys.byteorder}-endian machine as this one is")


def _scan_legacy(path: Path) -> list[PickleScan]:
    """Scan the five pickles of a file of torch before 1.6; the storages follow them."""
    file_bytes = path.stat().st_size
    with open(path, "rb") as file:
        data = file.read(MAX_PICKLE_BYTES)
    if data.startswith(ZIP_START):
        raise PickleError("it is cut")
    if not data.startswith(LEGACY_START):
        raise PickleError("it is not a file of torch.save")
    scans: list[PickleScan] = []
    for _ in ("magic number", "version", "machine", "content", "keys of the storages"):
        scans.append(scan_pickle(data, scans[-1].end if scans else 0))
    content = scans[3]
    if scans[-1].end + sum(8 + num_bytes for num_bytes in content.storages.values()) > file_bytes:
        raise PickleError("it is cut")
    _check_total(content, file_bytes)
    return scans


def _check_total(scan: PickleScan, file_bytes: int) -> None:
    if scan.num_bytes > max(SMALL_BYTES, MAX_BYTES_PER_FILE_BYTE * file_bytes):
        raise PickleError(f"its tensors would take {scan.num_bytes / 1e6:,.0f} MB, and the file has "
                          f"{file_bytes / 1e6:,.3f} MB")
