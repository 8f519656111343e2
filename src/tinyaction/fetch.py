"""A file of the network, fetched with a bound on its bytes and on waiting.

By urllib: torch.hub.download_url_to_file stops neither at a size nor at a slow server.
"""

import hashlib
import os
import shutil
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from http.client import HTTPException
from typing import Any, TypeVar

from tinyaction.files import whole_file

LEAST_BYTES_PER_STALL = 10_000  # fewer in ``stall_seconds`` count as a stall

LEAST_FREE_SHARE = 0.1  # of the free bytes of a disk, which a file leaves free

T = TypeVar("T")
ByteProgress = Callable[[int, int | None], None]  # (bytes so far, bytes in all or None where the server does not say)


def fetch_url(
    url: str,
    target_file: str | os.PathLike[str],
    *,
    max_bytes: int,
    digest: str = "",
    answer_seconds: float = 15,
    stall_seconds: float = 30,
    on_progress: ByteProgress | None = None,
) -> None:
    """Fetch a file (http, https, file) to ``target_file``, which appears only when it is complete.

    Args:
        answer_seconds: for the name, the connection and the header together.
        digest: first digits of the content's sha256.
        stall_seconds: each so many seconds must bring 10 kB, or the rest of the file.

    Raises:
        OSError: the file cannot be had, is larger than ``max_bytes`` or than the disk has room for, is another one
            than ``digest`` says, or fewer bytes came than were announced; the message begins with the URL.
        ValueError: that is no URL.
    """
    response = _open(url, answer_seconds, stall_seconds)
    with response, whole_file(target_file) as part, part.open("wb") as file:
        max_bytes = min(max_bytes, int((1 - LEAST_FREE_SHARE) * shutil.disk_usage(part.parent).free))
        header = response.headers.get("Content-Length")
        num_bytes = int(header) if header is not None and header.isdecimal() else None
        num_done, stall_begin, stall_bytes = 0, time.monotonic(), 0
        content = hashlib.sha256()
        while chunk := _read(url, response):
            file.write(chunk)
            content.update(chunk)
            num_done += len(chunk)
            if max(num_done, num_bytes or 0) > max_bytes:
                raise OSError(f"{url}: larger than {max_bytes / 1e6:,.0f} MB; nothing is kept")
            if time.monotonic() - stall_begin > stall_seconds:
                if num_done - stall_bytes < LEAST_BYTES_PER_STALL:
                    raise OSError(f"{url}: too slow, {num_done - stall_bytes} bytes in {stall_seconds:g} s")
                stall_begin, stall_bytes = time.monotonic(), num_done
            if on_progress is not None:
                on_progress(num_done, num_bytes)
        if num_bytes is not None and num_done != num_bytes:
            raise OSError(f"{url}: the connection ended after {num_done} of {num_bytes} bytes")
        if not content.hexdigest().startswith(digest):
            raise OSError(f"{url}: its sha256 begins with {content.hexdigest()[: len(digest)]} and not with {digest}")


def answer_within(seconds: float, function: Callable[[], T]) -> T:
    """What a function returns or raises; TimeoutError where it takes longer. Its thread is then abandoned."""
    answer: Future[T] = Future()

    def run() -> None:
        try:
            answer.set_result(function())
        except Exception as error:  # raised again below
            answer.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return answer.result(timeout=seconds)


def _open(url: str, answer_seconds: float, stall_seconds: float) -> Any:
    """The response of urllib, its header read.

    In a thread, as a socket's timeout bounds each step alone, and the look-up of a name not at all.
    """
    request = urllib.request.Request(url, headers={"User-Agent": "tinyaction"})
    try:
        return answer_within(answer_seconds, partial(urllib.request.urlopen, request, timeout=stall_seconds))
    except urllib.error.HTTPError as error:
        error.close()
        raise OSError(f"{url}: the server answers {error.code} {error.reason}") from None
    except urllib.error.URLError as error:
        raise OSError(f"{url}: {error.reason}") from None
    except TimeoutError:
        raise OSError(f"{url}: no answer within {answer_seconds:g} s") from None
    except (OSError, HTTPException) as error:
        raise OSError(f"{url}: the connection broke ({str(error) or type(error).__name__})") from None


def _read(url: str, response: Any) -> bytes:
    """The bytes that have come, up to 64 kB; none at the end."""
    try:
        chunk: bytes = response.read1(1 << 16)
        return chunk
    except (OSError, HTTPException) as error:
        raise OSError(f"{url}: the connection broke ({str(error) or type(error).__name__})") from None
