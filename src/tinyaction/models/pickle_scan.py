"""What a pickle names, calls and builds, found out without running it: :func:`scan_pickle`.

A pickle is a program for a stack machine. This scan goes through it with the shapes of the values only: tuples with
their depth, storages and tensors with their bytes. torch's restricted unpickler runs it afterwards; it runs no code,
but it would fill the memory, or overflow the C stack, where a file asks for that.
"""

import math
import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import torch

MAX_OPCODES = 3_000_000  # 100,000 class names take 300,000
MAX_TUPLE_DEPTH = 50  # a key is hashed by recursion in C: some 10,000 levels overflow the stack
MAX_DIMENSIONS = 32
MAX_BYTES_PER_FILE_BYTE = 16  # of all tensors together; they share storages, as in a checkpoint with an average

# In these modules a name may be torch's own class or function; in all others torch's unpickler has a stand-in.
TORCH_MODULES = {"torch", "torch.cuda", "torch.cuda.sparse", "torch.nn.parameter", "torch.serialization",
                 "torch.sparse", "torch.storage", "torch._tensor", "torch._utils"}
TENSOR_CALLS = {"torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor_v3"}
PLAIN_CALLS = {"builtins.bytearray", "builtins.complex", "builtins.set", "collections.Counter",
               "collections.OrderedDict", "torch.Size", "torch.device", "torch._utils._rebuild_parameter",
               "torch.serialization._get_layout", "_codecs.encode"}

ITEM_BYTES = {
    "BFloat16Storage": 2, "BoolStorage": 1, "ByteStorage": 1, "CharStorage": 1, "ComplexDoubleStorage": 16,
    "ComplexFloatStorage": 8, "DoubleStorage": 8, "FloatStorage": 4, "HalfStorage": 2, "IntStorage": 4,
    "LongStorage": 8, "ShortStorage": 2, "UntypedStorage": 1,
}

CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
ARGUMENTS = {"BININT", "BININT1", "BININT2", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING", "LONG1"}
CONTAINERS = {"EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET"}
TUPLE_LENGTHS = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
ITEMS_TAKEN = {"APPEND": 1, "SETITEM": 2}  # by the container below them


class PickleError(ValueError):
    """The pickle is damaged, or asks for more than a file of weights needs."""


@dataclass(frozen=True)
class Name:
    """A class or function that the pickle names, with its module."""

    module: str
    name: str

    @property
    def full(self) -> str:
        return f"{self.module}.{self.name}"

    @property
    def is_stand_in(self) -> bool:
        return self.module not in TORCH_MODULES and self.full not in PLAIN_CALLS


@dataclass(frozen=True, eq=False)
class Tuple:
    items: tuple[Any, ...]
    depth: int


@dataclass(frozen=True, eq=False)
class Storage:
    num_bytes: int
    item_bytes: int


@dataclass(frozen=True, eq=False)
class Made:
    """A container, or what a call returned; ``by`` names the class or function."""

    by: Name | None = None


_MARK = object()


@dataclass
class PickleScan:
    """What one pickle names and asks for.

    Attributes:
        names: classes and functions, by their full name.
        storages: key -> bytes of each storage that a tensor reads.
        num_bytes: upper bound of the bytes of all tensors and strings that are made.
        end: offset of the first byte behind the pickle.
    """

    names: dict[str, Name] = field(default_factory=dict)
    storages: dict[str, int] = field(default_factory=dict)
    num_bytes: int = 0
    end: int = 0


def scan_pickle(data: bytes, start: int = 0) -> PickleScan:
    """Go through the pickle that begins at ``data[start]``.

    Raises:
        PickleError: it is damaged or cut, has opcodes that torch.save does not write, nests tuples deeply, or calls
            or builds what no file of weights needs.
    """
    machine = _Machine(PickleScan())
    stream = BytesIO(data)
    stream.seek(start)
    try:
        for number, (opcode, argument, position) in enumerate(pickletools.genops(stream)):
            if number >= MAX_OPCODES:
                raise PickleError(f"its pickle has more than {MAX_OPCODES} steps")
            machine.step(opcode.name, argument, position or 0)
    except PickleError:
        raise
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, UnicodeError) as error:
        raise PickleError(f"its pickle is damaged or cut ({type(error).__name__})") from None
    machine.scan.end = stream.tell()
    return machine.scan


@dataclass
class _Machine:
    scan: PickleScan
    stack: list[Any] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def step(self, opcode: str, argument: Any, position: int) -> None:
        stack = self.stack
        if opcode in ARGUMENTS:
            stack.append(argument)
        elif opcode in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = stack[-1]
        elif opcode in ("BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif opcode in CONSTANTS:
            stack.append(CONSTANTS[opcode])
        elif opcode == "MARK":
            stack.append(_MARK)
        elif opcode in CONTAINERS:
            stack.append(Made())
        elif opcode in ("TUPLE", "EMPTY_TUPLE"):
            stack.append(self._tuple(self._pop_mark() if opcode == "TUPLE" else []))
        elif opcode in TUPLE_LENGTHS:
            stack.append(self._tuple(self._pop(TUPLE_LENGTHS[opcode])))
        elif opcode in ITEMS_TAKEN:
            self._pop(ITEMS_TAKEN[opcode])
        elif opcode in ("APPENDS", "SETITEMS"):
            self._pop_mark()
        elif opcode == "GLOBAL":
            stack.append(self._name(argument))
        elif opcode in CALLS:
            CALLS[opcode](self, position)
        elif opcode not in ("PROTO", "STOP"):
            raise PickleError(f"its pickle has the opcode {opcode}, which torch.save does not write")

    def _pop(self, number: int) -> list[Any]:
        items = self.stack[-number:]
        if len(items) < number or _MARK in items:
            raise PickleError("its pickle is damaged (a value is missing)")
        del self.stack[-number:]
        return items

    def _pop_mark(self) -> list[Any]:
        place = len(self.stack) - 1 - self.stack[::-1].index(_MARK)
        items = self.stack[place + 1 :]
        del self.stack[place:]
        return items

    def _tuple(self, items: list[Any]) -> Tuple:
        depth = 1 + max((item.depth for item in items if isinstance(item, Tuple)), default=0)
        if depth > MAX_TUPLE_DEPTH:
            raise PickleError(f"its pickle nests tuples more than {MAX_TUPLE_DEPTH} deep")
        return Tuple(tuple(items), depth)

    def _name(self, argument: str) -> Name:
        module, _, name = argument.partition(" ")
        module, name = _names_of_today(module, name)
        found = Name(module, name)
        return self.scan.names.setdefault(found.full, found)

    def call(self, position: int) -> None:
        """REDUCE: call a function with a tuple of arguments."""
        function, arguments = self._pop(2)
        if not isinstance(function, Name) or not isinstance(arguments, Tuple):
            raise PickleError("its pickle calls what it has made itself")
        items = arguments.items
        if function.full in TENSOR_CALLS:
            self.scan.num_bytes += _tensor_bytes(function, items)
        elif function.full == "collections.OrderedDict" and items:
            raise PickleError("its pickle fills a dict in a call")
        elif function.full in ("_codecs.encode", "builtins.bytearray"):
            if len(items) != 2 or not isinstance(items[0], str) or items[1] not in ("latin1", "latin-1"):
                raise PickleError(f"its pickle calls {function.full} otherwise than torch.save does")
            self.scan.num_bytes += len(items[0])
        elif function.full in ("builtins.set", "collections.Counter"):
            self.scan.num_bytes += 8 * position                        # no list that it copies has more items
        elif not function.is_stand_in and function.full not in PLAIN_CALLS:
            raise PickleError(f"its pickle calls {function.full}, which no file of weights needs")
        self.stack.append(Made(function))

    def new_object(self, position: int) -> None:
        """NEWOBJ: make an object of a class."""
        kind, _ = self._pop(2)
        if not isinstance(kind, Name) or not kind.is_stand_in:
            raise PickleError(f"its pickle makes {kind.full if isinstance(kind, Name) else 'an object of an object'}, "
                              "which no file of weights needs")
        self.stack.append(Made(kind))

    def set_state(self, position: int) -> None:
        """BUILD: set the attributes of an object; a state dict's ``_metadata`` is one."""
        thing, _ = self._pop(2)
        by = thing.by if isinstance(thing, Made) else None
        if by is None or not (by.is_stand_in or by.full == "collections.OrderedDict"):
            raise PickleError("its pickle changes what it has made itself")
        self.stack.append(thing)

    def storage(self, position: int) -> None:
        """BINPERSID: a storage, whose bytes lie elsewhere in the file."""
        (pid,) = self._pop(1)
        items = pid.items if isinstance(pid, Tuple) else ()
        if len(items) not in (5, 6) or items[0] != "storage" or items[5:] not in ((), (None,)):
            raise PickleError("its pickle refers to something else than a storage")
        _, kind, key, _, num_items = items[:5]
        item_bytes = ITEM_BYTES.get(kind.name, 0) if isinstance(kind, Name) else 0
        if not item_bytes or not isinstance(key, str) or type(num_items) is not int or num_items < 0:
            raise PickleError("its pickle describes a storage otherwise than torch.save does")
        num_bytes = num_items * item_bytes
        self.scan.storages[key] = max(num_bytes, self.scan.storages.get(key, 0))
        self.stack.append(Storage(num_bytes, item_bytes))


CALLS: dict[str, Callable[[_Machine, int], None]] = {
    "REDUCE": _Machine.call, "NEWOBJ": _Machine.new_object, "BUILD": _Machine.set_state,
    "BINPERSID": _Machine.storage,
}


def _tensor_bytes(function: Name, items: tuple[Any, ...]) -> int:
    """Bytes of the tensor that the arguments describe; PickleError where it reaches beyond its storage."""
    storage, offset, size, stride = items[:4]
    item_bytes = storage.item_bytes
    if function.name == "_rebuild_tensor_v3":                          # of dtypes without a storage class
        dtype = getattr(torch, items[6].name, None)
        item_bytes = dtype.itemsize if isinstance(dtype, torch.dtype) else 0
    numbers = (offset, *size.items, *stride.items)
    if len(size.items) != len(stride.items) or len(size.items) > MAX_DIMENSIONS or not item_bytes \
            or any(type(number) is not int or number < 0 for number in numbers):
        raise PickleError("its pickle describes a tensor otherwise than torch.save does")
    num_items = math.prod(size.items)
    reach = sum((n - 1) * step for n, step in zip(size.items, stride.items, strict=True)) + 1 if num_items else 0
    if (offset + reach) * item_bytes > storage.num_bytes:
        raise PickleError(f"a tensor of size {size.items} reaches beyond its storage of {storage.num_bytes} bytes")
    return num_items * item_bytes


def _names_of_today(module: str, name: str) -> tuple[str, str]:
    """Python 3's names of Python 2's modules, as the unpickler translates them."""
    from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING

    return NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
