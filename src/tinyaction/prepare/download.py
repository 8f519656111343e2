"""The tutorial's videos: fetched, checked, and unpacked so that no archive can write outside its folder."""

import os
import stat
import tempfile
import threading
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable
from concurrent.futures import Future, wait
from http.client import HTTPException, HTTPResponse
from pathlib import Path, PurePosixPath
from typing import Literal

from tinyaction.data.annotations import read_list
from tinyaction.files import new_folder
from tinyaction.prepare.synthetic import is_stand_in, make_stand_in

KINETICS400_TINY_URL = "https://download.openmmlab.com/mmaction/kinetics400_tiny.zip"

ByteProgress = Callable[[int, int | None], None]  # (bytes so far, bytes in all or None where nobody says)

_CHUNK = 1 << 16  # bytes
_NETWORK_ERRORS = (OSError, HTTPException)

# ---------------------------------------------------------------------------------------------------------------------
# fetching
# ---------------------------------------------------------------------------------------------------------------------


def fetch_archive(
    url: str,
    target_file: str | os.PathLike[str],
    *,
    first_byte_timeout_seconds: float = 15,
    stall_timeout_seconds: float = 30,
    on_progress: ByteProgress | None = None,
) -> None:
    """Fetch a file (http, https, file) to ``target_file``, which appears only when it is complete.

    Args:
        first_byte_timeout_seconds: for everything before the first byte of the content: name, connection, TLS, header.
        stall_timeout_seconds: longest pause after it.

    Raises:
        OSError: the file cannot be had, or fewer bytes came than were announced; the message begins with the URL.
        ValueError: that is no URL.
    """
    target_file = Path(target_file)
    part = target_file.with_name(f"{target_file.name}.{os.getpid()}.part")
    response, chunk = _open(url, first_byte_timeout_seconds, stall_timeout_seconds)
    try:
        with response, part.open("wb") as file:
            header = response.headers.get("Content-Length")
            num_bytes = int(header) if header is not None and header.isdecimal() else None
            num_done = 0
            while chunk:
                file.write(chunk)
                num_done += len(chunk)
                if on_progress is not None:
                    on_progress(num_done, num_bytes)
                try:
                    chunk = response.read(_CHUNK)
                except _NETWORK_ERRORS as error:
                    raise _broken(url, error) from None
        if num_bytes is not None and num_done != num_bytes:
            raise OSError(f"{url}: the connection ended after {num_done} of {num_bytes} bytes")
        part.replace(target_file)
    finally:
        part.unlink(missing_ok=True)


def _open(url: str, first_byte_timeout_seconds: float, stall_timeout_seconds: float) -> tuple[HTTPResponse, bytes]:
    """(the response, its first byte or b"" where it is empty). A file's response differs in class and not in use.

    A socket's timeout holds for each step on its own, and not at all for looking a name up. So the steps run in a
    thread that is waited for once; where it takes too long it is left behind and cleans up after itself.
    """
    request = urllib.request.Request(url, headers={"User-Agent": "tinyaction"})
    answer: Future[tuple[HTTPResponse, bytes]] = Future()

    def open_and_read() -> None:
        try:
            response = urllib.request.urlopen(request, timeout=stall_timeout_seconds)
            try:
                first = response.read(1)
            except BaseException:
                response.close()
                raise
        except Exception as error:  # raised again in the caller's thread
            if answer.set_running_or_notify_cancel():
                answer.set_exception(error)
        else:
            if answer.set_running_or_notify_cancel():
                answer.set_result((response, first))
            else:
                response.close()

    threading.Thread(target=open_and_read, daemon=True).start()
    wait([answer], timeout=first_byte_timeout_seconds)
    if answer.cancel():
        raise OSError(f"{url}: no answer within {first_byte_timeout_seconds:g} s")
    try:
        return answer.result()
    except urllib.error.HTTPError as error:
        error.close()
        raise OSError(f"{url}: the server answers {error.code} {error.reason}") from None
    except urllib.error.URLError as error:
        raise OSError(f"{url}: {error.reason}") from None
    except _NETWORK_ERRORS as error:
        raise _broken(url, error) from None


def _broken(url: str, error: Exception) -> OSError:
    return OSError(f"{url}: the connection broke ({str(error) or type(error).__name__})")


# ---------------------------------------------------------------------------------------------------------------------
# unpacking
# ---------------------------------------------------------------------------------------------------------------------


def unpack_zip(
    archive: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    max_bytes: int = 4 << 30,
    max_members: int = 100_000,
) -> None:
    """Unpack a zip archive into a new ``folder``, which appears only when it is complete.

    The archive is not trusted: nothing is written outside ``folder``, no link is made, and no more than ``max_bytes``
    are unpacked, counted as they come and not as the archive claims.

    Raises:
        ValueError: the archive is damaged, too large, or has a member that is not a plain file or folder with a
            relative name; the member is named.
        FileExistsError: ``folder`` holds something already.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = opened.infolist()
            if len(members) > max_members:
                raise ValueError(f"{archive}: {len(members)} members; at most {max_members} are unpacked")
            for member in members:
                _check_member(archive, member)
            with new_folder(folder) as part:
                num_bytes = 0
                for member in members:
                    num_bytes += _unpack_member(opened, member, part, archive, max_bytes - num_bytes)
    except zipfile.BadZipFile as error:
        raise ValueError(f"{archive}: not a whole zip archive ({error})") from None


def _check_member(archive: str | os.PathLike[str], member: zipfile.ZipInfo) -> None:
    name = member.orig_filename  # as it is in the file; zipfile changes backslashes on Windows and cuts at a NUL
    where = f"{archive}: member {name!r}"
    if not name or name.startswith("/") or any(mark in name for mark in "\\:\0"):
        raise ValueError(f"{where}: a name must be relative, with / between folders and without a drive letter")
    if ".." in PurePosixPath(name).parts:
        raise ValueError(f"{where}: a name must not contain '..'")
    kind = stat.S_IFMT(member.external_attr >> 16)  # 0 where the archive was not made on Unix
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise ValueError(f"{where}: only plain files and folders are unpacked, no links or devices")


def _unpack_member(
    opened: zipfile.ZipFile, member: zipfile.ZipInfo, folder: Path, archive: str | os.PathLike[str], max_bytes: int
) -> int:
    """Write one checked member below folder and return its size in bytes."""
    target = folder / member.orig_filename
    if member.is_dir():
        target.mkdir(parents=True, exist_ok=True)
        return 0
    where = f"{archive}: member {member.orig_filename!r}"
    if target.exists():
        raise ValueError(f"{where} is there twice")
    target.parent.mkdir(parents=True, exist_ok=True)
    num_bytes = 0
    try:
        with opened.open(member) as source, target.open("xb") as file:
            while chunk := source.read(_CHUNK):  # checks the CRC at the end
                num_bytes += len(chunk)
                if num_bytes > max_bytes:
                    raise ValueError(f"{where} goes past the limit for the unpacked files")
                file.write(chunk)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(f"{where} is damaged ({error})") from None
    except (NotImplementedError, RuntimeError) as error:  # an unknown compression, a password
        raise ValueError(f"{where} cannot be unpacked ({error})") from None
    if num_bytes != member.file_size:
        raise ValueError(f"{where} is damaged ({num_bytes} of {member.file_size} bytes)")
    return num_bytes


# ---------------------------------------------------------------------------------------------------------------------
# the tutorial's set
# ---------------------------------------------------------------------------------------------------------------------


_LISTS = {"train": "kinetics_tiny_train_video.txt", "val": "kinetics_tiny_val_video.txt"}
_LIST_NAMES = " and ".join(_LISTS.values())


def prepare_kinetics400_tiny(
    folder: str | os.PathLike[str],
    *,
    force: bool = False,
    url: str = KINETICS400_TINY_URL,
    first_byte_timeout_seconds: float = 15,
    on_progress: Callable[[str, int, int | None], None] | None = None,
    log: Callable[[str], None] | None = None,
) -> Literal["present", "downloaded", "stand-in"]:
    """See to it that ``folder`` holds the tutorial's set, or where that cannot be had, the generated stand-in.

    A folder that holds the set's lists is left as it is ("present"), with one exception: ``force`` fetches the real
    set where a stand-in lies, and the stand-in stays if that fails.

    Args:
        on_progress: called with ("bytes" or "clips", how many so far, how many in all or None).
        log: called with a sentence for each thing that is done.

    Raises:
        ValueError: ``folder`` holds something else, or with ``force`` files beside the stand-in's own.
        OSError: with ``force``, the real set cannot be had; or ``folder`` cannot be written.
    """
    folder = Path(folder).resolve()
    say = log if log is not None else lambda sentence: None
    replace = False
    if _has_lists(folder):
        replace = force and is_stand_in(folder)
        if not replace:
            if force:
                say(f"{folder} holds no stand-in; it is left as it is")
            return "present"
        _check_nothing_else(folder)
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} holds something, but not {_LIST_NAMES}; move it away or name another folder")

    say(f"fetching {url}")
    try:
        _fetch_set(url, folder, replace, first_byte_timeout_seconds, _progress_of("bytes", on_progress))
        return "downloaded"
    except (OSError, ValueError) as error:
        if replace:
            raise OSError(f"the real set cannot be had, the stand-in in {folder} stays as it is ({error})") from error
        say(f"the real set cannot be had ({error})")
    say(f"generating a stand-in in {folder}: moving shapes, not Kinetics")
    make_stand_in(folder, on_progress=_progress_of("clips", on_progress))
    return "stand-in"


def _has_lists(folder: Path) -> bool:
    return all((folder / name).is_file() for name in _LISTS.values())


def _listed_videos(folder: Path) -> set[Path]:
    lists = [read_list(folder / name, prefix=str(folder / split)) for split, name in _LISTS.items()]
    return {Path(videos[i][0]) for videos in lists for i in range(len(videos))}


def _fetch_set(
    url: str,
    folder: Path,
    replace: bool,
    first_byte_timeout_seconds: float,
    on_progress: ByteProgress | None,
) -> None:
    """Put the set of the archive at url in the place of folder, which is missing, empty, or (replace) a stand-in."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        archive, unpacked, old = (Path(temporary) / name for name in ("archive.zip", "unpacked", "old"))
        fetch_archive(url, archive, first_byte_timeout_seconds=first_byte_timeout_seconds, on_progress=on_progress)
        unpack_zip(archive, unpacked)
        new = unpacked / "kinetics400_tiny"
        if not _has_lists(new):
            raise ValueError(f"{url}: the archive holds no kinetics400_tiny/ with {_LIST_NAMES}")
        missing = sorted(_listed_videos(new) - set(new.rglob("*")))
        if missing:
            raise ValueError(f"{url}: the archive lists {missing[0].name} but does not hold it")
        if replace:
            folder.rename(old)
        elif folder.exists():
            folder.rmdir()  # empty, or this fails
        try:
            new.rename(folder)
        except OSError:
            if replace:
                old.rename(folder)
            raise


def _check_nothing_else(folder: Path) -> None:
    """ValueError where somebody put files of their own beside those of the stand-in: they would be lost."""
    own = {folder / name for name in ("README.txt", "classes.txt", *_LISTS.values())} | _listed_videos(folder)
    others = sorted(path for path in folder.rglob("*") if not path.is_dir() and path not in own)
    if others:
        raise ValueError(f"{others[0]} is no part of the stand-in; move it away before the folder is replaced")


def _progress_of(
    unit: str, on_progress: Callable[[str, int, int | None], None] | None
) -> ByteProgress | None:
    return None if on_progress is None else lambda done, total: on_progress(unit, done, total)
