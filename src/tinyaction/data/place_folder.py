"""Data that lies elsewhere, looked at through a temporary folder that has the same names: see :func:`mirrored`."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from pathlib import Path

from tinyaction.data.class_folders import LIST_SUFFIXES, is_video
from tinyaction.data.folder import DataFolder
from tinyaction.data.lists import VideoList
from tinyaction.data.tables import read_lines
from tinyaction.place_file import fetch_place
from tinyaction.places import (
    NoSuchBucketError,
    NoSuchPlaceError,
    PlaceError,
    RefusedError,
    is_place,
    list_place,
    path_inside,
    place_exists,
    suffix_of,
    url_of,
    without_secrets,
)

SPLITS = ("train", "val", "test")


@contextmanager
def mirrored(source: str | Path) -> Iterator[tuple[Path, "Mirror"]]:
    """(what stands for ``source`` on this machine, the mirror) of a folder or a list that lies elsewhere.

    The lists at the top of the folder are copied. Where there are none, each video is an empty file. What is found
    there is put right by :meth:`Mirror.restored`; errors name the place.
    """
    is_file = suffix_of(source) in LIST_SUFFIXES
    url = url_of(source).rstrip("/")
    with tempfile.TemporaryDirectory(prefix="tinyaction-") as folder:
        mirror = Mirror(Path(folder).resolve(), url.partition("?")[0].rpartition("/")[0] if is_file else url)
        try:
            local = mirror.folder / Path(without_secrets(url)).name if is_file else mirror.folder
            if is_file:
                mirror.copy_list(url, local.name)
            else:
                mirror.copy_folder()
            yield local, mirror
        except (ValueError, FileNotFoundError) as error:
            if isinstance(error, PlaceError):
                raise
            kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
            raise kind(mirror.named(str(error))) from None


def _is_there(path: str) -> bool:
    """Whether a file lies beside a list that could be read: S3 says 403 over https of one that does not."""
    try:
        return place_exists(path)
    except RefusedError:
        if not path.startswith(("http://", "https://")):
            raise
        return False


class Mirror:
    """A temporary folder that stands for the one at ``url``."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url

    def named(self, text: str) -> str:
        return without_secrets(text.replace(str(self.folder), self.url))

    def copy_list(self, url: str, name: str) -> None:
        """A list, and the files beside it that belong to it."""
        fetch_place(url, self.folder / name)
        beside = {"classes.txt", "val".join(name.rsplit("train", maxsplit=1))} - {name}
        beside = {other for other in beside if _is_there(f"{self.url}/{other}")}
        self._copy(sorted(beside))
        self._touch_first_videos([name, *beside])

    def copy_folder(self) -> None:
        """The lists of a folder, or where it has none the names of its videos."""
        try:
            found = [self._inner(path) for path in list_place(self.url)]
        except NoSuchBucketError:
            raise
        except NoSuchPlaceError as error:
            raise FileNotFoundError(f"{self.folder}: {error.reason}, or nothing lists what is in it; give a list "
                                    "itself, as https://host/clips/list.csv") from None
        lists = [name for name in found if suffix_of(name) in LIST_SUFFIXES]
        self._copy(lists)
        if any(suffix_of(name) == ".csv" or suffix_of(name) == ".txt" and "train" in name for name in lists):
            self._touch_first_videos(lists)
            return
        for path in list_place(self.url, is_deep=True):
            if is_video(Path(path)):
                self._touch(self._inner(path))

    def _copy(self, names: list[str]) -> None:
        for name in names:
            fetch_place(f"{self.url}/{name}", self.folder / name)

    def _touch_first_videos(self, lists: list[str]) -> None:
        """Paths in a list are relative to the folder or to one of a split: the first of each tells which."""
        for name in lists:
            if suffix_of(name) != ".txt" or name == "classes.txt":
                continue
            lines = (line.rsplit(maxsplit=1)[0] for line in read_lines(self.folder / name) if line.strip())
            first = next(lines, "").strip()
            both = first, first.rpartition(" ")[0]                     # a path, or a path and its number of frames
            names = [name for name in both if name and not is_place(name)]
            for path in ("/".join(filter(None, (folder, name))) for folder in ("", *SPLITS) for name in names):
                if _is_there(f"{self.url}/{path}"):
                    self._touch(path)

    def _inner(self, path: str) -> str:
        return url_of(path).removeprefix(f"{self.url}/")

    def _touch(self, name: str) -> None:
        target = path_inside(self.folder, name, what="data folder")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()

    def restored(self, data: DataFolder) -> DataFolder:
        """What was found in the mirror, with the addresses of the place."""
        both = self._moved(data.train), self._moved(data.val)
        data.train, data.val = both[0], both[0] if data.train is data.val else both[1]
        data.test = data.test and self._moved(data.test)
        data.notes, data.left_out = ([self.named(text) for text in texts] for texts in (data.notes, data.left_out))
        data.folder = Path(without_secrets(self.url))
        return data

    def _moved(self, videos: VideoList) -> VideoList:
        moved = copy(videos)
        moved.source = self.named(videos.source)
        moved.prefix = videos.prefix.replace(str(self.folder), self.url)
        if not videos.prefix:  # class folders: each path is a whole one
            return moved.with_names(videos.name(index).replace(str(self.folder), self.url)
                                    for index in range(len(videos)))
        return moved
