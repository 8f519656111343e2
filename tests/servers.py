"""A server of files on this machine, with ranges, that can be told to fail."""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar
from urllib.request import Request, urlopen

import pytest

Server = TypeVar("Server", bound=ThreadingHTTPServer)


class RangeServer(ThreadingHTTPServer):
    """``url`` of a folder.

    ``failure`` is a status, "stall" or "drop": after ``num_fine`` requests that are answered the next ``num_failures``
    end so. Files of the names in ``refused`` are answered with 403.
    """

    daemon_threads = True
    failure: int | str = 0
    num_fine = 0
    num_failures = 10**9
    num_requests = 0
    refused: frozenset[str] = frozenset()
    has_ranges = True
    num_bytes = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: RangeServer

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self._has_failed():
            return
        path = Path(self.translate_path(self.path))
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not path.is_file():
            super().do_GET()
            return
        content = path.read_bytes()
        start, stop = 0, len(content)
        if match and self.server.has_ranges:
            start, stop = int(match[1]), min(len(content), int(match[2] or len(content)) + 1)
        self.send_response(206 if match and self.server.has_ranges else 200)
        self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(content)}")
        self.send_header("Content-Length", str(stop - start))
        self.end_headers()
        self.wfile.write(content[start:stop])
        self.server.num_bytes += stop - start

    def do_HEAD(self) -> None:
        if not self._has_failed():
            super().do_HEAD()

    def _has_failed(self) -> bool:
        server = self.server
        server.num_requests += 1
        failure: int | str = 0
        if server.failure and server.num_fine > 0:
            server.num_fine -= 1
        elif server.failure and server.num_failures > 0:
            server.num_failures -= 1
            failure = server.failure
        elif Path(self.path).name in server.refused:
            failure = 403
        if failure == "stall":
            time.sleep(5)
        if isinstance(failure, int) and failure:
            self.send_error(failure)
        elif failure:
            self.close_connection = True
            self.connection.close()
        return bool(failure)


@contextmanager
def serve(folder: Path) -> Iterator[RangeServer]:
    with running(RangeServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))) as server:
        yield server


@contextmanager
def running(server: Server) -> Iterator[Server]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def serve_s3() -> Iterator[dict[str, str]]:
    """The environment of a server that stands for S3."""
    pytest.importorskip("s3fs", reason="of the extra 'cloud'")
    module = pytest.importorskip("moto.server", reason="moto[server], a stand-in for S3")
    server = module.ThreadedMotoServer(port=0)
    server.start()
    url = f"http://127.0.0.1:{server.get_host_and_port()[1]}"
    urlopen(Request(f"{url}/moto-api/reset", method="POST")).close()   # buckets outlive a server in one process
    yield {"AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "the-id", "AWS_SECRET_ACCESS_KEY": "the-secret",
           "AWS_REGION": "us-east-1"}
    server.stop()
