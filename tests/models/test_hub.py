"""Files of published networks: folders, shards, damaged files, and a hub on this machine that answers as asked."""

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from tinyaction.models import hub
from tinyaction.models.hub import fetch_repository, find_files, find_weights, read_json, read_tensors

REASON = "the extra hub is not installed: pip install 'tinyaction[hub]'"
safetensors = pytest.importorskip("safetensors.torch", reason=REASON)
huggingface_hub = pytest.importorskip("huggingface_hub", reason=REASON)

TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "b.bias": torch.ones(2)}


def write_folder(folder: Path, *, config=None, shards=1) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "videomae"} if config is None else config))
    if shards == 1:
        safetensors.save_file(TENSORS, folder / "model.safetensors")
        return folder
    places = {name: f"model-0000{number}-of-00002.safetensors" for number, name in enumerate(TENSORS, start=1)}
    for name, place in places.items():
        safetensors.save_file({name: TENSORS[name]}, folder / place)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return folder


def same(tensors) -> bool:
    return tensors.keys() == TENSORS.keys() and all(tensors[name].equal(TENSORS[name]) for name in TENSORS)


def message(function, *arguments, folder="no such text") -> str:
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        function(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value).replace(str(folder), "DIR")


# ---------------------------------------------------------------------------------------------------------------------
# folders and files
# ---------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("shards", [1, 2])
def test_a_folder(tmp_path, shards):
    (tmp_path / "preprocessor_config.json").write_text('{"crop_size": 32}')
    files = find_files(write_folder(tmp_path, shards=shards))
    assert files.config == {"model_type": "videomae"} and files.processor == {"crop_size": 32}
    assert len(files.weights) == shards and same(files.read_tensors())


def test_a_processor_within_a_file_of_several(tmp_path):
    (tmp_path / "processor_config.json").write_text('{"video_processor": {"crop_size": 8}}')
    assert find_files(write_folder(tmp_path)).processor == {"crop_size": 8}


@pytest.mark.parametrize("name, content", [
    ("net.bin", TENSORS), ("net.pth", {"state_dict": TENSORS}), ("net.pyth", {"model_state": TENSORS, "epoch": 3}),
    ("net.pth", {"module": TENSORS}),
])
def test_one_file_of_torch_save(tmp_path, name, content):
    torch.save(content, tmp_path / name)
    files = find_files(tmp_path / name)
    assert same(files.read_tensors()) and files.config == {} and files.is_one_file


def test_what_a_folder_lacks(tmp_path):
    assert message(find_files, tmp_path, folder=tmp_path).startswith("DIR: has no config.json, which says what")
    (tmp_path / "config.json").write_text("{}")
    assert message(find_files, tmp_path, folder=tmp_path).startswith("DIR: has no weights; it needs model.safetens")
    assert message(find_files, tmp_path / "no", folder=tmp_path) == (
        "DIR/no: there is no such file or folder of weights")


def test_missing_shards(tmp_path):
    write_folder(tmp_path, shards=2)
    (tmp_path / "model-00001-of-00002.safetensors").unlink()
    assert message(find_files, tmp_path, folder=tmp_path) == (
        "DIR: 1 of 2 files of the weights are missing, model-00001-of-00002.safetensors first; bring them from where "
        "the weights were published")


@pytest.mark.parametrize("index", [{}, {"weight_map": []}, {"weight_map": {}}])
def test_an_index_that_names_nothing(tmp_path, index):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "names no files under 'weight_map'; it is no index of weights" in message(find_weights, tmp_path)


def test_an_index_stays_within_its_folder(tmp_path):
    safetensors.save_file(TENSORS, tmp_path / "outside.safetensors")
    folder = tmp_path / "inside"
    folder.mkdir()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../outside.safetensors"}}))
    assert "1 of 1 files of the weights are missing, ../outside.safetensors first" in message(find_weights, folder)


@pytest.mark.parametrize("text, rule", [("{", "is no JSON file"), ("[1]", "holds a JSON list; it must be an object"),
                                        ("\xff\xfe", "holds a JSON|is no JSON file")])
def test_json_that_is_none(tmp_path, text, rule):
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=rule):
        read_json(tmp_path / "config.json")


@pytest.mark.parametrize("damage", [
    lambda data: data[:-3], lambda data: data[:20], lambda data: b"", lambda data: b"\x00\x00\x00\x20ftypisom" * 9,
    lambda data: b"\xff" * 100, lambda data: data[:8] + b"x" + data[9:],
])
def test_a_cut_or_foreign_safetensors_file(tmp_path, damage):
    path = tmp_path / "model.safetensors"
    safetensors.save_file(TENSORS, path)
    path.write_bytes(damage(path.read_bytes()))
    text = message(read_tensors, path, folder=tmp_path)
    assert text.startswith("DIR/model.safetensors: is cut, or no .safetensors file (")
    assert text.endswith("); fetch it again")


def test_a_file_that_carries_code_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path(tmp_path / "sprung").write_text, ("",))

    torch.save({"state_dict": TENSORS, "trap": Trap()}, tmp_path / "net.bin")
    try:
        read_tensors(tmp_path / "net.bin")
    except ValueError:
        pass
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("package, call", [
    ("safetensors", lambda folder: read_tensors(folder / "model.safetensors")),
    ("huggingface_hub", lambda folder: fetch_repository("somebody/net")),
])
def test_without_the_extra(tmp_path, monkeypatch, package, call):
    write_folder(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(ValueError, match=rf"needs the package {package}; pip install 'tinyaction\[hub\]'"):
        call(tmp_path)


# ---------------------------------------------------------------------------------------------------------------------
# the hub
# ---------------------------------------------------------------------------------------------------------------------

class Hub(BaseHTTPRequestHandler):
    """Answers as the real one: the list of a repository's files, and the files; or what ``status`` says."""

    status = 200
    files_status = 200  # of the files themselves, where the list of them is public
    error_code = ""
    delay_seconds = 0.0
    folder = Path()
    more_bytes = 0  # than a file has, it says
    asked: list[str] = []

    def do_HEAD(self):  # noqa: N802
        self.do_GET()

    def do_GET(self):  # noqa: N802
        type(self).asked.append(self.path)
        time.sleep(self.delay_seconds)
        if self.status != 200:
            self.answer(b"", status=self.status)
        elif self.path.startswith("/api/models/"):
            siblings = [{"rfilename": path.name, "size": path.stat().st_size + self.more_bytes}
                        for path in sorted(self.folder.iterdir())]
            content = {"id": "somebody/net", "sha": "1" * 40, "siblings": siblings, "private": False, "tags": [],
                       "downloads": 0, "likes": 0}
            entries = [{"type": "file", "path": path.name, "size": path.stat().st_size, "oid": "2" * 40}
                       for path in sorted(self.folder.iterdir())]
            self.answer(json.dumps(entries if "/tree/" in self.path else content).encode())
        elif self.files_status != 200:
            self.answer(b"", status=self.files_status)
        else:
            self.answer((self.folder / self.path.rpartition("/")[2].partition("?")[0]).read_bytes())

    def answer(self, content, *, status=200):
        self.send_response(status)
        for name, value in (("Content-Length", len(content)), ("ETag", f'"{len(content):040d}"'),
                            ("X-Repo-Commit", "1" * 40), ("Content-Type", "application/json")):
            self.send_header(name, str(value))
        if self.error_code and status != 200:
            self.send_header("X-Error-Code", self.error_code)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *arguments):
        pass


@contextmanager
def local_hub(monkeypatch, tmp_path, **answers):
    handler = type("Answering", (Hub,), {"asked": [], **answers})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.handle_error = lambda request, address: None                # of a client that did not wait
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    use_endpoint(monkeypatch, tmp_path, f"http://127.0.0.1:{server.server_port}")
    try:
        yield handler
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def use_endpoint(monkeypatch, tmp_path, endpoint):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE",
                        endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(hub, "SECONDS_TO_ANSWER", 0.5)
    monkeypatch.delenv("HF_TOKEN", raising=False)


def test_a_repository_is_fetched_once_and_only_what_is_needed(monkeypatch, tmp_path):
    published = write_folder(tmp_path / "published", shards=2)
    for name in ("pytorch_model.bin", "tf_model.h5", "README.md", "modeling_videomae.py"):
        (published / name).write_text("never asked for")
    with local_hub(monkeypatch, tmp_path, folder=published) as server:
        files = find_files("hub:somebody/net")
        assert same(files.read_tensors()) and files.config == {"model_type": "videomae"}
        assert sorted(path.name for path in files.weights[0].parent.iterdir()) == [
            "config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
            "model.safetensors.index.json"]
        asked = len(server.asked)
        assert asked > 0 and same(find_files("hub:somebody/net").read_tensors()) and len(server.asked) == asked
    assert same(find_files("hub:somebody/net").read_tensors())         # without a network


def test_a_repository_that_is_too_large_is_not_begun(monkeypatch, tmp_path):
    published = write_folder(tmp_path / "published", shards=2)
    with local_hub(monkeypatch, tmp_path, folder=published, more_bytes=10**10) as server:
        assert "(its files have 40 GB, at most 34 are fetched)" in message(find_files, "hub:somebody/net")
        assert len(server.asked) == 1


@pytest.mark.parametrize("answers, rule", [
    ({"status": 401, "error_code": "RepoNotFound"},
     "hub:somebody/net is not on the hub, or only for those who are logged in: look at the name, or run "
     "'hf auth login'; or bring config.json, "),
    ({"status": 404, "error_code": "RepoNotFound"}, "hub:somebody/net is not on the hub, or only for those"),
    ({"status": 403, "error_code": "GatedRepo"}, "hub:somebody/net asks for a login: accept its terms on its page, "
                                                 "then run 'hf auth login'; or bring config.json, "),
    ({"status": 401, "error_code": "GatedRepo"}, "hub:somebody/net asks for a login: accept its terms on its page, "),
    ({"files_status": 403, "error_code": "GatedRepo"}, "hub:somebody/net asks for a login: accept its terms on its "),
    ({"status": 401}, "hub:somebody/net is not on "), ({"status": 403}, "hub:somebody/net is not on this machine"),
    ({"delay_seconds": 1.0}, "hub:somebody/net is not on this machine and could not be fetched ("),
    ({"status": 500}, "hub:somebody/net is not on this machine and could not be fetched ("),
])
def test_a_hub_that_does_not_give_it(monkeypatch, tmp_path, answers, rule):
    with local_hub(monkeypatch, tmp_path, folder=write_folder(tmp_path / "published"), **answers):
        text = message(find_files, "hub:somebody/net")
    assert text.startswith(rule)
    assert text.endswith("/somebody/net into a folder and name the folder as weights")


def test_a_repository_that_lacks_a_shard(monkeypatch, tmp_path):
    published = write_folder(tmp_path / "published", shards=2)
    (published / "model-00002-of-00002.safetensors").unlink()
    with local_hub(monkeypatch, tmp_path, folder=published):
        assert "1 of 2 files of the weights are missing, model-00002-of-00002.safetensors first" in message(
            find_files, "hub:somebody/net")


def test_a_hub_that_is_not_there(monkeypatch, tmp_path):
    use_endpoint(monkeypatch, tmp_path, "http://127.0.0.1:9")
    assert message(find_files, "hub:somebody/net").startswith(
        "hub:somebody/net is not on this machine and could not be fetched (")


def test_a_repository_without_weights_and_a_name_that_is_none(monkeypatch, tmp_path):
    folder = tmp_path / "published"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    with local_hub(monkeypatch, tmp_path, folder=folder):
        assert "could not be fetched (it holds no weights)" in message(find_files, "hub:somebody/net")
    assert message(find_files, "hub:a/b/c") == "hub:a/b/c is no name of a repository; it must be hub:OWNER/NAME"
