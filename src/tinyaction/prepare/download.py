"""The tutorial's videos: fetched, checked and unpacked, with a bound on bytes and on waiting."""

import os
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from tinyaction.data.annotations import read_list
from tinyaction.fetch import ByteProgress, fetch_url
from tinyaction.files import new_folder, part_folder, remove_parts
from tinyaction.prepare.synthetic import is_stand_in, make_stand_in

KINETICS400_TINY_URL = "https://download.openmmlab.com/mmaction/kinetics400_tiny.zip"
MAX_ARCHIVE_BYTES = 1 << 30
MAX_UNPACKED_BYTES = 4 << 30
MAX_MEMBERS = 100_000


def unpack_zip(archive: str | os.PathLike[str], folder: str | os.PathLike[str], *,
               max_bytes: int = MAX_UNPACKED_BYTES, max_members: int = MAX_MEMBERS) -> None:
    """Unpack a zip archive into a new ``folder``, which appears only when it is complete.

    zipfile keeps every name inside the folder, makes no links, and unpacks no more bytes than the directory says.

    Raises:
        ValueError: the archive is damaged or too large.
        FileExistsError: ``folder`` holds something already.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = opened.infolist()
            num_bytes = sum(member.file_size for member in members)
            if num_bytes > max_bytes or len(members) > max_members:
                raise ValueError(f"{archive}: {len(members)} files of {num_bytes} bytes; at most {max_members} of "
                                 f"{max_bytes} are unpacked")
            with new_folder(folder) as part:
                opened.extractall(part)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"{archive}: not a whole zip archive ({error})") from None


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
    answer_seconds: float = 15,
    on_progress: Callable[[str, int, int | None], None] | None = None,
    log: Callable[[str], None] | None = None,
) -> Literal["present", "downloaded", "stand-in"]:
    """Make ``folder`` hold the tutorial's set, or the generated stand-in where the set cannot be fetched.

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
    remove_parts(folder.parent)
    say = log if log is not None else lambda sentence: None
    replace = force and is_stand_in(folder)
    if _has_lists(folder):
        if not replace:
            if force:
                say(f"{folder} holds no stand-in; it is left as it is")
            return "present"
        _check_nothing_else(folder)
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} holds something, but not {_LIST_NAMES}; move it away or name another folder")

    say(f"fetching {url}")
    try:
        _fetch_set(url, folder, replace, answer_seconds, _progress_of("bytes", on_progress))
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


def _fetch_set(url: str, folder: Path, replace: bool, answer_seconds: float, on_progress: ByteProgress | None) -> None:
    """Put the set of the archive at url in the place of folder, which is missing, empty, or (replace) a stand-in."""
    with part_folder(folder) as part:
        archive, unpacked, old = (part / name for name in ("archive.zip", "unpacked", "old"))
        fetch_url(url, archive, max_bytes=MAX_ARCHIVE_BYTES, answer_seconds=answer_seconds, on_progress=on_progress)
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


def _progress_of(unit: str, on_progress: Callable[[str, int, int | None], None] | None) -> ByteProgress | None:
    return None if on_progress is None else lambda done, total: on_progress(unit, done, total)
