"""Files that lie elsewhere, under an address with a protocol: s3://, gs://, https://, hf://, memory:// through fsspec.

A path is a place where it begins with a protocol; so does what is left of one after pathlib has made one slash of two.
Each request has a limit of time and is tried again; when it is over, one sentence says what stands in the way.
Credentials are those of the environment; what is written down of an address is :func:`without_secrets`.
"""

import importlib
import os
import re
import threading
import time
import zlib
from collections.abc import Callable
from concurrent.futures import Future, wait
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, unquote

T = TypeVar("T")
AnyPath = str | os.PathLike[str]

LIMIT_SECONDS = 60.0  # of a request with all its tries; TINYACTION_PLACE_SECONDS names another one
SECONDS_A_TRY = 20.0
FIRST_WAIT_SECONDS = 0.5  # before the second try; then twice as long each time
SECONDS_A_BYTE = 1e-6  # more time for what is sent: 1 MB a second
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
        kind: as of a VideoError.
    """

    kind = "unreadable"

    def __init__(self, path: AnyPath, reason: str) -> None:
        super().__init__(f"{without_secrets(str(path))}: {reason}")
        self.reason = reason


class UnreachableError(PlaceError):
    """Nothing can be read or written there now."""

    kind = "unreachable"


class NoSuchPlaceError(PlaceError, FileNotFoundError):
    """There is nothing at an address."""

    kind = "missing"


class RefusedError(PlaceError):
    """The server gives no access."""

    kind = "refused"


class IsFolderError(NoSuchPlaceError):
    """There is a folder where a file is wanted."""


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
        raise UnreachableError(path, f"a package that reads {protocol}:// is missing; pip install 'tinyaction[cloud]'"
                               ) from None
    except ValueError as error:
        if "rotocol" not in str(error):
            raise PlaceError(path, "this is no address that can be read") from None
        raise UnreachableError(path, f"the protocol {protocol}:// is unknown; pip install 'tinyaction[cloud]' brings "
                               "s3, gs, https and hf, others are packages of fsspec") from None


def _options(protocol: str) -> dict[str, Any]:
    if protocol in ("http", "https"):
        aiohttp = importlib.import_module("aiohttp")
        limit = aiohttp.ClientTimeout(total=None, sock_connect=SECONDS_A_TRY, sock_read=SECONDS_A_TRY)
        return {"client_kwargs": {"timeout": limit, "trust_env": True}, "use_listings_cache": False}
    if protocol in ("s3", "s3a"):
        return {"use_listings_cache": False, "config_kwargs": {
            "connect_timeout": SECONDS_A_TRY, "read_timeout": SECONDS_A_TRY, "retries": {"max_attempts": 0}}}
    return {"use_listings_cache": False} if protocol in ("gs", "gcs") else {}


_tries_of: dict[str, list[Future[Any]]] = {}  # of the addresses that were written to; some may not have ended


def request(
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
            raise UnreachableError(path, f"{reason}, after {counted} in {time.monotonic() - begin:.0f} s")
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
    is_expired = code == 400 and "expired" in " ".join(map(str, errors)).lower()
    if code in (401, 403) or is_expired or isinstance(error, PermissionError) or names & set(CREDENTIALS):
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
    return request(path, lambda system, inner: dict(system.info(inner)))


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
    return request(path, lambda system, inner: bytes(system.cat_file(inner)))


def list_place(path: AnyPath, *, is_deep: bool = False) -> list[str]:
    """Addresses of the files in a folder, and with ``is_deep`` of those in its folders, sorted.

    Raises NoSuchPlaceError where nothing is there, or the server has no list of it.
    """
    return sorted(sizes_in_place(path, is_deep=is_deep))


def sizes_in_place(path: AnyPath, *, is_deep: bool = False) -> dict[str, int]:
    """The same with their bytes, -1 where the list does not tell them, as pages of HTTP."""
    protocol = url_of(path).partition("://")[0]

    def work(system: Any, inner: str) -> list[tuple[str, Any]]:
        found = (system.find(inner, detail=True).items() if is_deep else
                 [(entry["name"], entry) for entry in system.ls(inner, detail=True) if entry["type"] == "file"])
        return [(name, entry.get("size")) for name, entry in found]

    return {_plain(name, url_of(path)) if is_place(name) else f"{protocol}://{name.lstrip('/')}":
            -1 if size is None else int(size) for name, size in request(path, work)}


def _plain(url: str, folder: str) -> str:
    """The address in a page of HTTP with the letters of the file's name, "a b.mp4" and not "a%20b.mp4"."""
    if not url.startswith(folder):
        return url
    return folder + re.sub("[#?%]", lambda match: quote(match[0]), unquote(url.removeprefix(folder)))


def write_place(path: AnyPath, source: Path | bytes) -> None:
    """Put a local file, or bytes, at a place. Object stores show it when it is whole."""
    url = url_of(path)
    tries = _tries_of.setdefault(url, [])
    if wait(tries, timeout=SECONDS_A_TRY).not_done:  # it would put an older file over this one when it ends
        raise PlaceError(path, "an earlier copy is still on its way")
    tries.clear()
    if isinstance(source, bytes):
        content = source
        request(path, lambda system, inner: system.pipe_file(inner, content), num_bytes=len(content), tries=tries)
    else:
        request(path, lambda system, inner: system.put_file(str(source), inner), num_bytes=source.stat().st_size,
                tries=tries)
    if all(one.done() for one in tries):
        _tries_of.pop(url, None)  # a store has a million addresses


def remove_place(path: AnyPath) -> None:
    """Remove a file where it is there."""
    if place_exists(path):
        request(path, lambda system, inner: system.rm_file(inner))
