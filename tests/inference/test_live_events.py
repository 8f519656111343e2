"""Cameras, streams and pipes that come by themselves; events as lines, commands and clips."""

import io
import json
import os
import socket
import sys
import threading
import time
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from toys import CLASSES, bar_frames, save_toy

from tinyaction import Checkpoint, Predictor, open_video
from tinyaction.cli.predict import main as predict
from tinyaction.inference import cameras
from tinyaction.inference.cameras import Moment, Stream, is_stream, moments_of, reconnecting, shown_name
from tinyaction.inference.commands import CommandRunner, parse_command
from tinyaction.inference.events import EventClips
from tinyaction.inference.live import predict_moments
from tinyaction.models.unknown import logits_and_pooled
from tinyaction.video.writer import write_video


def flat(value: int, num: int) -> list[np.ndarray]:
    return [np.full((32, 32, 3), value, np.uint8)] * num


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A network that says "standing" of bright frames and "lying" of dark ones."""
    path = save_toy(tmp_path_factory.mktemp("model") / "model.pt", num_clips=1)
    saved = Checkpoint.load(path)
    predictor = Predictor(path, device="cpu")
    inputs = torch.stack([predictor.inputs_of(np.stack(flat(value, 4))) for value in (20, 220)])
    dark, bright = logits_and_pooled(predictor.model, inputs)[1].clone()  # (F',) each
    direction = (bright - dark) / (bright - dark).square().sum()
    middle = float((bright + dark) @ direction) / 2
    saved.state_dict["cls_head.fc.weight"] = torch.stack([-20 * direction, 20 * direction])
    saved.state_dict["cls_head.fc.bias"] = torch.tensor([20 * middle, -20 * middle])
    saved.save(path)
    return path


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    """Ten frames a second: dark for 4 s, bright for 3 s, dark for 5 s."""
    path = tmp_path_factory.mktemp("video") / "day.ts"
    write_video(path, flat(20, 40) + flat(220, 30) + flat(20, 50), fps=10, codec="mpeg2video")
    return path


ON = ["--on", "standing>0.9 for 0.5s", "--window", "1", "--device", "cpu"]


def test_an_event_is_told_within_one_window_of_its_end(checkpoint, video, capsys):
    assert predict([str(video), "--checkpoint", str(checkpoint), *ON, "--json"]) == 0
    begin, end = map(json.loads, capsys.readouterr().out.splitlines())
    assert (begin["event"], begin["class"], end["event"], end["class"]) == ("begin", "standing", "end", "standing")
    assert 4.0 < begin["start_seconds"] < begin["seconds"] <= 4 + 1 + 0.5 + 0.25       # window, hold, a step of 1/4 s
    assert 7.0 < end["seconds"] <= 7 + 1 + 0.25
    assert begin["source"] == str(video) and begin["score"] > 0.9 and begin["time"] == "0:0" + f"{begin['seconds']:g}"


def test_events_are_lines_and_the_scores_go_into_a_table(checkpoint, video, tmp_path, capsys):
    table = tmp_path / "scores.csv"
    assert predict([str(video), "--checkpoint", str(checkpoint), *ON, "--csv", str(table)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1::2] for line in lines] == [["begin", "standing"], ["end", "standing"]]
    assert len(table.read_text().splitlines()) == 1 + 12 * 4 - 3                       # four a second, after the first
    assert predict([str(video), "--checkpoint", str(checkpoint), "--on", "lying>0.9 for 60s", "--device", "cpu"]) == 0
    assert capsys.readouterr().out == ""


def test_a_clip_shows_the_moment_before_and_after(checkpoint, video, tmp_path, capsys):
    folder = tmp_path / "events"
    assert predict([str(video), "--checkpoint", str(checkpoint), *ON, "--json", "--save-events", str(folder)]) == 0
    begin, _ = map(json.loads, capsys.readouterr().out.splitlines())
    clip, = folder.iterdir()
    assert str(clip) == begin["clip"] and clip.name == f"0001-standing-0-0{begin['seconds']:g}.mp4"
    reader = open_video(clip)
    first, last = begin["start_seconds"] - 3, begin["seconds"] + 3
    assert len(reader) == pytest.approx(10 * (last - first), abs=2) and reader.fps == pytest.approx(10, abs=0.01)
    brightness = [int(frame.mean()) for frame in reader.read(range(len(reader)))]
    assert brightness[round(10 * (3.9 - first))] == pytest.approx(20, abs=8)
    assert brightness[round(10 * (4.2 - first))] == pytest.approx(220, abs=8)


def test_memory_of_a_ring_does_not_grow_and_a_gap_ends_its_clips(tmp_path):
    lines: list[str] = []
    clips = EventClips(tmp_path / "events", kept_seconds=2, on_line=lines.append)
    for number in range(100):
        clips.add(number / 10, flat(number, 1)[0])
    assert len(clips._ring) == 21
    path = clips.begin("../a b", "12:00:00+02:00", seconds=9.9, start_seconds=9.5)
    assert path.parent == tmp_path / "events" and path.name == "0001-a-b-12-00-00-02-00.mp4"
    clips.interrupt()
    clips.add(11, flat(7, 1)[0])
    (tmp_path / "events").mkdir(exist_ok=True)
    clips.close()
    assert len(open_video(path)) == 21 and lines == []
    blocked = EventClips(tmp_path / "events" / path.name, kept_seconds=2, on_line=lines.append)
    blocked.add(0, flat(0, 1)[0])
    blocked.begin("a", "0", seconds=0, start_seconds=0)
    blocked.close()
    assert len(lines) == 1 and "the clip is not saved" in lines[0]


# ---- commands ------------------------------------------------------------------------------------------------------


def values(**given: str) -> dict[str, str]:
    return dict.fromkeys(("label", "score", "time", "seconds", "source", "clip"), "") | given


def run(words: list[str], timeout_seconds: float = 20.0, **given: str) -> list[str]:
    lines: list[str] = []
    runner = CommandRunner(words, on_line=lines.append, timeout_seconds=timeout_seconds)
    runner.run(values(**given))
    runner.close()
    return lines


def test_a_command_gets_values_as_arguments_and_never_through_a_shell(tmp_path):
    out, evil = tmp_path / "out.json", "'; touch evil; echo $(touch evil) \"{time}"
    code = "import json, os, sys; json.dump([sys.argv[2:], os.environ['TINYACTION_LABEL']], open(sys.argv[1], 'w'))"
    words = parse_command(f'"{sys.executable}" -c "{code}" "{out}" --name={{label}} "at {{time}}" {{ }} {{}}')
    assert run(words, label=evil, time="12:00") == []
    assert json.loads(out.read_text()) == [[f"--name={evil}", "at 12:00", "{", "}", "{}"], evil]
    assert os.listdir(tmp_path) == ["out.json"]


@pytest.mark.skipif(os.name == "nt", reason="the script is one of a POSIX shell")
def test_a_command_that_is_missing_fails_or_hangs_is_one_sentence(tmp_path):
    assert run(["no-such-program", "{label}"]) == [
        "--run no-such-program: it cannot be run (no such file or directory)"]
    failing = "import sys; print('no network', file=sys.stderr); sys.exit(3)"
    assert run([sys.executable, "-c", failing]) == [
        f"--run {sys.executable}: it failed with exit code 3 (no network)"]
    begin = time.monotonic()
    script = tmp_path / "hang"
    script.write_text(f"#!/bin/sh\necho $$ > '{tmp_path}/pid'\nsleep 60 &\nsleep 60\n")
    script.chmod(0o755)
    assert run([str(script)], timeout_seconds=2.0) == [f"--run {script}: killed, as it had not ended after 2 s"]
    assert time.monotonic() - begin < 40
    with pytest.raises(ProcessLookupError):                            # not even a zombie is left
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_commands_that_hang_do_not_pile_up():
    lines: list[str] = []
    runner = CommandRunner(["sleep", "60"], on_line=lines.append, timeout_seconds=0.3)
    for _ in range(10):
        runner.run(values(label="fall"))
    assert lines == ["--run sleep: not run for fall, as 8 earlier ones have not ended yet"] * 2
    runner.close()
    assert len(lines) == 10


def test_live_goes_on_without_its_command(checkpoint, video, capsys):
    assert predict([str(video), "--checkpoint", str(checkpoint), *ON, "--run", "no-such-program {time}"]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2
    assert [line.split(": ", 2)[2] for line in err.splitlines()] == [
        "there is no such program here; events are told without it", "it cannot be run (no such file or directory)"]


# ---- streams -------------------------------------------------------------------------------------------------------


def test_which_sources_are_streams(tmp_path, monkeypatch):
    assert [is_stream(source) for source in ("0", "-", "rtsp://a/b", "http://a/b.m3u8", "tcp://a:1", "udp://@:1")
            ] == [True] * 6
    assert [is_stream(source) for source in ("a.mp4", "http://a/b.mp4", "https://a/b.MOV?x=1", "file:///etc/passwd",
                                             "concat://a", "clips/*.mp4", "http://a/clips/", "HTTPS://a/?x=1")
            ] == [False] * 8
    monkeypatch.chdir(tmp_path)
    Path("0").mkdir()
    assert not is_stream("0")
    assert shown_name("rtsp://me:secret@host/a") == "rtsp://host/a"


def test_a_camera_that_drops_is_opened_again_with_a_sentence():
    first, second = flat(1, 2), flat(2, 3)
    tries = iter([ValueError("camera 0: there is none"), ValueError("camera 0: there is none"), second])
    lines, slept, now = [], [], [0.0]

    def broken(frames):
        yield from frames
        raise ValueError("camera 0: it gives no more frames")

    def open_again():
        found = next(tries)
        if isinstance(found, Exception):
            raise found
        return found

    def sleep(seconds):
        slept.append(seconds)
        now[0] += seconds

    frames = reconnecting(broken(first), open_again, name="camera 0", on_line=lines.append, sleep=sleep,
                          clock=lambda: now[0])
    found = [None if frame is None else int(frame[0, 0, 0]) for frame in islice(frames, 8)]
    assert found == [1, 1, None, None, None, 2, 2, 2]
    assert slept == [1, 2, 4]
    assert lines == ["camera 0: it gives no more frames; trying to open it again until it is back",
                     "camera 0: back after 7 s"]


def test_a_slow_network_sees_what_is_now_and_every_gap():
    """Ten frames come while the first is used, with a gap among them; then the camera is unplugged."""
    go, is_read, frame = threading.Event(), threading.Event(), flat(1, 1)[0]

    def moments():
        yield Moment(0, frame)
        go.wait(30)
        for number in range(1, 11):
            yield Moment(number, None if number == 4 else frame)
        is_read.set()
        raise ValueError("unplugged")

    found = cameras.newest(moments(), most_waiting=3)
    assert next(found).seconds == 0
    go.set()
    assert is_read.wait(30)
    time.sleep(0.2)                                                   # the error is in line, too
    assert [(moment.seconds, moment.frame is None) for moment in islice(found, 2)] == [(4, True), (10, False)]
    with pytest.raises(ValueError, match="unplugged"):
        next(found)
    assert [moment.seconds for moment in cameras.newest(map(Moment, range(3), [frame] * 3))] == [0, 1, 2]


def test_no_window_goes_over_a_gap_or_a_change_of_size(checkpoint):
    predictor = Predictor(checkpoint, device="cpu")
    large = np.full((64, 48, 3), 220, np.uint8)
    moments = [Moment(number / 4, frame) for number, frame in enumerate(
        [*flat(20, 5), None, *flat(220, 5), *[large] * 5])]
    found = list(predict_moments(predictor, moments, window_seconds=1))
    labels = [prediction.label if prediction else moment.frame is not None for moment, prediction in found]
    assert labels == [True] * 3 + ["lying"] * 2 + [False] + ([True] * 3 + ["standing"] * 2) + [False] + (
        [True] * 3 + ["standing"] * 2)


def test_frames_that_come_slowly_or_late_are_all_used(checkpoint):
    """A window of 1 s has 4 frames; two a second come, then ten, then none for a while."""
    live = Predictor(checkpoint, device="cpu").live(window_seconds=1)
    frame = flat(20, 1)[0]
    used = []
    for seconds in (0, 0.5, 1.0, 1.5, 1.6, 1.7, 1.8, 1.9, 2.0, 7.0, 7.1, 7.2, 7.3):
        if live.push(frame, seconds=seconds):
            used.append(seconds)
    assert used == [1.5, 1.8, 2.0, 7.0, 7.3]
    with pytest.raises(ValueError, match="has no fps; push each frame with its seconds"):
        live.push(frame)


def test_a_pipe_is_watched_to_its_end(checkpoint, video, capsys, monkeypatch):
    class Pipe(io.RawIOBase):
        """Bytes that cannot be read twice."""

        content = io.BytesIO(video.read_bytes())

        def readable(self):
            return True

        def read(self, size=-1):
            return self.content.read(size)

    monkeypatch.setattr(cameras.sys, "stdin", type("Stdin", (), {"buffer": Pipe()}))
    assert predict(["-", "--checkpoint", str(checkpoint), *ON, "--json"]) == 0
    begin, end = map(json.loads, capsys.readouterr().out.splitlines())
    assert begin["source"] == "standard input" and 4 < begin["seconds"] < 6 and 7 < end["seconds"] <= 8.25
    monkeypatch.setattr(cameras.sys, "stdin", type("Stdin", (), {"buffer": io.BytesIO(b"no video" * 100)}))
    assert predict(["-", "--checkpoint", str(checkpoint), *ON]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: standard input: it cannot be opened as a video (") and error.count("\n") == 1


@pytest.fixture
def server(video):
    """A stream at an address that breaks off after each client has had the whole video."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                connection.sendall(video.read_bytes())

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"tcp://127.0.0.1:{listening.getsockname()[1]}"
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join()


def test_a_stream_is_opened_again_when_it_breaks_off(server, monkeypatch):
    monkeypatch.setattr(cameras, "WAITS", (0.01,))
    monkeypatch.setattr(cameras, "newest", lambda moments: moments)    # all of them
    lines: list[str] = []
    frames = [moment.frame for moment in islice(moments_of(server, on_line=lines.append), 200)]
    assert [number for number, frame in enumerate(frames) if frame is None] == [120]
    assert lines == [f"{server}: it gives no more frames; trying to open it again until it is back",
                     f"{server}: back after 0 s"]


def test_a_stream_that_nobody_serves_is_one_sentence(checkpoint, capsys):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        with pytest.raises(ValueError, match=rf"tcp://127.0.0.1:{port}: it cannot be opened as a video"):
            Stream(f"tcp://127.0.0.1:{port}", timeout_seconds=0.2)     # connects, and nothing comes
    assert predict([f"tcp://me:secret@127.0.0.1:{port}", "--checkpoint", str(checkpoint)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: tcp://127.0.0.1:{port}: it cannot be opened") and "secret" not in error


def test_a_camera_is_watched_for_the_time_given(checkpoint, capsys, monkeypatch):
    class FakeCamera:
        def __init__(self, number):
            assert number == 987

        def __iter__(self):
            while True:
                yield from bar_frames(0, 3, num_frames=5)

    monkeypatch.setattr(cameras, "Camera", FakeCamera)
    assert predict(["987", "--checkpoint", str(checkpoint), "--window", "0.01", "--seconds", "0.05"]) == 0
    assert capsys.readouterr().out.splitlines()[1] == "camera 987"
    assert len(CLASSES) == len(next(Predictor(checkpoint, device="cpu")(987, window_seconds=0.01)).scores)


@pytest.mark.parametrize(("arguments", "message"), [
    (["--on", "standing>8"], "8 is not a score between 0 and 1"),
    (["--on", "sitting>0.8"], "no class of the model; did you mean 'standing'?"),
    (["--run", "notify"], "--run is for events; say with --on what one is"),
    (["--save-events", "events"], "--save-events is for events"),
    (["--on", "standing>0.8", "--run", ""], "--run is empty"),
    (["--on", "standing>0.8", "--run", "notify 'a"], "cannot be split into arguments: no closing quotation"),
    (["--on", "standing>0.8", "--run", "notify {lable}"], "--run has the field {lable}; it must be one of {label}"),
    (["--on", "standing>0.8", "--cool-down", "-1"], "--cool-down is -1.0; it must be at least 0"),
    (["--on", "standing>0.8", "--save-events", "."], "--save-events is ., a folder that is not empty"),
    (["--on", "standing>0.8", "--overlay", "new.mp4"], "--overlay is for video files, not for a camera or --on"),
])
def test_a_wrong_call_is_one_message(checkpoint, video, capsys, arguments, message):
    assert predict([str(video), "--checkpoint", str(checkpoint), *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and message in err
    assert err.count("\n") == (3 if "cannot be read" in err else 1)
