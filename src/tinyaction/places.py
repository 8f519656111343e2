"""Files that lie elsewhere, under an address with a protocol: s3://, gs://, https://, hf://, memory:// through fsspec.

A path is a place where it begins with a protocol; so does what is left of one after pathlib has made one slash of two.
Each request has a limit of time and is tried again; when it is over, one sentence says what stands in the way.
Credentials are those of the environment; what is written down of an address is :func:`without_secrets`.
"""

import importlib
import io
import os
import re
import tempfile
import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
AnyPath = str | os.PathLike[str]

LIMIT_SECONDS = 60.0  # of a request with all its tries; TINYACTION_PLACE_SECONDS names another one
SECONDS_A_TRY = 20.0
FIRST_WAIT_SECONDS = 0.5  # before the second try; then twice as long each time
SECONDS_A_BYTE = 1e-6  # more time for what is sent: 1 MB a second
BLOCK_BYTES = 1 << 17
MOST_BLOCKS_AHEAD = 8  # that one request of a file read in turn brings
NUM_CACHED_BLOCKS = 128
PASSING_CODES = (408, 425, 429, 500, 502, 503, 504)
NAMED_WITH_HASH = ("s3", "s3a", "gs", "gcs", "hf", "memory")  # there # is a letter of names and begins no fragment
CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "TokenRetrievalError", "UnauthorizedSSOTokenError")

_ADDRESS = re.compile(r"(?!file:)([A-Za-z][A-Za-z0-9+.-]+):/+(?=[^/\s])")
_SECRETS = re.compile(
    r"(?!file:)(?<![/\w])([A-Za-z][A-Za-z0-9+.-]+):/+(?=[^/\s])(?:[^/?#\s]*@)?([^?#\s'\"]+)([?#][^\s'\"]*)?")


class PlaceError(OSError):
    """A place that cannot be reached, read or written; the message begins with its address.

    Attributes:
        reason: what stands in the way, without the address.
    """

    def __init__(self, path: AnyPath, reason: str) -> None:
        super().__init__(f"{without_secrets(str(path))}: {reason}")
        self.reason = reason


class NoSuchPlaceError(PlaceError, FileNotFoundError):
    """There is nothing at an address."""


class RefusedError(PlaceError):
    """The server gives no access."""


class NoSuchBucketError(NoSuchPlaceError):
    """Not even the bucket is there."""


def is_place(path: AnyPath) -> bool:
    """Whether a path is an address with a protocol."""
    text = os.fspath(path)
    return ":/" in text and _ADDRESS.match(text) is not None


def url_of(path: AnyPath) -> str:
    """The address as fsspec takes it: two slashes behind the protocol."""
    return _ADDRESS.sub(lambda match: f"{match[1].lower()}://", os.fspath(path), count=1)


def suffix_of(path: AnyPath) -> str:
    """".mp4" of a local path or an address, in small letters."""
    return os.path.splitext(without_secrets(os.fspath(path)))[1].lower()


def without_secrets(text: str) -> str:
    """Addresses in a text without names and passwords of users, and without the queries of a URL."""
    if ":/" not in text:
        return text

    def clean(match: re.Match[str]) -> str:
        rest = match[3] or ""
        is_name = rest.startswith("#") and match[1].lower() in NAMED_WITH_HASH
        return f"{match[1]}://{match[2]}{rest.partition('?')[0] if is_name else ''}"

    return _SECRETS.sub(clean, text)


def join_place(folder: AnyPath, name: str) -> str:
    """``name`` below a folder; one that is an address or a path from the root stays as it is."""
    return name if is_place(name) else os.path.join(folder, name)


def path_inside(folder: Path, name: str, *, what: str) -> Path:
    """The local path of a name that somebody else's server gave; ValueError where it leads out of ``what``."""
    path = folder / name
    if is_place(name) or not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{without_secrets(name)}: a name that leads out of the {what}")
    return path


# ---------------------------------------------------------------------------------------------------------------------
# requests
# ---------------------------------------------------------------------------------------------------------------------


def file_system(path: AnyPath) -> tuple[Any, str]:
    """(the file system of fsspec, the path in it) of a place; ImportError's sentence where a package is missing."""
    protocol = url_of(path).partition("://")[0]
    try:
        fsspec = importlib.import_module("fsspec")
        options = _options(protocol)
        return fsspec.core.url_to_fs(url_of(path), **options)
    except ImportError:
        raise PlaceError(path, f"a package that reads {protocol}:// is missing; pip install 'tinyaction[cloud]'"
                         ) from None
    except ValueError as error:
        if "rotocol" not in str(error):
            raise PlaceError(path, "this is no address that can be read") from None
        raise PlaceError(path, f"the protocol {protocol}:// is unknown; pip install 'tinyaction[cloud]' brings s3, "
                         "gs, https and hf, others are packages of fsspec") from None


def _options(protocol: str) -> dict[str, Any]:
    if protocol in ("http", "https"):
        aiohttp = importlib.import_module("aiohttp")
        limit = aiohttp.ClientTimeout(total=None, sock_connect=SECONDS_A_TRY, sock_read=SECONDS_A_TRY)
        return {"client_kwargs": {"timeout": limit, "trust_env": True}, "use_listings_cache": False}
    if protocol in ("s3", "s3a"):
        return {"use_listings_cache": False, "config_kwargs": {
            "connect_timeout": SECONDS_A_TRY, "read_timeout": SECONDS_A_TRY, "retries": {"max_attempts": 0}}}
    return {}


_tries_of: dict[str, list[Future[Any]]] = {}  # of the addresses that were written to; some may not have ended


def _request(
    path: AnyPath, work: Callable[[Any, str], T], *, num_bytes: int = 0, tries: list[Future[Any]] | None = None
) -> T:
    """Do something with a file system, again after what may pass, until the limit.

    Each try has a thread of its own, as some libraries wait without end; one that takes too long is abandoned.
    """
    more = num_bytes * SECONDS_A_BYTE
    limit = float(os.environ.get("TINYACTION_PLACE_SECONDS", LIMIT_SECONDS)) + more
    begin, pause, num_tries = time.monotonic(), FIRST_WAIT_SECONDS, 0
    system, inner = file_system(path)
    while True:
        answer: Future[T] = Future()
        if tries is not None:
            tries.append(answer)
        threading.Thread(target=_answer, args=(answer, work, system, inner), daemon=True).start()
        left = begin + limit - time.monotonic()
        try:
            num_tries += 1
            return answer.result(timeout=max(0.1, min(SECONDS_A_TRY + more, left)))
        except (FutureTimeoutError, Exception) as error:
            reason = "no answer" if isinstance(error, FutureTimeoutError) else _passing_reason(path, error)
        left = begin + limit - time.monotonic()
        if left <= pause:
            counted = "1 try" if num_tries == 1 else f"{num_tries} tries"
            raise PlaceError(path, f"{reason}, after {counted} in {time.monotonic() - begin:.0f} s")
        time.sleep(pause)
        pause *= 2


def _answer(answer: "Future[T]", work: Callable[[Any, str], T], system: Any, inner: str) -> None:
    try:
        answer.set_result(work(system, inner))
    except BaseException as error:  # raised again where it is waited for
        answer.set_exception(error)


def _passing_reason(path: AnyPath, error: BaseException) -> str:
    """What an error is that may pass; raises PlaceError of one that will not."""
    errors = [error]
    while cause := errors[-1].__cause__ or errors[-1].__context__:
        errors.append(cause)
    code = next((found for each in errors if (found := _code_of(each))), 0)
    names = {type(each).__name__ for each in errors}
    if code in (401, 403) or isinstance(error, PermissionError) or names & set(CREDENTIALS):
        raise RefusedError(path, f"access is refused{f' ({code})' if code else ''}; the credentials of the "
                           "environment are missing, wrong or expired, or the address is") from None
    if "ucket does not exist" in str(error) or "NoSuchBucket" in names:
        raise NoSuchBucketError(path, "there is no such bucket") from None
    if code in PASSING_CODES:
        return f"the server answers {code}"
    if code == 404 or isinstance(error, FileNotFoundError) and len(errors) == 1:
        raise NoSuchPlaceError(path, "no such file") from None
    if code:
        raise PlaceError(path, f"the server answers {code}") from None
    if isinstance(errors[-1], OSError | EOFError) or names & {"ClientError", "HTTPClientError", "ConnectionError",
                                                              "ServerDisconnectedError", "ClientPayloadError"}:
        return f"the connection broke ({type(errors[-1]).__name__})"
    raise PlaceError(path, f"it cannot be read ({type(error).__name__})") from None


def _code_of(error: BaseException) -> int:
    """The status of HTTP in an error of aiohttp, botocore, gcsfs or requests; 0 of others."""
    response = getattr(error, "response", None)
    found = (response.get("ResponseMetadata", {}).get("HTTPStatusCode") if isinstance(response, dict) else
             getattr(response, "status_code", None) or getattr(error, "status", None) or getattr(error, "code", None))
    return int(str(found)) if str(found).isdecimal() else 0


# ---------------------------------------------------------------------------------------------------------------------
# looking, reading, writing
# ---------------------------------------------------------------------------------------------------------------------


def place_info(path: AnyPath) -> dict[str, Any]:
    """What the file system says of a file or folder; NoSuchPlaceError where there is none."""
    return _request(path, lambda system, inner: dict(system.info(inner)))


def place_exists(path: AnyPath) -> bool:
    try:
        place_info(path)
    except NoSuchPlaceError:
        return False
    return True


def size_and_version(path: AnyPath) -> tuple[int, int]:
    """Bytes of a file, and a number of its state: another one after a change, as far as the place tells."""
    info = place_info(path)
    facts = [str(info[name]) for name in ("ETag", "etag", "LastModified", "Last-Modified", "updated", "created",
                                          "blob_id", "md5Hash") if info.get(name)]
    return int(info.get("size") or 0), zlib.crc32("\n".join(facts).encode())


def read_place(path: AnyPath) -> bytes:
    """The whole of a small file."""
    return _request(path, lambda system, inner: bytes(system.cat_file(inner)))


def list_place(path: AnyPath, *, is_deep: bool = False) -> list[str]:
    """Addresses of the files in a folder, and with ``is_deep`` of those in its folders, sorted.

    Raises NoSuchPlaceError where nothing is there, or the server has no list of it.
    """
    protocol = url_of(path).partition("://")[0]

    def work(system: Any, inner: str) -> list[str]:
        if is_deep:
            return list(system.find(inner))
        return [entry["name"] for entry in system.ls(inner, detail=True) if entry["type"] == "file"]

    found = _request(path, work)
    return sorted(name if is_place(name) else f"{protocol}://{name.lstrip('/')}" for name in found)


def write_place(path: AnyPath, source: Path | bytes) -> None:
    """Put a local file, or bytes, at a place. Object stores show it when it is whole."""
    tries = _tries_of.setdefault(url_of(path), [])
    if wait(tries, timeout=SECONDS_A_TRY).not_done:  # it would put an older file over this one when it ends
        raise PlaceError(path, "an earlier copy is still on its way")
    tries.clear()
    if isinstance(source, bytes):
        content = source
        _request(path, lambda system, inner: system.pipe_file(inner, content), num_bytes=len(content), tries=tries)
        return
    _request(path, lambda system, inner: system.put_file(str(source), inner), num_bytes=source.stat().st_size,
             tries=tries)


def remove_place(path: AnyPath) -> None:
    """Remove a file where it is there."""
    if place_exists(path):
        _request(path, lambda system, inner: system.rm_file(inner))


def fetch_place(path: AnyPath, target: AnyPath) -> None:
    """Copy a file to a local one, some megabytes a request."""
    file = PlaceFile(path)
    with open(target, "wb") as local:
        for start in range(0, len(file), step := BLOCK_BYTES * 64):
            local.write(file.fetched(start, min(start + step, len(file))))


@contextmanager
def local_copy(path: AnyPath) -> Iterator[Path]:
    """The path itself, or a temporary copy of a file elsewhere, with its name."""
    if not is_place(path):
        yield Path(path)
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, Path(without_secrets(os.fspath(path))).name)
        fetch_place(path, copy)
        yield copy


class PlaceFile:
    """A file elsewhere, read by ranges: ``file[start:stop]`` as of bytes, ``len(file)``; ``num_bytes_read`` so far.

    Blocks that were read are kept, the latest of them. A file read in turn comes in larger and larger pieces.
    """

    def __init__(self, path: AnyPath) -> None:
        self.path = url_of(path)
        self.num_bytes_read = 0
        self.num_requests = 0
        info = place_info(path)
        if info.get("type") == "directory":
            raise NoSuchPlaceError(path, "a folder, not a file")
        self._whole: bytes | None = None
        if info.get("size") is None:  # a server that says no length
            self._whole = read_place(path)
        self._size = int(info.get("size", 0)) if self._whole is None else len(self._whole)
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._next = self._num_ahead = 0

    def __len__(self) -> int:
        return self._size

    @property
    def num_bytes_held(self) -> int:
        return len(self._blocks) * BLOCK_BYTES + len(self._whole or b"")

    def __getitem__(self, part: slice) -> bytes:
        start, stop, step = part.indices(self._size)
        return self.read_range(start, stop)[::step]

    def read_range(self, start: int, stop: int) -> bytes:
        start, stop = max(0, start), min(stop, self._size)
        if start >= stop:
            return b""
        numbers = range(start // BLOCK_BYTES, (stop - 1) // BLOCK_BYTES + 1)
        missing = [number for number in numbers if number not in self._blocks]
        got = {number: self._blocks[number] for number in numbers if number in self._blocks}
        if missing:
            got |= self._fetch_blocks(missing[0], missing[-1] + 1)
        for number in numbers:
            self._blocks.move_to_end(number)
        while len(self._blocks) > max(NUM_CACHED_BLOCKS, len(numbers)):
            self._blocks.popitem(last=False)
        content = b"".join(got[number] for number in numbers)
        return content[start - numbers[0] * BLOCK_BYTES : stop - numbers[0] * BLOCK_BYTES]

    def _fetch_blocks(self, first: int, stop: int) -> dict[int, bytes]:
        """Fetch these blocks in one request, and more of them where they follow what was fetched before."""
        self._num_ahead = min(2 * self._num_ahead + 1, MOST_BLOCKS_AHEAD) if first == self._next else 0
        while stop < first + self._num_ahead and stop not in self._blocks:
            stop += 1
        start = first * BLOCK_BYTES
        content = self.fetched(start, min(stop * BLOCK_BYTES, self._size))
        self._next = stop
        blocks = {first + i // BLOCK_BYTES: content[i : i + BLOCK_BYTES] for i in range(0, len(content), BLOCK_BYTES)}
        self._blocks |= blocks
        return blocks

    def fetched(self, start: int, stop: int) -> bytes:
        """The bytes from ``start`` to ``stop`` by a request of their own."""
        if self._whole is None:
            self.num_requests += 1
            content = _request(self.path, lambda system, inner: self._checked(system, inner, start, stop))
            self.num_bytes_read += len(content)
            if len(content) == stop - start:
                return content
            self._whole = content
        return self._whole[start:stop]

    def _checked(self, system: Any, inner: str, start: int, stop: int) -> bytes:
        content = bytes(system.cat_file(inner, start=start, end=stop))
        if len(content) not in (stop - start, self._size):  # the whole file: of a server without ranges
            raise EOFError
        return content

    def cursor(self, *, zeros: Sequence[tuple[int, int]] = (), is_exact: bool = False) -> "Cursor":
        """A file object on it.

        Bytes within ``zeros``, of (start, stop) each, are read as 0 and not fetched. With ``is_exact`` each read is a
        request of just these bytes.
        """
        return Cursor(self.fetched if is_exact else self.read_range, len(self), zeros)


class Cursor(io.RawIOBase):
    """A file object with a position of its own; see :meth:`PlaceFile.cursor`."""

    def __init__(self, read_range: Callable[[int, int], bytes], size: int, zeros: Sequence[tuple[int, int]]) -> None:
        self._read_range = read_range
        self._size = size
        self._zeros = zeros
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._place = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        return self._place

    def read(self, size: int | None = -1) -> bytes:
        stop = self._size if size is None or size < 0 else min(self._place + size, self._size)
        parts = []
        while self._place < stop:
            inside = next(((start, end) for start, end in self._zeros if start <= self._place < end), None)
            if inside:
                end = min(stop, inside[1])
                parts.append(bytes(end - self._place))
            else:
                end = min([stop, *(start for start, _ in self._zeros if start > self._place)])
                parts.append(self._read_range(self._place, end))
            self._place = end
        return b"".join(parts)

    def readinto(self, buffer: Any) -> int:
        content = self.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)
