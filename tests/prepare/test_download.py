"""Fetching over a local server, unpacking archives that mean harm, and what prepare puts in a folder."""

import functools
import io
import re
import shutil
import stat
import struct
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import tinyaction.cli.prepare as prepare
import tinyaction.prepare.download as download
from tinyaction.fetch import fetch_url
from tinyaction.prepare.download import MAX_ARCHIVE_BYTES, prepare_kinetics400_tiny, unpack_zip
from tinyaction.prepare.synthetic import STAND_IN_TITLE, is_stand_in

fetch = functools.partial(fetch_url, max_bytes=MAX_ARCHIVE_BYTES)
CONTENT = bytes(range(256)) * 1000  # 256 kB: several chunks
TRAIN, VAL = "kinetics_tiny_train_video.txt", "kinetics_tiny_val_video.txt"
REAL_SET = {
    f"kinetics400_tiny/{TRAIN}": b"D32_1gwq35E.mp4 0\nwith space.mp4 1\n",
    f"kinetics400_tiny/{VAL}": b"oMrZaozOvdQ.mp4 1\n",
    "kinetics400_tiny/train/D32_1gwq35E.mp4": b"first video",
    "kinetics400_tiny/train/with space.mp4": b"second video",
    "kinetics400_tiny/val/oMrZaozOvdQ.mp4": b"third video",
}


class Server:
    """A local server: ``contents`` by path; some paths misbehave. ``requests`` counts what was asked for."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.contents = {"/content": CONTENT, "/empty": b""}
        self.requests: list[str] = []
        self.closing = threading.Event()  # lets go of the paths that stall


@pytest.fixture
def server() -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.requests.append(self.path)
            if self.path == "/silent":
                state.closing.wait(20)
                return
            if self.path.startswith("/moved"):
                self.send_response(302)
                self.send_header("Location", "/content")
                self.end_headers()
                return
            if self.path in ("/slow-header", "/drops", "/endless"):
                self.pour()
                return
            kind, content = self.path, CONTENT
            if kind not in ("/truncated", "/stalls", "/header-only", "/no-length", "/huge"):
                if kind not in state.contents:
                    self.send_error(404)
                    return
                content = state.contents[kind]
            self.send_response(200)
            if kind != "/no-length":
                self.send_header("Content-Length", str(10**12 if kind == "/huge" else len(content)))
            self.end_headers()
            if kind == "/header-only":
                state.closing.wait(20)
            elif kind in ("/truncated", "/stalls"):
                self.wfile.write(content[:1000])
                if kind == "/stalls":
                    self.wfile.flush()
                    state.closing.wait(20)
            else:
                self.wfile.write(content)

        def pour(self) -> None:
            """A byte now and then, or bytes without end, until the client has gone."""
            drop = b"HTTP/1.0 200 OK\r\nA: " if self.path == "/slow-header" else b"HTTP/1.0 200 OK\r\n\r\n"
            try:
                self.wfile.write(drop)
                while not state.closing.wait(0 if self.path == "/endless" else 0.05):
                    self.wfile.write(bytes(1 << 16) if self.path == "/endless" else b"x")
            except OSError:
                pass

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        state = Server(f"http://127.0.0.1:{http.server_port}")
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield state
        state.closing.set()
        http.shutdown()
        thread.join()


def zipped(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


@pytest.fixture
def write_zip(tmp_path: Path) -> Callable[[dict[str, bytes]], Path]:
    def write(members: dict[str, bytes]) -> Path:
        path = tmp_path / "archive.zip"
        path.write_bytes(zipped(members))
        return path

    return write


# ---- fetch_url ------------------------------------------------------------------------------------------------------


def test_a_file_arrives_whole_and_progress_is_told(server, tmp_path):
    counts = []
    fetch(f"{server.url}/content", tmp_path / "file", on_progress=lambda *count: counts.append(count))
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert counts[-1] == (256_000, 256_000)
    assert counts == sorted(counts) and len(counts) > 3
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(("path", "expected"), [("/moved", CONTENT), ("/no-length", CONTENT), ("/empty", b"")])
def test_other_good_answers(server, tmp_path, path, expected):
    fetch(f"{server.url}{path}", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == expected


def test_a_file_url(tmp_path):
    (tmp_path / "here").write_bytes(CONTENT)
    counts = []
    fetch((tmp_path / "here").as_uri(), tmp_path / "there", on_progress=lambda *count: counts.append(count))
    assert (tmp_path / "there").read_bytes() == CONTENT
    assert counts[-1] == (256_000, 256_000)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/missing", "/missing: the server answers 404"),
        ("/truncated", "/truncated: the connection (ended after 1000 of 256000 bytes|broke)"),
        ("/silent", "/silent: no answer within 0.3 s"),
        ("/header-only", "/header-only: the connection broke .*timed out"),
        ("/slow-header", "/slow-header: no answer within 0.3 s"),
        ("/drops", "/drops: too slow, [0-9]+ bytes in 0.3 s"),
        ("/endless", "/endless: larger than 1 MB; nothing is kept"),
        ("/huge", "/huge: larger than 1 MB; nothing is kept"),
    ],
)
def test_what_does_not_arrive_is_an_error_and_leaves_nothing(server, tmp_path, path, message):
    with pytest.raises(OSError, match=message):
        fetch(f"{server.url}{path}", tmp_path / "file", answer_seconds=0.3, stall_seconds=0.3, max_bytes=1_000_000)
    assert list(tmp_path.iterdir()) == []


def test_the_disk_is_not_filled(server, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("tinyaction.fetch.shutil.disk_usage", lambda path: usage._replace(free=2_000_000))
    with pytest.raises(OSError, match="/endless: larger than 2 MB; nothing is kept"):
        fetch(f"{server.url}/endless", tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


def test_a_stall_after_the_first_byte(server, tmp_path):
    with pytest.raises(OSError, match="/stalls: the connection broke .*timed out"):
        fetch(f"{server.url}/stalls", tmp_path / "file", stall_seconds=0.3)
    assert list(tmp_path.iterdir()) == []


def test_nobody_there(tmp_path):
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as http:
        url = f"http://127.0.0.1:{http.server_port}/file"
    with pytest.raises(OSError, match=f"^{url}: .*refused"):  # the port is closed again
        fetch(url, tmp_path / "file")
    with pytest.raises(OSError, match="no-such-file"):
        fetch((tmp_path / "no-such-file").as_uri(), tmp_path / "file")
    with pytest.raises(ValueError, match="unknown url type"):
        fetch("kinetics400_tiny.zip", tmp_path / "file")


def test_a_failed_fetch_keeps_the_old_file(server, tmp_path):
    (tmp_path / "file").write_text("old")
    with pytest.raises(OSError):
        fetch(f"{server.url}/truncated", tmp_path / "file")
    assert (tmp_path / "file").read_text() == "old"


# ---- unpack_zip -----------------------------------------------------------------------------------------------------


def test_an_archive_is_unpacked(write_zip, tmp_path):
    archive = write_zip({"top/": b"", "top/a.txt": b"a", "top/deep/er/b c.txt": CONTENT, "./dot..s.txt": b"fine"})
    unpack_zip(archive, tmp_path / "out")
    files = {str(path.relative_to(tmp_path / "out")): path.read_bytes()
             for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert files == {"top/a.txt": b"a", "top/deep/er/b c.txt": CONTENT, "dot..s.txt": b"fine"}


@pytest.mark.parametrize("name", ["../outside", "a/../../outside", "/outside", "//outside", "a/..", "C:outside",
                                  "..\\outside", "\\outside", "file:stream"])
def test_nothing_is_written_outside_the_folder(write_zip, tmp_path, name):
    archive = write_zip({"good.txt": b"good", name: b"bad"})
    unpack_zip(archive, tmp_path / "deep" / "out")
    inside = tmp_path / "deep" / "out"
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert all(path.is_relative_to(inside) for path in files if path != archive)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_become_plain_files(tmp_path, kind):
    member = zipfile.ZipInfo("odd")
    member.create_system = 3  # Unix
    member.external_attr = (kind | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.writestr(member, "/etc/passwd")
    unpack_zip(tmp_path / "archive.zip", tmp_path / "out")
    assert stat.S_ISREG((tmp_path / "out" / "odd").lstat().st_mode)


def test_what_is_unpacked_is_limited(write_zip, tmp_path):
    archive = write_zip({"a": bytes(60_000), "b": bytes(60_000)})
    unpack_zip(archive, tmp_path / "fits", max_bytes=120_000, max_members=2)
    with pytest.raises(ValueError, match="2 files of 120000 bytes; at most 100000 of 119999 are"):
        unpack_zip(archive, tmp_path / "out", max_bytes=119_999)
    with pytest.raises(ValueError, match="2 files of 120000 bytes; at most 1 of"):
        unpack_zip(archive, tmp_path / "out", max_members=1)
    assert not (tmp_path / "out").exists()


def test_an_archive_that_lies_about_a_size(write_zip, tmp_path):
    """100,000 zeros of which the headers say 10: not a byte more is unpacked, and what is cut is found."""
    archive = write_zip({"bomb": bytes(100_000)})
    content = archive.read_bytes()
    assert content.count(struct.pack("<L", 100_000)) == 2  # local header, central directory
    archive.write_bytes(content.replace(struct.pack("<L", 100_000), struct.pack("<L", 10)))
    with pytest.raises(ValueError, match="not a whole zip archive .*bomb"):
        unpack_zip(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_damaged_archives(write_zip, tmp_path):
    archive = write_zip({"a": CONTENT[:5000]})
    content = bytearray(archive.read_bytes())
    content[40] ^= 0xFF  # within the packed bytes
    archive.write_bytes(content)
    with pytest.raises(ValueError, match="archive.zip: not a whole zip archive"):
        unpack_zip(archive, tmp_path / "out")
    for broken in (b"", b"<html>log in first</html>", bytes(content[: len(content) // 2])):
        archive.write_bytes(broken)
        with pytest.raises(ValueError, match="archive.zip: not a whole zip archive"):
            unpack_zip(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# ---- prepare_kinetics400_tiny ---------------------------------------------------------------------------------------


@pytest.fixture
def quick_stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins of one empty clip a split: what is tested here is when one is made."""

    def make(folder: Path, *, on_progress: object = None) -> None:
        for split, name in (("train", TRAIN), ("val", VAL)):
            (folder / split).mkdir(parents=True)
            (folder / split / "clip.mp4").touch()
            (folder / name).write_text("clip.mp4 0\n")
        (folder / "README.txt").write_text(STAND_IN_TITLE)

    monkeypatch.setattr(download, "make_stand_in", make)


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_real_set_is_downloaded_once(server, tmp_path):
    server.contents["/set.zip"] = zipped({**REAL_SET, "__MACOSX/junk": b"junk"})
    folder = tmp_path / "data" / "kinetics400_tiny"
    log, counts = [], []
    put = functools.partial(prepare_kinetics400_tiny, folder, url=f"{server.url}/set.zip", log=log.append,
                            on_progress=lambda *count: counts.append(count))
    assert put() == "downloaded"
    expected = {name.removeprefix("kinetics400_tiny/"): content for name, content in REAL_SET.items()}
    assert files_below(tmp_path / "data" / "kinetics400_tiny") == expected
    size = len(server.contents["/set.zip"])
    assert counts[-1] == ("bytes", size, size)
    assert log == [f"fetching {server.url}/set.zip"]
    assert [path.name for path in folder.parent.iterdir()] == ["kinetics400_tiny"]
    assert folder.stat().st_mode & 0o777 == folder.parent.stat().st_mode & 0o777  # not the 700 of a temporary folder

    assert put() == put(force=True) == "present"
    assert server.requests == ["/set.zip"]
    assert files_below(folder) == expected


def without(*names: str) -> dict[str, bytes]:
    return {name: content for name, content in REAL_SET.items() if not name.endswith(names)}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "404"),
        (b"<html>log in first</html>", "not a whole zip archive"),
        (zipped(REAL_SET)[:-30], "not a whole zip archive"),
        (zipped(without(VAL)), "holds no kinetics400_tiny/ with"),
        (zipped(without("with space.mp4")), "lists with space.mp4 but does not hold it"),
        (zipped({**REAL_SET, f"kinetics400_tiny/{VAL}": b"/etc/hostname 0\n"}), "lists hostname but does not hold it"),
        (zipped({**REAL_SET, f"kinetics400_tiny/{TRAIN}": b"no label\n"}), "label"),
    ],
)
def test_where_the_real_set_cannot_be_had_there_is_a_stand_in(quick_stand_in, server, tmp_path, content, reason):
    if content is not None:
        server.contents["/set.zip"] = content
    folder = tmp_path / "data" / "kinetics400_tiny"
    log = []
    assert prepare_kinetics400_tiny(folder, url=f"{server.url}/set.zip", log=log.append) == "stand-in"
    assert is_stand_in(folder)
    assert [path.name for path in folder.parent.iterdir()] == ["kinetics400_tiny"]
    assert log[0] == f"fetching {server.url}/set.zip"
    assert log[1].startswith("the real set cannot be had (") and reason in log[1]
    assert log[2] == f"generating a stand-in in {folder}: moving shapes, not Kinetics"

    before = files_below(folder)
    with pytest.raises(OSError, match=r"the stand-in in .* stays as it is"):
        prepare_kinetics400_tiny(folder, force=True, url=f"{server.url}/set.zip")
    assert files_below(folder) == before
    assert prepare_kinetics400_tiny(folder, url=f"{server.url}/set.zip") == "present"

    server.contents["/set.zip"] = zipped(REAL_SET)
    assert prepare_kinetics400_tiny(folder, force=True, url=f"{server.url}/set.zip") == "downloaded"
    assert not is_stand_in(folder)
    assert len(files_below(folder)) == len(REAL_SET)
    assert [path.name for path in folder.parent.iterdir()] == ["kinetics400_tiny"]


def test_a_server_that_says_nothing_is_waited_for_no_longer_than_asked(quick_stand_in, server, tmp_path):
    folder = tmp_path / "kinetics400_tiny"
    url = f"{server.url}/silent"
    assert prepare_kinetics400_tiny(folder, url=url, answer_seconds=0.2) == "stand-in"


def test_what_a_killed_download_left_is_removed_by_the_next_one(quick_stand_in, server, tmp_path):
    left = tmp_path / f".kinetics400_tiny.{2**22 + 1}.part"             # of a process that cannot be alive
    (left / "unpacked").mkdir(parents=True)
    (left / "archive.zip").write_bytes(CONTENT)
    assert prepare_kinetics400_tiny(tmp_path / "kinetics400_tiny", url=f"{server.url}/missing") == "stand-in"
    assert [path.name for path in tmp_path.iterdir()] == ["kinetics400_tiny"]


def test_nobody_elses_files_are_touched(quick_stand_in, server, tmp_path):
    server.contents["/set.zip"] = zipped(REAL_SET)
    put = functools.partial(prepare_kinetics400_tiny, url=f"{server.url}/set.zip")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "holiday.mp4").touch()
    (tmp_path / "file").write_text("mine")
    for force in (False, True):
        for name in ("mine", "file"):
            with pytest.raises(ValueError, match=f"{name} holds something, but not {TRAIN} and {VAL}"):
                put(tmp_path / name, force=force)
    assert server.requests == []

    put(tmp_path / "set", url=f"{server.url}/missing")
    (tmp_path / "set" / "train" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"notes\.txt is no part of the stand-in; move it away"):
        put(tmp_path / "set", force=True)
    assert (tmp_path / "set" / "train" / "notes.txt").read_text() == "mine"
    assert is_stand_in(tmp_path / "set")


def test_the_stand_in_comes_back_where_the_real_set_cannot_take_its_place(
    quick_stand_in, server, tmp_path, monkeypatch
):
    folder = tmp_path / "kinetics400_tiny"
    prepare_kinetics400_tiny(folder, url=f"{server.url}/missing")
    before = files_below(folder)
    rename = Path.rename

    def refuse_the_new_one(self: Path, target: Path) -> Path:
        if self.parent.name == "unpacked":
            assert not folder.exists()
            raise OSError("refused")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse_the_new_one)
    server.contents["/set.zip"] = zipped(REAL_SET)
    with pytest.raises(OSError, match="refused"):
        prepare_kinetics400_tiny(folder, force=True, url=f"{server.url}/set.zip")
    assert files_below(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == ["kinetics400_tiny"]


def test_an_empty_folder_and_a_link_to_one_are_filled(server, tmp_path):
    server.contents["/set.zip"] = zipped(REAL_SET)
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    assert prepare_kinetics400_tiny(tmp_path / "link", url=f"{server.url}/set.zip") == "downloaded"
    assert len(files_below(tmp_path / "disk")) == len(REAL_SET)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "link"]


# ---- the command ----------------------------------------------------------------------------------------------------


@pytest.fixture
def no_network(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setattr(
        prepare, "prepare_kinetics400_tiny", functools.partial(prepare_kinetics400_tiny, url=f"{server.url}/set.zip")
    )
    return server


@pytest.mark.parametrize("words", [[], ["kinetics400_tiny"]])
def test_the_command_says_what_it_did(no_network, quick_stand_in, tmp_path, monkeypatch, capsys, words):
    monkeypatch.chdir(tmp_path)
    assert prepare.main(words) == 0
    printed = capsys.readouterr().out
    assert "data/kinetics400_tiny: stand-in\nGENERATED CLIPS, NOT KINETICS" in printed
    assert "\r" not in printed  # no terminal, no progress

    assert prepare.main([*words, "--force"]) == 2
    assert capsys.readouterr().err.startswith("error: the real set cannot be had, the stand-in in ")

    no_network.contents["/set.zip"] = zipped(REAL_SET)
    assert prepare.main([*words, "--data", "data/kinetics400_tiny", "--force"]) == 0
    assert capsys.readouterr().out.endswith("data/kinetics400_tiny: downloaded\n")
    assert prepare.main(words) == 0
    assert capsys.readouterr().out == "data/kinetics400_tiny: present\n"


def test_direction_from_the_command(tmp_path, capsys):
    folder = tmp_path / "direction"
    argv = ["direction", "--data", str(folder), "--num-train", "4", "--num-val", "2", "--seed", "7"]
    assert prepare.main(argv) == 0
    assert capsys.readouterr().out == f"{folder}: 4 training and 2 validation clips\n"
    assert len(list((folder / "train").iterdir())) == 4
    assert prepare.main(argv) == 2
    assert "a folder that is not empty" in capsys.readouterr().err
    assert prepare.main(["direction", "--data", str(tmp_path / "odd"), "--num-train", "3"]) == 2
    assert capsys.readouterr().err == "error: num_train is 3; it must be even and at least 2: clips come in twins\n"


@pytest.mark.parametrize("argv", [["nonsense"], ["--nonsense"], ["direction", "--force"], ["--forc"]])
def test_unknown_words_and_flags_exit_with_2(argv, capsys):
    assert prepare.main(argv) == 2
    assert re.fullmatch(r"error: .*; see tinyaction prepare --help\n", capsys.readouterr().err)


def test_progress_on_a_terminal_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    line = prepare.CountLine()
    line("bytes", 500_000, None)
    line("bytes", 500_001, None)  # rounds to the same: nothing is written
    line("clips", 3, 40)
    line.print("done")
    first, then = capsys.readouterr().out.split("\r      \r")
    assert first == "0.5 MB"
    assert re.fullmatch(r"3 of 40 clips, [0-9.]+ a second, [0-9]+ s left\r +\rdone\n", then)
