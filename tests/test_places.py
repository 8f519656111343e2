"""Videos that lie elsewhere: the frames are those of the local file, and what fails is one sentence."""

import importlib.util
from pathlib import Path

import fsspec
import numpy as np
import pytest
from hub import serve_hub
from servers import RangeServer, serve
from video_files import write_by_pyav, write_h264

from tinyaction import place_file, places
from tinyaction.place_file import PlaceFile
from tinyaction.places import PlaceError, is_place, url_of, without_secrets
from tinyaction.video import VideoError, open_video

needs_http = pytest.mark.skipif(importlib.util.find_spec("aiohttp") is None, reason="aiohttp, of the extra 'cloud'")


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Files of several containers and codecs, and an MP4 of 600 frames with a key frame every second."""
    folder = tmp_path_factory.mktemp("videos")
    write_h264(folder / "b.mp4")
    write_h264(folder / "index_first.mp4", container_options={"movflags": "faststart"})
    write_h264(folder / "open_gop.mp4", options="keyint=12:min-keyint=12:scenecut=0:bframes=3:open-gop=1")
    write_h264(folder / "fragments.mp4", container_options={"movflags": "frag_keyframe+empty_moov"})
    write_h264(folder / "b.mkv")
    write_by_pyav(folder / "old.avi", [np.full((32, 32, 3), 9 * number, np.uint8) for number in range(9)], "mpeg4")
    write_h264(folder / "long.mp4", num_frames=600)
    (folder / "empty.mp4").touch()
    (folder / "cut.mp4").write_bytes((folder / "index_first.mp4").read_bytes()[:-500])
    return folder


@pytest.fixture(scope="module")
def in_memory(videos):
    system = fsspec.filesystem("memory")
    for path in videos.iterdir():
        system.pipe_file(f"/videos/{path.name}", path.read_bytes())
    yield "memory://videos"
    system.rm("/videos", recursive=True)


@pytest.fixture
def server(videos, monkeypatch):
    monkeypatch.setattr(places, "FIRST_WAIT_SECONDS", 0.05)
    with serve(videos) as running:
        yield running


def read(path, indices):
    reader = open_video(path)
    return len(reader), reader.fps, reader.seconds.tolist(), [frame.tobytes() for frame in reader.read(indices)]


@pytest.mark.parametrize("name", ["b.mp4", "index_first.mp4", "open_gop.mp4", "fragments.mp4", "b.mkv", "old.avi"])
def test_the_frames_are_those_of_the_local_file(videos, in_memory, name):
    for indices in ([0, 3, 7, 8], [7]) if name == "old.avi" else ([0, 13, 14, 40, 59], [57], list(range(60))):
        assert read(f"{in_memory}/{name}", indices) == read(videos / name, indices)
    assert read(Path(f"{in_memory}/{name}"), [5]) == read(videos / name, [5])  # pathlib makes one slash of two


@pytest.mark.parametrize("name", ["empty.mp4", "cut.mp4"])
def test_errors_are_those_of_the_local_file(videos, in_memory, name):
    with pytest.raises(VideoError) as local:
        open_video(videos / name)
    with pytest.raises(VideoError) as remote:
        open_video(f"{in_memory}/{name}")
    assert (remote.value.reason, remote.value.kind) == (local.value.reason, local.value.kind)
    assert remote.value.path == f"{in_memory}/{name}"


@needs_http
def test_a_clip_reads_what_it_needs(videos, server, monkeypatch):
    monkeypatch.setattr(place_file, "BLOCK_BYTES", 1 << 12)
    size = (videos / "long.mp4").stat().st_size
    assert read(f"{server.url}/long.mp4", range(300, 316)) == read(videos / "long.mp4", range(300, 316))
    assert server.num_bytes < size / 2
    server.num_bytes = 0
    read(f"{server.url}/long.mp4", range(600))
    assert server.num_bytes == size  # none twice


def test_a_clip_of_the_hub_reads_what_it_needs(videos, monkeypatch):
    """huggingface_hub would read 5 MB ahead of each range."""
    hub_package = pytest.importorskip("huggingface_hub", reason="of the extra 'cloud'")
    hub_package.HfFileSystem.clear_instance_cache()
    with serve_hub() as hub:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
                            hub.url + "/{repo_id}/resolve/{revision}/{filename}")
        hub.files["b/long.mp4"] = (videos / "long.mp4").read_bytes()
        assert places.list_place("hf://datasets/me/clips/b") == ["hf://datasets/me/clips/b/long.mp4"]
        path = "hf://datasets/me/clips/b/long.mp4"
        reader = open_video(path)
        assert (reader.get_batch([300, 316]) == open_video(videos / "long.mp4").get_batch([300, 316])).all()
        assert hub.num_bytes == reader.file.num_bytes_read
        assert places.read_place(path) == hub.files["b/long.mp4"]
    hub_package.HfFileSystem.clear_instance_cache()


@needs_http
def test_a_server_without_ranges_is_read_as_a_whole(videos, server):
    server.has_ranges = False
    assert read(f"{server.url}/long.mp4", [3, 500]) == read(videos / "long.mp4", [3, 500])
    assert server.num_bytes == (videos / "long.mp4").stat().st_size


@needs_http
@pytest.mark.parametrize(("failure", "sentence", "kind"), [
    (403, "access is refused (403)", "refused"), (401, "access is refused (401)", "refused"),
    (404, "no such file", "missing"), (418, "the server answers 418", "unreadable"),
    (503, "the server answers 503, after", "unreachable"), (429, "the server answers 429, after", "unreachable"),
    ("drop", "the connection broke", "unreachable"), ("stall", "no answer, after 1 try in", "unreachable"),
])
def test_a_server_that_fails_is_one_sentence(server: RangeServer, failure, sentence, kind, monkeypatch):
    if "after" in sentence or failure == "drop":
        monkeypatch.setenv("TINYACTION_PLACE_SECONDS", "0.4" if failure == "stall" else "1.5")
    server.failure = failure
    with pytest.raises(VideoError) as caught:
        open_video(f"{server.url}/b.mp4?token=secret")
    assert caught.value.reason.startswith(sentence)
    assert caught.value.kind == kind
    assert str(caught.value).startswith(f"{server.url}/b.mp4: ")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("code", ["ExpiredToken", "ExpiredTokenException", "InvalidAccessKeyId"])
def test_keys_that_expired_are_one_sentence(code, monkeypatch):
    """S3 says 400 of a token that has expired."""
    errors = pytest.importorskip("s3fs.errors", reason="of the extra 'cloud'")
    botocore = pytest.importorskip("botocore.exceptions", reason="of the extra 'cloud'")
    answer = {"Error": {"Code": code, "Message": "key id ABC"}, "ResponseMetadata": {"HTTPStatusCode": 400}}

    def refuse(self, path, **_):
        raise errors.translate_boto_error(botocore.ClientError(answer, "GetObject"))

    monkeypatch.setattr(fsspec.get_filesystem_class("memory"), "info", refuse)
    with pytest.raises(PlaceError, match=r"^memory://b/k: access is refused \(400\); the credentials of") as caught:
        PlaceFile("memory://b/k")
    assert caught.value.kind == "refused"
    assert "ABC" not in str(caught.value)


@needs_http
@pytest.mark.parametrize("failure", [503, "drop"])
def test_what_passes_is_tried_again(videos, server: RangeServer, failure):
    server.failure, server.num_failures = failure, 4
    assert read(f"{server.url}/b.mp4", [9]) == read(videos / "b.mp4", [9])


def test_an_unknown_protocol_names_the_extra():
    with pytest.raises(VideoError, match=r"^gopher://host/a.mp4: the protocol gopher:// is unknown; pip install "
                                         r"'tinyaction\[cloud\]'"):
        open_video("gopher://host/a.mp4")


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "aiohttp", None)
    with pytest.raises(PlaceError, match=r"https:// is missing; pip install 'tinyaction\[cloud\]'"):
        PlaceFile("https://host/a.mp4")


@pytest.mark.parametrize(("text", "clean"), [
    ("https://me:key@host/a.mp4?X-Amz-Signature=1#t=2", "https://host/a.mp4"),
    ("s3:/me:key@bucket/a b.mp4", "s3://bucket/a b.mp4"),
    ("two: s3://b/c?versionId=2, https://u@h/d", "two: s3://b/c https://h/d"),
    ("clips/a.mp4", "clips/a.mp4"),
    ("gopher:// is unknown", "gopher:// is unknown"),
    ("C:/clips/a?b.mp4", "C:/clips/a?b.mp4"),
])
def test_secrets_are_taken_out_of_texts(text, clean):
    assert without_secrets(text) == clean


def test_what_is_a_place():
    assert all(map(is_place, ("s3://b/k", "s3:/b/k", "HTTPS://h/a", Path("memory://a/b"))))
    assert not any(map(is_place, ("clips/a.mp4", "C:/clips", "/a:/b", "file:///a", "a:b", "", "12")))
    assert url_of(Path("S3://bucket/key")) == "s3://bucket/key"


def test_blocks_are_fetched_once_and_ahead(monkeypatch):
    monkeypatch.setattr(place_file, "BLOCK_BYTES", 10)
    content = bytes(range(200))
    fsspec.filesystem("memory").pipe_file("/blocks/a", content)
    file = PlaceFile("memory://blocks/a")
    assert file[5:25] == content[5:25]
    assert file.num_bytes_read == 30
    assert file[20:30] == content[20:30]
    assert file.num_bytes_read == 30
    assert file[100:120:7] == content[100:120:7]
    assert file.num_bytes_read == 50
    assert b"".join(file[start : start + 3] for start in range(0, 200, 3)) == content
    assert file.num_bytes_read == 200
    cursor = file.cursor(zeros=[(20, 60)])
    assert cursor.seek(15) == 15
    assert cursor.read(50) == content[15:20] + bytes(40) + content[60:65]
    assert cursor.read(0) == b""
    assert cursor.seek(-5, 2) == 195
    assert cursor.read() == content[195:]


def test_names_in_a_bucket_may_hold_what_begins_a_query_elsewhere():
    assert without_secrets("s3://key:word@b/take#1.mp4") == "s3://b/take#1.mp4"
    assert without_secrets("https://key:word@h/a.mp4?token=1#t") == "https://h/a.mp4"
    assert without_secrets("/data/cam1:/take#1.mp4 is no video") == "/data/cam1:/take#1.mp4 is no video"
