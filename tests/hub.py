"""A stand-in for the Hugging Face hub on this machine: one data set, me/clips, in memory."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote

from servers import running

API, FILES = "/api/datasets/me/clips", "/datasets/me/clips/resolve/main/"
COMMIT = "0" * 40


class Hub(ThreadingHTTPServer):
    """``files`` are name -> content; ``num_bytes`` were sent of them; ``tokens`` came with requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.num_bytes = 0
        self.tokens: set[str] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def entry(self, name: str) -> dict[str, Any]:
        content = self.files.get(name)
        if content is None:
            return {"type": "directory", "oid": COMMIT, "size": 0, "path": name}
        return {"type": "file", "oid": hashlib.sha1(content).hexdigest(), "size": len(content), "path": name}

    def names(self) -> set[str]:
        """Files, and the folders above them."""
        return {"/".join(name.split("/")[:num]) for name in self.files for num in range(1, name.count("/") + 2)}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        hub, path = self.server, unquote(self.path.partition("?")[0])
        hub.tokens.add(self.headers.get("Authorization", ""))
        if path in (API, f"{API}/revision/main"):
            self.answer(200, {"_id": "1", "id": "me/clips", "sha": COMMIT, "siblings": [], "tags": []})
        elif path.startswith(f"{API}/tree/main"):
            folder = path.removeprefix(f"{API}/tree/main").strip("/")
            prefix, is_deep = f"{folder}/" if folder else "", "recursive=true" in self.path.lower()
            found = [hub.entry(name) for name in sorted(hub.names())
                     if name.startswith(prefix) and (is_deep or "/" not in name[len(prefix):])]
            self.answer(200 if found else 404, found)
        elif (content := hub.files.get(path.removeprefix(FILES))) is not None:
            match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            part = content[int(match[1]) : int(match[2] or len(content)) + 1] if match else content
            hub.num_bytes += len(part)
            self.answer(206 if match else 200, part)
        else:
            self.answer(404 if "/me/clips" in path else 401, {})

    def do_POST(self) -> None:
        hub, path = self.server, unquote(self.path.partition("?")[0])
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if path.startswith(f"{API}/paths-info/"):
            names = json.loads(body)["paths"] if body.startswith(b"{") else parse_qs(body.decode())["paths"]
            self.answer(200, [hub.entry(name) for name in names if name in hub.names()])
        elif path.startswith(f"{API}/preupload/"):
            self.answer(200, {"files": [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                                        for file in json.loads(body)["files"]]})
        else:  # a commit
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    hub.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self.answer(200, {"commitUrl": f"{hub.url}/datasets/me/clips/commit/{COMMIT}", "commitOid": COMMIT,
                              "hookOutput": ""})

    def answer(self, code: int, content: Any) -> None:
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(content)))
        if code == 404:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def serve_hub() -> Iterator[Hub]:
    with running(Hub()) as hub:
        yield hub
