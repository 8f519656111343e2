"""Output files: written whole or not at all, and never over a file that somebody else made.

    check_output     before the work: may this path be written?
    whole_file       write beside the path, flush to the disk, rename
    write_whole      the same for text or bytes that are there already
    new_folder       the same for a folder
    part_folder      a temporary folder beside the path
    part_of, put_in_place    the steps of whole_file, for a file that stays open over several calls

A process that is killed leaves its temporary file, ``.last.pt.PID@MACHINE.part``; the next process of that machine
that writes into the folder removes it: other machines may work in the same folder.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from tinyaction.places import is_place, write_place

AnyPath = str | os.PathLike[str]

# The name of a temporary file or folder, with its process and the machine on which that runs.
_PART = re.compile(r"\..+\.(\d+)(@[0-9a-f]+)?\.part(\.[^.]*)?")
_MACHINE = f"@{zlib.crc32(socket.gethostname().encode()):08x}"

# ---------------------------------------------------------------------------------------------------------------------
# may it be written?
# ---------------------------------------------------------------------------------------------------------------------

_checked_outputs: set[Path] = set()  # of this process; put_in_place writes them into the ledger


def check_output(path: AnyPath, *, flag: str, inputs: Iterable[AnyPath] = (), force: bool = False,
                 is_folder: bool = False) -> Path:
    """Return the path where a command may write it; call this before any work is done.

    A new name and an empty folder may always be written. A file that exists may only with ``force``, and only if
    tinyaction wrote it and nobody has changed it since.

    Args:
        flag: that names the path, for the message.
        inputs: files and folders that the command reads, and its other outputs; none of them is ever written.
        is_folder: the command makes a folder of this name, and the folders above it.

    Raises:
        ValueError: the path is an input or exists.
        FileNotFoundError: the folder of a file does not exist.
    """
    path = Path(path)
    place = Path(os.path.realpath(path))
    if any(place == Path(os.path.realpath(item)) or _is_same_file(place, item) for item in inputs):
        raise ValueError(f"{flag} is {path}, which this command also reads or writes; name another file with "
                         f"{flag}")
    if place.is_dir():
        if not is_folder:
            raise ValueError(f"{flag} is {path}, which is a folder; name a file with {flag}")
        if any(not is_part(item.name) for item in place.iterdir()):
            raise ValueError(f"{flag} is {path}, a folder that is not empty; name another one with {flag}")
    elif os.path.lexists(path):
        if not _is_in_ledger(place):
            raise ValueError(f"{flag} is {path}, which exists and was not written by tinyaction, or was changed "
                             f"since; name another file with {flag}, or move it away")
        if not force:
            raise ValueError(f"{flag} is {path}, which exists; name another file with {flag}, or add --force to "
                             "replace it")
    elif not is_folder and not place.parent.is_dir():
        raise FileNotFoundError(f"{flag} is {path}; there is no such folder to write {place.name} into")
    _checked_outputs.add(place)
    return path


def _is_same_file(path: Path, other: AnyPath) -> bool:
    """Whether two names are one file: a hard link, or a file system that ignores case."""
    try:
        return os.path.samefile(path, other)
    except (OSError, ValueError):  # one of them does not exist
        return False


def _ledger() -> Path:
    """The list of the outputs of this user's commands: path, bytes, time of the last change."""
    folder = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(folder, "tinyaction", "outputs.txt")


def _ledger_line(place: Path) -> str:
    status = place.stat()
    return f"{str(place)!a}\t{status.st_size}\t{status.st_mtime_ns}"


def _is_in_ledger(place: Path) -> bool:
    try:
        return _ledger_line(place) in _ledger().read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return False


def _write_into_ledger(place: Path) -> None:
    with suppress(OSError):  # no home, or a read-only one: the file cannot be replaced with --force later
        _ledger().parent.mkdir(parents=True, exist_ok=True)
        with open(_ledger(), "a", encoding="ascii") as file:
            file.write(_ledger_line(place) + "\n")


# ---------------------------------------------------------------------------------------------------------------------
# whole or not at all
# ---------------------------------------------------------------------------------------------------------------------


@contextmanager
def whole_file(path: AnyPath, *, suffix: str = "", keep_old_as: Path | None = None) -> Iterator[Path]:
    """Give a temporary sibling of ``path`` to write, and rename it to ``path`` when the block ends well.

    Whenever the process is killed or the power fails, ``path`` is the old file or the new one. With ``keep_old_as``
    the old file stays under that name; after a kill it may be there only. ``suffix``: see :func:`part_of`.
    A file that lies elsewhere is written here and copied there.
    """
    if is_place(path):
        with tempfile.TemporaryDirectory(prefix="tinyaction-") as folder:
            part = Path(folder, f"part{suffix}")
            yield part
            write_place(path, part)
        return
    part = part_of(path, suffix=suffix)
    try:
        yield part
        put_in_place(part, path, keep_old_as=keep_old_as)
    finally:
        part.unlink(missing_ok=True)


def write_whole(path: AnyPath, content: str | bytes | memoryview) -> None:
    """Write text (UTF-8) or bytes to a file, as :func:`whole_file` does."""
    with whole_file(path) as part:
        part.write_bytes(content.encode("utf-8", errors="surrogateescape") if isinstance(content, str) else content)


def part_of(path: AnyPath, *, suffix: str = "") -> Path:
    """last.pt -> .last.pt.PID@MACHINE.part, in the same folder, where those of killed processes are removed.

    ``suffix`` is for writers that choose the format by it.
    """
    place = Path(os.path.realpath(path))  # of a link the file that it points to
    _remove_parts_once(place.parent)
    return place.with_name(f".{place.name}.{os.getpid()}{_MACHINE}.part{suffix}")


def put_in_place(part: Path, path: AnyPath, *, keep_old_as: Path | None = None) -> None:
    """Flush a finished temporary file to the disk and give it its name."""
    place = Path(os.path.realpath(path))
    _flush(part)
    if keep_old_as is not None and place.exists():
        os.replace(place, keep_old_as)
    os.replace(part, place)
    _flush(place.parent)
    if place in _checked_outputs:
        _write_into_ledger(place)


def _flush(path: Path) -> None:
    """Wait until the disk has a file, or the names in a folder. Windows cannot open a folder."""
    if os.name == "nt" and path.is_dir():
        return
    number = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


@contextmanager
def new_folder(folder: AnyPath) -> Iterator[Path]:
    """Give a temporary sibling of ``folder`` to write into, and rename it to ``folder`` when the block ends well.

    Raises FileExistsError where ``folder`` holds anything; it may be missing or empty.
    """
    folder = Path(folder).resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} is there already; move it away first")
    with part_folder(folder) as part:
        yield part
        if folder.exists():
            folder.rmdir()  # Windows does not rename onto a folder; rmdir refuses one that is no longer empty
        part.rename(folder)
        _flush(folder.parent)


@contextmanager
def part_folder(path: Path) -> Iterator[Path]:
    """Make a temporary folder beside a path, and remove what is left of it when the block ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = part_of(path)
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    try:
        yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)


def is_part(name: str) -> bool:
    """Whether a file or folder of this name is a temporary one, of any process."""
    return _PART.fullmatch(name) is not None


def remove_parts(folder: AnyPath) -> None:
    """Remove the temporary files and folders that killed processes of this machine left in a folder."""
    with suppress(OSError):  # an unreadable or read-only folder stays as it is
        for item in list(os.scandir(folder)):
            match = _PART.fullmatch(item.name)
            if match and match[2] in (None, _MACHINE) and not is_alive(int(match[1])):
                if item.is_dir(follow_symlinks=False):
                    shutil.rmtree(item.path, ignore_errors=True)
                else:
                    os.unlink(item.path)


@cache
def _remove_parts_once(folder: Path) -> None:
    """Once per process and folder, as a folder may hold 100,000 files."""
    remove_parts(folder)


def is_alive(process: int) -> bool:
    """Whether a process of this machine runs; True where that cannot be told."""
    if os.name == "nt":  # os.kill would end it there
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # another user's
        pass
    return process_state(process) != "Z"  # it stays until its parent asks, which a halted parent never does


def process_state(process: int) -> str:
    """Linux's letter for it: Z has ended, T and t are halted by a signal; "" where the system does not tell."""
    with suppress(OSError, IndexError):
        return Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()[0].decode()
    return ""
