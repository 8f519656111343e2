"""Data, stores, checkpoints and runs that lie elsewhere: what comes out is that of the same files here."""

import json
import os
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import fsspec
import pytest
import torch
from hub import serve_hub
from servers import serve, serve_s3
from toys import save_toy, write_clip, write_set

from tinyaction import places
from tinyaction.cli import main
from tinyaction.data.annotations import find_data
from tinyaction.data.dataset import VideoDataset
from tinyaction.files import write_whole
from tinyaction.models import create_model, load_weights
from tinyaction.models.checkpoint import Checkpoint
from tinyaction.models.hub import fetch_weights
from tinyaction.place_file import fetch_place
from tinyaction.places import PlaceError
from tinyaction.prepare.store import make_store
from tinyaction.prepare.stored_file import StoreSettings
from tinyaction.results.run import RunFolder
from tinyaction.results.run_copy import fetch_run, local_run_folder
from tinyaction.training.config import RunConfig
from tinyaction.training.identity import ListIdentity, RunIdentity, differences
from tinyaction.training.resume import resumed_config
from tinyaction.training.run import train
from tinyaction.video import VideoError, open_video


@pytest.fixture(scope="module")
def lists(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("elsewhere") / "lists", num_train=4, num_val=2, num_frames=6)


@pytest.fixture
def memory(tmp_path):
    """A function that copies a folder to memory:// and returns its address there."""
    system = fsspec.filesystem("memory")

    def copied(folder):
        for path in folder.rglob("*"):
            if path.is_file():
                system.pipe_file(f"/{tmp_path.name}/{path.relative_to(folder.parent)}", path.read_bytes())
        return f"memory://{tmp_path.name}/{folder.name}"

    yield copied
    if system.exists(f"/{tmp_path.name}"):
        system.rm(f"/{tmp_path.name}", recursive=True)


def rows(data):
    return [[(Path(path).name, label) for path, label in map(videos.__getitem__, range(len(videos)))]
            for videos in (data.train, data.val)]


def test_lists_elsewhere_are_those_here(lists, memory):
    url = memory(lists)
    data, local = find_data(url), find_data(lists)
    assert rows(data) == rows(local)
    assert data.class_names == local.class_names
    path, _ = data.train[0]
    assert path == local.train[0][0].replace(str(lists), url)
    assert len(open_video(path)) == 6
    assert rows(find_data(f"{url}/bars_train_list.txt")) == rows(local)
    assert len(VideoDataset(f"{url}/bars_train_list.txt", lambda results: results)) == 4


def identities(source):
    data = find_data(source)
    return [ListIdentity.of(videos, data.folder or source) for videos in (data.train, data.val)]


def test_another_file_at_the_same_address_is_noticed(lists, memory, monkeypatch):
    """As of files here, by its size; data that is moved elsewhere is the same data."""
    url, local = memory(lists), identities(lists)
    asked = []
    monkeypatch.setattr("tinyaction.training.identity.size_and_version", lambda path: asked.append(path) or (7, 7))
    assert identities(url) == local
    assert not asked                                                   # the lists of train/ and val/ tell
    system = fsspec.filesystem("memory")
    path = find_data(url).train[2][0]
    system.pipe_file(path, system.cat_file(path) + b"more")
    before, now = (RunIdentity(["a", "b"], *both, {}, 1, "float32") for both in (local, identities(url)))
    assert differences(before, now) == ["files of its training videos were replaced: their sizes differ"]
    monkeypatch.setattr("tinyaction.training.identity.MAX_SIZES", 3)
    monkeypatch.setattr("tinyaction.training.identity.MAX_ASKED", 2)
    identities(url)
    assert [Path(path).name for path in asked] == ["clip 0.mp4", "clip 3.mp4"]  # of a longer list


def test_sizes_over_http_are_asked_for(lists):
    pytest.importorskip("aiohttp", reason="of the extra 'cloud'")
    with serve(lists.parent) as server:
        assert identities(f"{server.url}/lists") == identities(lists)


def test_class_folders_and_tables_elsewhere(tmp_path, memory):
    folder = tmp_path / "classes"
    for number in range(6):
        write_clip(folder / f"class{number % 2}" / f"{number}.mp4", number % 2, number, num_frames=2)
    url = memory(folder)
    assert rows(find_data(url)) == rows(find_data(folder, keep_split=False))
    (folder / "a.csv").write_text("path,label,split\nclass0/0.mp4,a,train\nclass1/1.mp4,b,val\n")
    url = memory(folder)
    assert find_data(f"{url}/a.csv").val[0] == (f"{url}/class1/1.mp4", 1)
    (folder / "a.csv").write_text("path,label,split\nclass0/0.mp4,a,train\ns3://b/1.mp4?sig=key,b,val\n")
    url = memory(folder)
    with pytest.raises(ValueError, match=rf"^{url}/a.csv, line 3: 's3://b/1.mp4' leaves the data folder"):
        find_data(url)
    videos = find_data(url, allow_outside=True).val
    assert videos[0][0] == "s3://b/1.mp4?sig=key"  # to read it
    assert videos.item_name(0) == "s3://b/1.mp4"   # to write it down


def test_class_folders_over_http_have_the_names_of_those_here(tmp_path):
    pytest.importorskip("aiohttp", reason="of the extra 'cloud'")
    folder = tmp_path / "my clips"
    for number in range(4):
        write_clip(folder / f"class {number % 2}" / f"a {number}.mp4", number % 2, number, num_frames=2)
    write_clip(folder / "class 1" / "take #1.mp4", 1, 4, num_frames=2)
    local = find_data(folder, keep_split=False)
    with serve(tmp_path) as server:
        data = find_data(f"{server.url}/my%20clips")
        assert data.class_names == local.class_names == ["class 0", "class 1"]
        paths = [data.train[index][0] for index in range(len(data.train))]
        assert sorted(path.rpartition("/")[2].replace("%20", " ").replace("%23", "#") for path in paths) == sorted(
            Path(local.train[index][0]).name for index in range(len(local.train)))
        assert all(len(open_video(path)) == 2 for path in paths)


def test_folders_of_frames_elsewhere(tmp_path, frame_folder, memory):
    for number in range(4):
        frame_folder(num=5 + number, folder=f"frames/train/clip{number}")
    (tmp_path / "frames/a_train_list.txt").write_text("".join(f"clip{n} {5 + n} {n % 2}\n" for n in range(4)))
    (tmp_path / "frames/a_val_list.txt").write_text("clip0 5 0\n")
    url = memory(tmp_path / "frames")
    data, local = find_data(url), find_data(tmp_path / "frames")
    assert rows(data) == rows(local)
    for index in range(4):
        here, there = open_video(local.train[index][0]), open_video(data.train[index][0])
        assert len(there) == 5 + index
        assert (here.get_batch([4, 0, 2]) == there.get_batch([4, 0, 2])).all()
    with pytest.raises(VideoError, match=f"^{url}/train: no frames in the folder; they are named img_00001.jpg"):
        open_video(f"{url}/train")


def test_data_that_is_not_there(memory, lists):
    with pytest.raises(FileNotFoundError, match="memory://nowhere/clips: no such file, or nothing lists"):
        find_data("memory://nowhere/clips")
    url = memory(lists)
    fsspec.filesystem("memory").pipe_file(url.removeprefix("memory:/") + "/bars_val_list.txt", b"a b\n")
    with pytest.raises(ValueError, match=rf"^{url}/bars_val_list.txt, line 1: the label 'b'"):
        find_data(url)


@pytest.mark.parametrize("format", ["raw", "jpeg"])
def test_a_store_elsewhere_is_that_here(tmp_path, lists, memory, format):
    settings = StoreSettings(format=format, short_side=32)
    make_store(lists, tmp_path / "store", settings)
    url = f"memory://{tmp_path.name}/made"
    make_store(memory(lists), url, settings)
    said = []
    make_store(memory(lists), url, settings, on_line=said.append)
    local, remote = find_data(tmp_path / "store"), find_data(url)
    assert rows(local) == rows(remote)
    for index in range(len(local.train)):
        here, there = open_video(local.train[index][0]), open_video(remote.train[index][0])
        assert (here.get_batch([5, 0, 3]) == there.get_batch([5, 0, 3])).all()
        assert here.seconds.tolist() == there.seconds.tolist()
    if format == "raw":  # the index at the end, and 3 frames of 32 x 32
        assert there.file.num_requests == 4


def test_a_store_of_other_settings_is_refused(tmp_path, lists):
    url = f"memory://{tmp_path.name}/made"
    make_store(lists, url, StoreSettings(short_side=32))
    with pytest.raises(ValueError, match="holds a store of other settings"):
        make_store(lists, url, StoreSettings(short_side=16))
    with pytest.raises(ValueError, match="this is a frame store already"):
        make_store(url, tmp_path / "store", StoreSettings(short_side=16))
    write_whole(f"memory://{tmp_path.name}/other/a.txt", "a")
    with pytest.raises(ValueError, match="not empty and no frame store"):
        make_store(lists, f"memory://{tmp_path.name}/other", StoreSettings(short_side=16))


def test_a_checkpoint_elsewhere(tmp_path, memory):
    (tmp_path / "run").mkdir()
    save_toy(tmp_path / "run" / "best.pt")
    url = memory(tmp_path / "run")
    expected = Checkpoint.load(tmp_path / "run").state_dict
    for name in (url, f"{url}/best.pt"):
        found = Checkpoint.load(name).state_dict
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    (tmp_path / "run" / "best.pt").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=rf"^{memory(tmp_path / 'run')}/best.pt: "):
        Checkpoint.load(url)


def test_weights_elsewhere_are_fetched_once(tmp_path, lists, memory, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    (tmp_path / "run").mkdir()
    fetched = []
    monkeypatch.setattr("tinyaction.models.hub.fetch_place",
                        lambda *arguments: (fetched.append(arguments[0]), fetch_place(*arguments)))
    for bias in (1.0, 2.0):                                            # another file at the same address
        save_toy(tmp_path / "run" / "a.pt")
        checkpoint = Checkpoint.load(tmp_path / "run" / "a.pt")
        checkpoint.state_dict["cls_head.fc.bias"].fill_(bias)
        checkpoint.save(tmp_path / "run" / "a.pt")
        url = memory(tmp_path / "run") + "/a.pt"
        for _ in range(2):
            model = create_model("conv2d", 2)
            assert load_weights(model, "conv2d", url).source == url
            assert model.cls_head.fc.bias.tolist() == [bias] * 2
    assert len(fetched) == 2
    with pytest.raises(FileNotFoundError, match="none.pt: no such file"):
        load_weights(model, "conv2d", f"memory://{tmp_path.name}/none.pt")
    config = RunConfig("data", model="tsm-resnet18", weights="https://me:key@host/a.pt?sig=key")
    identity = RunIdentity.of(config, find_data(lists), lists, None, num_processes=1)
    assert identity.flags["weights"] == "https://host/a.pt"            # it is written into last.pt


def test_weights_of_a_server_that_tells_no_state_are_those_of_their_query(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("tinyaction.models.hub.size_and_version", lambda address: (9, 0))
    monkeypatch.setattr("tinyaction.models.hub.fetch_place", lambda address, part: part.write_text(address[-4:]))
    paths = [fetch_weights(f"https://host/get.pt?{query}") for query in ("id=1", "id=2", "id=1")]
    assert [path.read_text() for path in paths] == ["id=1", "id=2", "id=1"]
    assert "id=" not in str(paths)


def test_a_run_is_copied_and_goes_on(tmp_path, lists, memory, monkeypatch):
    monkeypatch.chdir(tmp_path)
    url = memory(lists)
    flags = {"model": "conv2d", "weights": "none", "size": 24, "clip_len": 2, "num_workers": 0, "batch_size": 2,
             "device": "cpu"}
    lines: list[str] = []
    out = f"memory://{tmp_path.name}/runs/a"
    result = train(RunConfig(data=url, out=out, epochs=1, **flags), on_line=lines.append)
    local = train(RunConfig(data=str(lists), out="local", epochs=1, **flags))
    assert result.path == Path("runs/a") == local_run_folder(out)
    assert lines[-1] == f"copied to {out}"
    there, here = (Checkpoint.load(path).state_dict for path in (out, local.path))
    assert all(torch.equal(there[name], here[name]) for name in here)
    with pytest.raises(ValueError, match=f"{out}: exists already and is not empty"):
        RunFolder(out)
    with pytest.raises(ValueError, match="runs/a is here already"):
        fetch_run(out)
    (tmp_path / "runs").rename(tmp_path / "gone")
    config = resumed_config({"resume": out})
    assert (config.resume, config.out) == ("runs/a", out)
    assert {path.name for path in Path("runs/a").iterdir()} >= {"last.pt", "best.pt", "config.json", "metrics.csv"}


def test_what_cannot_be_copied_is_said_and_tried_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines: list[str] = []
    run = RunFolder(f"memory://{tmp_path.name}/run", on_line=lines.append)
    run.write_config({"out": f"memory://me:key@{tmp_path.name}/run", "data": "https://me:key@host/a.csv?sig=key"})
    run.copy()
    place = f"memory://{tmp_path.name}/run"
    assert json.loads(places.read_place(f"{place}/config.json")) == {"out": place, "data": "https://host/a.csv"}
    write = places.write_place

    def fail(path, source):
        raise PlaceError(path, "the server answers 503")

    monkeypatch.setattr("tinyaction.results.run_copy.write_place", fail)
    run.log("a line with https://me:key@host/a.mp4?sig=key")
    run.copy()
    assert lines[-1].startswith(f"not copied: {place}/log.txt: the server answers 503; the run is whole in runs/run")
    with pytest.raises(OSError, match="the server answers 503; the run is whole"):
        run.close()
    monkeypatch.setattr("tinyaction.results.run_copy.write_place", write)
    again = RunFolder("runs/run", reopen=True)
    again.close()
    assert b"key" not in places.read_place(f"{place}/log.txt")


def test_http_is_only_read():
    with pytest.raises(ValueError, match="--out is http://host/run; files are only read from there"):
        RunFolder("http://host/run")


def test_a_checkpoint_is_saved_without_secrets(tmp_path):
    save_toy(tmp_path / "a.pt")
    checkpoint = Checkpoint.load(tmp_path / "a.pt")
    checkpoint.config = {"data": "https://me:key@host/a.csv?sig=key", "epochs": 1}
    checkpoint.save(tmp_path / "a.pt")
    assert Checkpoint.load(tmp_path / "a.pt").config == {"data": "https://host/a.csv", "epochs": 1}


def test_parts_keep_no_secrets(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_toy(tmp_path / "a.pt")
    assert main(["predict", "s3://me:key@bucket/a.mp4", "--checkpoint", "a.pt", "--part", "1/2"]) == 2
    assert capsys.readouterr().err.startswith("error: s3://bucket/a.mp4 has a key or a query in its address")


@pytest.mark.parametrize("arguments", [
    ["train", "--data", "gopher://host/clips"], ["store", "--data", "gopher://host/clips"],
    ["evaluate", "--data", "gopher://host/clips", "--checkpoint", "CHECKPOINT"],
    ["predict", "gopher://host/a.mp4", "--checkpoint", "CHECKPOINT"],
    ["predict", "a.mp4", "--checkpoint", "gopher://host/a.pt"],
])
def test_commands_say_one_sentence(tmp_path, arguments, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_toy(tmp_path / "a.pt")
    assert main([str(tmp_path / "a.pt") if word == "CHECKPOINT" else word for word in arguments]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: gopher://host/")
    assert "the protocol gopher:// is unknown; pip install 'tinyaction[cloud]'" in said.err
    assert said.err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pt"]


@pytest.mark.parametrize("failure", [403, 503, "stall", "drop"])
def test_a_server_that_fails_ends_a_command(tmp_path, lists, failure, capsys, monkeypatch):
    pytest.importorskip("aiohttp", reason="of the extra 'cloud'")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TINYACTION_PLACE_SECONDS", "0.3")
    save_toy(tmp_path / "a.pt")
    with serve(lists.parent) as server:
        server.failure = failure
        for words in (["train", "--data", f"{server.url}/lists"],
                      ["store", "--data", f"{server.url}/lists/bars_train_list.txt"],
                      ["predict", f"{server.url}/lists/a.mp4?sig=key", "--checkpoint", "a.pt"],
                      ["predict", "a.mp4", "--checkpoint", f"{server.url}/a.pt"]):
            assert main(words) == 2
            said = capsys.readouterr().err
            assert said.startswith(f"error: {server.url}/")
            assert said.count("\n") == 1
            assert "key" not in said
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


def test_reading_from_a_worker(lists):
    """A worker that is forked after this process has read something has a loop and connections of its own."""
    pytest.importorskip("aiohttp", reason="of the extra 'cloud'")
    from tinyaction.data.dataset import build_dataloader
    from tinyaction.data.pipelines import eval_pipeline

    with serve(lists.parent) as server:
        data = find_data(f"{server.url}/lists")
        dataset = VideoDataset(data.train, eval_pipeline(clip_len=2, size=24), test_mode=True)
        dataset[0]
        batches = [list(build_dataloader(dataset, batch_size=2, num_workers=num)) for num in (0, 2)]
    assert all(torch.equal(one["inputs"], other["inputs"]) for one, other in zip(*batches, strict=True))


@contextmanager
def serve_gs():
    """The same for Google's storage; it asks for no keys."""
    pytest.importorskip("gcsfs", reason="of the extra 'cloud'")
    module = pytest.importorskip("gcp_storage_emulator.server", reason="gcp-storage-emulator, a stand-in for it")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = module.create_server("127.0.0.1", port, in_memory=True)
    server.start()
    yield {"STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}"}
    server.stop()


@contextmanager
def serve_hf():
    """The same for the Hugging Face hub."""
    pytest.importorskip("huggingface_hub", reason="of the extra 'cloud'")
    with serve_hub() as hub:
        yield {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_the-secret", "HF_HUB_DISABLE_XET": "1"}
        assert "Bearer hf_the-secret" in hub.tokens
        assert not [name for name, content in hub.files.items() if b"the-secret" in content]


@pytest.mark.slow
@pytest.mark.parametrize(("bucket", "serve_bucket"), [
    ("s3://bucket", serve_s3), ("gs://bucket", serve_gs), ("hf://datasets/me/clips", serve_hf)])
def test_a_cloud(bucket, serve_bucket, tmp_path, lists):
    """Train, store, predict and go on from a bucket, equal to the same here; and a bucket that is not there."""
    nowhere = f"{bucket.rpartition('/')[0]}/nowhere"
    flags = ["--model", "conv2d", "--weights", "none", "--size", "24", "--clip-len", "2", "--num-workers", "0",
             "--batch-size", "2", "--device", "cpu", "--epochs", "1"]
    script = f"""
import fsspec, os
from pathlib import Path
from tinyaction.cli import main
from tinyaction.places import write_place
flags, bucket, nowhere, lists = {flags!r}, {bucket!r}, {nowhere!r}, Path({str(lists)!r})
if not bucket.startswith("hf"):
    fsspec.filesystem(bucket[:2]).mkdir("bucket")
for path in lists.rglob("*.*"):
    write_place(f"{{bucket}}/lists/{{path.relative_to(lists)}}", path)
assert main(["train", "--data", f"{{bucket}}/lists", "--out", f"{{bucket}}/run", *flags]) == 0
assert main(["store", "--data", f"{{bucket}}/lists", "--out", f"{{bucket}}/store", "--format", "raw",
             "--short-side", "28"]) == 0
assert main(["train", "--data", f"{{bucket}}/store", "--out", "stored", *flags]) == 0
assert main(["predict", f"{{bucket}}/lists/val", "--checkpoint", f"{{bucket}}/run", "--csv", "there.csv"]) == 0
assert main(["train", "--data", str(lists), "--out", "here", *flags]) == 0
assert main(["predict", str(lists / "val"), "--checkpoint", "here", "--csv", "here.csv"]) == 0
os.rename("runs", "first")
assert main(["train", "--resume", f"{{bucket}}/run"]) == 0
assert main(["predict", f"{{nowhere}}/a.mp4", "--checkpoint", "here"]) == 2
assert main(["train", "--data", f"{{nowhere}}/clips", "--out", "x", *flags]) == 2
"""
    with serve_bucket() as environment:
        done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env={**os.environ, **environment},
                              capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2 and all(line.startswith(f"error: {nowhere}/") for line in errors)
    assert bucket[:2] != "s3" or "there is no such bucket" in errors[0]
    states = [Checkpoint.load(tmp_path / name).state_dict for name in ("here", "first/run", "runs/run")]
    assert all(torch.equal(state[name], states[0][name]) for state in states[1:] for name in state)
    scores = [[line.split(",")[1:] for line in (tmp_path / name).read_text().splitlines()]
              for name in ("here.csv", "there.csv")]
    assert scores[0] == scores[1]
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"the-secret" in path.read_bytes()]


def test_a_fetched_run_is_copied_to_where_it_came_from(tmp_path, memory, monkeypatch):
    """Else a copy of a run would go on over the original."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "config.json").write_text('{"out": "s3://original/run"}')
    url = memory(tmp_path / "a")
    assert json.loads((fetch_run(url) / "config.json").read_text())["out"] == url


@pytest.mark.parametrize("name", ["{url}/../../outside.txt", "memory://elsewhere/outside.txt"])
def test_a_name_that_leads_out_of_a_run_is_not_written(name, tmp_path, memory, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "config.json").write_text("{}")
    url = memory(tmp_path / "b")
    monkeypatch.setattr("tinyaction.results.run_copy.list_place",
                        lambda place, is_deep: [f"{url}/config.json", name.format(url=url)])
    with pytest.raises(ValueError, match="outside.txt: a name that leads out of the run folder"):
        fetch_run(url)
    assert not list(tmp_path.rglob("outside.txt")) and not (tmp_path / "runs" / "b").exists()
