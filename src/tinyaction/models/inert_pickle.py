"""Read the tensors of a torch checkpoint whose pickle names classes that are not installed, without running any.

A pickle is a program: it may name any function and call it. Here a name becomes a fresh empty class, whatever it says:
calling it, setting its state or filling it does nothing. Known by name are only the dict with an order and the few
names of which torch builds tensors, and these build records of numbers; the tensors are made from the records after
the pickle has ended. Nothing is imported and nothing of torch is in the pickle's reach.
"""

import builtins
import io
import pickle
import struct
import sys
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

LEGACY_START = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)  # of a file of torch.save before 1.6
ZIP_START = b"PK\x03\x04"

STORAGES = {
    "DoubleStorage": torch.float64, "FloatStorage": torch.float32, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
}

# Of Python's own library a checkpoint may name records; whatever else it names there is code.
RECORD_MODULES = {"_codecs", "argparse", "collections", "copyreg", "datetime", "decimal", "enum",
                  "fractions", "functools", "logging", "pathlib", "re", "types", "uuid"}


class Inert:
    """Stands for what a pickle names or makes of a name: takes every call and every state, and does nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
    def __call__(self, *args: Any, **kwargs: Any) -> "Inert":
        return Inert()
    def __setstate__(self, state: Any) -> None: ...
    def __setitem__(self, key: Any, value: Any) -> None: ...
    def append(self, value: Any) -> None: ...
    def extend(self, values: Any) -> None: ...
    def add(self, value: Any) -> None: ...


class InertDict(dict[Any, Any]):
    """An OrderedDict without a state of its own."""

    def __setstate__(self, state: Any) -> None: ...


@dataclass(frozen=True)
class StorageRecord:
    key: str
    dtype: torch.dtype

    def __setstate__(self, state: Any) -> None: ...


@dataclass(frozen=True)
class TensorRecord:
    storage: StorageRecord
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def __setstate__(self, state: Any) -> None: ...


def read_inert(path: str | Path) -> tuple[Any, list[str]]:
    """The tensors and plain containers of a file of ``torch.save``, and the names that became placeholders.

    Raises:
        ValueError: the file is no checkpoint, is damaged, or names code of Python's own library.
    """
    try:
        content, names, storages = (_read_zip if zipfile.is_zipfile(path) else _read_legacy)(path)
        return _plain(content, storages), names
    except CodeInPickleError as error:
        raise ValueError(f"{path}: carries code (its pickle names {error}); nothing of it was run, and nothing is "
                         "loaded") from None
    except OSError:
        raise
    except Exception as error:  # a damaged file makes pickle and zipfile raise a dozen kinds
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(f"{path}: not a readable checkpoint ({reason[:160]})") from None


class CodeInPickleError(Exception):
    """A pickle names a function of Python's own library, such as os.system."""


def is_code(module: str, name: str) -> bool:
    """Whether a name is of what acts in Python's own library, and not of a record. (mmengine's files name getattr.)"""
    root = module.partition(".")[0]
    if root == "builtins":
        return name != "getattr" and not isinstance(getattr(builtins, name, None), type)
    return root in sys.stdlib_module_names and root not in RECORD_MODULES


class InertUnpickler(pickle.Unpickler):
    """Every name becomes a class of its own that does nothing, but for those of which torch builds tensors."""

    def __init__(self, file: Any) -> None:
        super().__init__(file, encoding="utf-8")
        self.names: list[str] = []  # that became placeholders
        self.storages: dict[str, torch.dtype] = {}
        self._classes: dict[str, Any] = {}

    def find_class(self, module: str, name: str, /) -> Any:
        module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))  # of Python 2
        full = f"{module}.{name}"
        if full not in self._classes:
            self._classes[full] = self._make(module, name, full)
        return self._classes[full]

    def _make(self, module: str, name: str, full: str) -> Any:
        if full == "collections.OrderedDict":
            return type("OrderedDict", (InertDict,), {})
        if module in ("torch", "torch.storage") and name in STORAGES:
            return type(name, (Inert,), {"dtype": STORAGES[name]})
        if full in ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"):
            return _Rebuild(lambda storage, offset, size, stride, *rest: TensorRecord(storage, offset, size, stride))
        if full == "torch._utils._rebuild_parameter":
            return _Rebuild(lambda data, *rest: data)
        if is_code(module, name):
            raise CodeInPickleError(full)
        self.names.append(full)
        return type(name.rpartition(".")[2] or "Nameless", (Inert,), {})

    def persistent_load(self, pid: Any, /) -> StorageRecord:
        kind, storage, key = pid[:3]
        _require(kind == "storage" and isinstance(key, str), f"persistent id {kind!r}")
        self.storages[key] = storage.dtype
        return StorageRecord(key, storage.dtype)


class _Rebuild:
    """A function that a pickle may call but not change."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.__dict__["function"] = function

    def __call__(self, *args: Any) -> Any:
        return self.__dict__["function"](*args)

    def __setstate__(self, state: Any) -> None: ...


def _read_zip(path: str | Path) -> tuple[Any, list[str], dict[str, bytes]]:
    """What the pickle holds, the names it named, and the bytes of each storage."""
    with zipfile.ZipFile(path) as archive:
        pickles = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
        _require(len(pickles) == 1, "a zip file, but not one of torch.save")
        folder = pickles[0].removesuffix("data.pkl")
        byte_order = archive.read(f"{folder}byteorder") if f"{folder}byteorder" in archive.namelist() else b"little"
        _require(byte_order == b"little", "written on a big-endian machine")
        unpickler = InertUnpickler(io.BytesIO(archive.read(pickles[0])))
        content = unpickler.load()
        storages = {key: archive.read(f"{folder}data/{key}") for key in unpickler.storages}
    return content, unpickler.names, storages


def _read_legacy(path: str | Path) -> tuple[Any, list[str], dict[str, bytes]]:
    """The same of a file of torch before 1.6: five pickles one after the other, then the storages."""
    with open(path, "rb") as file:
        start = file.read(len(LEGACY_START))
        _require(not start.startswith(ZIP_START), "it is cut")
        _require(start == LEGACY_START, "not a file of torch.save")
        _require(InertUnpickler(file).load() == 1001, "a protocol of torch.save that is not known")
        InertUnpickler(file).load()                                    # sizes of numbers on the machine that wrote it
        unpickler = InertUnpickler(file)
        content = unpickler.load()
        storages = {}
        for key in InertUnpickler(file).load():
            (num_elements,) = struct.unpack("<q", file.read(8))
            num_bytes = num_elements * unpickler.storages[key].itemsize
            storages[key] = file.read(num_bytes)
            _require(len(storages[key]) == num_bytes, "it is cut")
    return content, unpickler.names, storages


def _require(condition: bool, reason: str) -> None:
    if not condition:
        raise pickle.UnpicklingError(reason)


def _plain(content: Any, storages: Mapping[str, bytes]) -> Any:
    """The containers of ``content`` as dict, list and tuple, its tensor records as tensors, the rest as it is."""
    flat = {}                                                          # storages are shared between tensors

    def tensor(record: TensorRecord) -> torch.Tensor:
        key, dtype = record.storage.key, record.storage.dtype
        if key not in flat:
            data = bytearray(storages[key])
            flat[key] = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
        return flat[key].as_strided(record.size, record.stride, record.offset).clone()

    def plain(value: Any) -> Any:
        if isinstance(value, TensorRecord):
            return tensor(value)
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(map(plain, value))
        return value

    return plain(content)
