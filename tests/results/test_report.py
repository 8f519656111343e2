"""The page and pictures of a run: charts say their numbers, sheets hold the frames, the page needs no other file."""

import base64
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
import torch
import toys

import tinyaction as ta
from tinyaction.cli import main
from tinyaction.cli.train import parse_args
from tinyaction.results import plots
from tinyaction.results.evaluation import EpochRecord, Evaluation, TrainResult
from tinyaction.results.metrics import wilson_interval
from tinyaction.results.neighbors import Neighbor, write_neighbors
from tinyaction.results.plots import (
    Series,
    columns_of,
    confusion_chart,
    line_chart,
    nice_ticks,
    shortened,
    whole_ticks,
)
from tinyaction.results.predictions_table import Originals
from tinyaction.results.report import write_report
from tinyaction.results.report_clips import FoundVideos, spread_over_classes
from tinyaction.results.run import RunFolder, epoch_sort_key, read_run
from tinyaction.results.sheets import MARGIN, PAPER, Strip, clip_frames, data_uri, draw_sheet, fonts_here, has_letter
from tinyaction.training.config import RunConfig
from tinyaction.video.frames import original_of
from tinyaction.video.writer import write_video

NAMES = ["<b>bold</b> & brave", "打字", "left, \"right\"", "typing"]

# ---- charts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("lowest", "highest", "ticks"), [
    (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
    (0, 0.7, [0, 0.2, 0.4, 0.6]),
    (0, 4, [0, 1, 2, 3, 4]),
    (0, 1234, [0, 500, 1000]),
    (0, 3e-4, [0, 1e-4, 2e-4, 3e-4]),
    (3, 3, [3, 3.2, 3.4, 3.6, 3.8, 4]),
])
def test_ticks_are_round(lowest: float, highest: float, ticks: list[float]) -> None:
    assert nice_ticks(lowest, highest) == pytest.approx(ticks)


@pytest.mark.parametrize(("num_epochs", "ticks"), [
    (1, [1]), (3, [1, 2, 3]), (12, [1, 2, 4, 6, 8, 10, 12]), (40, [1, 5, 10, 15, 20, 25, 30, 35, 40]),
    (300, [1, 50, 100, 150, 200, 250, 300]),
])
def test_few_epochs_are_written_below_the_axis(num_epochs: int, ticks: list[int]) -> None:
    assert whole_ticks(range(1, num_epochs + 1)) == ticks


def points_of(svg: str) -> list[list[tuple[float, float]]]:
    lines = re.findall(r'<polyline class="line train" points="([^"]*)"', svg)
    return [[(float(x), float(y)) for x, y in (pair.split(",") for pair in line.split())] for line in lines]


def test_a_line_goes_through_its_values() -> None:
    svg = line_chart([1, 2, 3], [Series("training", [0.0, 1.0, 0.5], "train")], label="accuracy", lowest=0, highest=1)
    left, right = plots.LEFT, plots.WIDTH - plots.RIGHT
    top, bottom = plots.TOP, plots.HEIGHT - plots.BOTTOM
    assert points_of(svg) == [[(left, bottom), ((left + right) / 2, top), (right, (top + bottom) / 2)]]
    assert "<title>epoch 2: training 1</title>" in svg


def test_a_line_is_broken_where_a_value_is_missing() -> None:
    values = [1.0, float("nan"), 3.0, 2.0]
    svg = line_chart([1, 2, 3, 4], [Series("training", values, "train")], label="loss", lowest=0)
    assert [len(line) for line in points_of(svg)] == [1, 2]
    assert svg.count("<circle") == 1  # one point alone is no line: it is a dot
    assert 'points="nan' not in svg and ",nan" not in svg


def test_bars_stand_on_one_another() -> None:
    parts = [Series("computing", [3.0], "computing"), Series("waiting", [1.0], "waiting")]
    svg = plots.stacked_bars([1], parts, label="seconds")
    bars = re.findall(r'class="bar (\w+)" x="[\d.]+" y="([\d.]+)" width="[\d.]+" height="([\d.]+)"', svg)
    (_, low_y, low_height), (_, high_y, high_height) = ((name, float(y), float(height)) for name, y, height in bars)
    assert low_height == pytest.approx(3 * high_height, abs=0.2)
    assert high_y + high_height == pytest.approx(low_y, abs=0.2)
    assert low_y + low_height == pytest.approx(plots.HEIGHT - plots.BOTTOM)


def test_the_matrix_draws_what_is_there_and_escapes_names() -> None:
    matrix = np.array([[3, 1, 0, 0], [0, 4, 0, 0], [0, 0, 0, 0], [2, 0, 0, 2]])
    svg = ElementTree.fromstring(confusion_chart(matrix, NAMES))
    cells = [cell for cell in svg.iter("rect") if "cell" in cell.attrib["class"]]
    titles = [cell.findtext("title") for cell in cells]
    assert titles == [f"{NAMES[0]} → {NAMES[0]}: 3 of 4", f"{NAMES[0]} → {NAMES[1]}: 1 of 4",
                      f"{NAMES[1]} → {NAMES[1]}: 4 of 4", f"typing → {NAMES[0]}: 2 of 4", "typing → typing: 2 of 4"]
    assert [cell.attrib["class"] for cell in cells] == [
        "cell right", "cell wrong", "cell right", "cell wrong", "cell right"]
    columns, rows = ([float(cell.attrib[axis]) - float(cells[0].attrib[axis]) for cell in cells] for axis in "xy")
    assert columns == [0, 56, 56, 0, 168] and rows == [0, 0, 56, 168, 168]  # cells of 56 pixels
    assert [float(cell.attrib["fill-opacity"]) for cell in cells] == [0.8, 0.4, 1.0, 0.6, 0.6]


@pytest.mark.parametrize("num_classes", [2, 60, 400])
def test_nothing_of_the_matrix_lies_outside_its_picture(num_classes: int) -> None:
    names = ["a class with quite a long name, " * 3 + str(number) for number in range(num_classes)]
    svg = ElementTree.fromstring(confusion_chart(np.fliplr(np.eye(num_classes, dtype=np.int64)), names))
    width, height = float(svg.attrib["width"]), float(svg.attrib["height"])
    for cell in svg.iter("rect"):
        assert float(cell.attrib["x"]) + float(cell.attrib["width"]) <= width
        assert float(cell.attrib["y"]) + float(cell.attrib["height"]) <= height
    for text in svg.iter("text"):
        if text.attrib["class"] == "rowname":
            place = float(text.attrib.get("x") or text.attrib["transform"].split()[1].rstrip(")"))  # of its foot
            assert place - 6.7 * columns_of(text.text or "") >= 0
    assert width < 1300


@pytest.mark.parametrize(("text", "columns", "expected"), [
    ("typing", 6, "typing"), ("exercising", 7, "exer…ng"), ("打字打字打字", 7, "打字…字"),
])
def test_a_long_name_loses_its_middle(text: str, columns: int, expected: str) -> None:
    assert shortened(text, columns) == expected
    assert columns_of(shortened(text, columns)) <= columns


@pytest.mark.parametrize(("right", "videos", "interval"), [
    (9, 10, (0.596, 0.982)), (0, 10, (0.0, 0.278)), (900, 1000, (0.880, 0.917)),
])
def test_interval_of_an_accuracy(right: int, videos: int, interval: tuple[float, float]) -> None:
    assert wilson_interval(right, videos) == pytest.approx(interval, abs=0.001)


# ---- sheets --------------------------------------------------------------------------------------------------------


def test_the_frames_of_a_strip_are_spread_over_the_middle_view() -> None:
    inputs = torch.zeros(3, 3, 16, 4, 6, dtype=torch.uint8)
    inputs[1] = torch.arange(16, dtype=torch.uint8)[None, :, None, None]  # every pixel says its frame
    frames = clip_frames(inputs, num_frames=6, side=12)
    assert [int(frame[0, 0, 0]) for frame in frames] == [0, 3, 6, 9, 12, 15]
    assert {frame.shape for frame in frames} == {(8, 12, 3)}
    assert len(clip_frames(inputs[:, :, :2], num_frames=6)) == 2  # a short clip is not stretched


def test_of_several_crops_the_centre_of_the_middle_clip_is_shown() -> None:
    inputs = torch.arange(9, dtype=torch.uint8)[:, None, None, None, None].expand(9, 3, 2, 4, 4).contiguous()
    frames = clip_frames(inputs, num_crops=3)  # views 6, 7, 8 are the centres of clips 0, 1, 2
    assert {int(pixel) for frame in frames for pixel in frame.flat} == {7}


def test_float_inputs_are_no_picture() -> None:
    with pytest.raises(ValueError, match=r"torch.float32 \(1, 3, 2, 4, 4\)"):
        clip_frames(torch.zeros(1, 3, 2, 4, 4))


def test_a_sheet_holds_the_frames_as_they_are_and_its_text_stays_inside() -> None:
    rng = np.random.RandomState(0)
    frames = [rng.randint(0, 256, (40, 50, 3)).astype(np.uint8) for _ in range(3)]
    sheet = draw_sheet("title " * 60, [Strip(frames, "caption " * 60, "note"), Strip(frames, "打字", "n" * 500)],
                       notice="notice " * 60)
    assert (sheet[:, -MARGIN:] == PAPER).all() and (sheet[:, :MARGIN - 2] == PAPER).all()
    places = [(row, column) for row in range(sheet.shape[0] - 40) for column in (MARGIN, MARGIN + 52, MARGIN + 104)
              if (sheet[row : row + 40, column : column + 50] == frames[(column - MARGIN) // 52]).all()]
    assert len(places) == 6
    assert places[0][0] == places[1][0] == places[2][0] < places[3][0]


def test_a_letter_that_no_font_has_is_written_as_its_code() -> None:
    assert not any(has_letter(font, "\U0010fffe") for font in fonts_here(14))
    frame = [np.zeros((8, 8, 3), dtype=np.uint8)]
    unknown, code = (draw_sheet("t", [Strip(frame, text)]) for text in ("a \U0010fffe", "a \\U0010fffe"))
    assert (unknown == code).all()
    assert (unknown != draw_sheet("t", [Strip(frame, "a ?")])).any()


def test_every_class_is_shown_before_one_is_shown_twice() -> None:
    labels = np.array([0, 0, 0, 2, 1, 2, 0])
    assert spread_over_classes(labels, 3) == [0, 4, 3]
    assert spread_over_classes(labels, 5) == [0, 1, 4, 3, 5]
    assert sorted(spread_over_classes(labels, 99)) == list(range(7))


def test_a_video_is_found_where_it_has_moved_to() -> None:
    videos = ta.VideoList(["d/val/a.mp4", "d/val/b.mp4", "d/x/bend/p0.mp4", "d/y/bend/p0.mp4"], [0, 0, 0, 0])
    dataset = ta.VideoDataset(videos, lambda results: results)
    names = ["d/val/b.mp4", "/elsewhere/val/b.mp4", "d-store/val/b.mp4.zip", "d-store/val/a.mp4.npy",
             "d/y/bend/p0.mp4", "e/bend/p0.mp4", "d/val/c.mp4"]
    assert [FoundVideos(dataset).find(name) for name in names] == [1, 1, 1, 0, 3, None, None]  # of two p0.mp4 neither


# ---- a run folder --------------------------------------------------------------------------------------------------

COLOURS = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0)]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Four videos of one colour each; video 0 is right, 1 wrong with 0.6, 2 wrong with 0.9, 3 right."""
    files = [str(tmp_path / "videos" / f"clip, {number}.avi") for number in range(4)]
    (tmp_path / "videos").mkdir()
    for name, colour in zip(files, COLOURS, strict=True):
        write_video(name, [np.full((16, 16, 3), colour, dtype=np.uint8)] * 3, fps=5, codec="ffv1")
    scores = np.array([[0.7, 0.1, 0.1, 0.1], [0.6, 0.3, 0.05, 0.05], [0.02, 0.04, 0.04, 0.9], [0.1, 0.1, 0.3, 0.5]])
    val = Evaluation(0.5, scores, np.arange(4), files, 1.0, 2.0)
    folder = RunFolder(tmp_path / "a run")
    folder.write_config({"data": str(tmp_path / "videos"), "model": "conv2d", "class_names": NAMES, "clip_len": 3,
                         "size": 16, "versions": {"torch": "2"}})
    for epoch in range(2):
        folder.add_metrics(EpochRecord(epoch, 0.01, TrainResult(1.0, 0.5, 4, 1.0, 3.0), val))
    folder.write_predictions(val, NAMES)
    return folder.path


def dataset_of(run: Path) -> ta.VideoDataset:
    saved = read_run(run)
    videos = ta.VideoList([one.filename for one in saved.predictions], range(4), source="list.txt")
    pipeline = ta.Compose([ta.VideoInit(), ta.UniformSample(3, test_mode=True), ta.VideoDecode(), ta.VideoFormat(),
                           ta.VideoPack()])
    return ta.VideoDataset(videos, pipeline, test_mode=True)


class Page(HTMLParser):
    """What stands in a page: its text, its pictures by heading, and whether every tag is closed."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.headings: list[str] = []
        self.pictures: dict[str, list[str]] = {}
        self.links: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "img", "br", "input"):
            self.open.append(tag)
        values = dict(attrs)
        if tag in ("h2", "h3"):
            self.headings.append("")
        if tag == "img":
            self.pictures.setdefault(self.headings[-1], []).append(values["src"] or "")
        self.links += [values[name] or "" for name in ("src", "href", "xlink:href") if name in values]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"style", "script"} & set(self.open):
            return
        self.text += data
        if {"h2", "h3"} & set(self.open):
            self.headings[-1] += data


def colour_of(uri: str) -> list[int]:
    data = base64.b64decode(uri.removeprefix("data:image/jpeg;base64,"))
    picture = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    return [int(round(float(channel) / 250) * 250) for channel in picture.mean(axis=(0, 1))[::-1]]


def test_the_page_shows_the_mistakes_with_their_frames_and_needs_no_other_file(run: Path) -> None:
    page = Page(write_report(run, train_set=dataset_of(run), val_set=dataset_of(run), notice="NOT REAL"))
    mistakes = [heading for heading in page.headings if "predicted" in heading and "true" in heading][1:]
    plain = [heading.replace("\u2068", "").replace("\u2069", "") for heading in mistakes]
    assert plain == ["predicted typing 0.90, true left, \"right\" 0.04 videos/clip, 2.avi",
                     f"predicted {NAMES[0]} 0.60, true 打字 0.30 videos/clip, 1.avi"]  # the most confident first
    assert [colour_of(uri) for uri in page.pictures[mistakes[0]]] == [[0, 0, 250]] * 3
    assert [colour_of(uri) for uri in page.pictures[mistakes[1]]] == [[0, 250, 0]] * 3
    assert all(link.startswith("data:") for link in page.links) and page.links
    assert "http" not in run.joinpath("report.html").read_text(encoding="utf-8").replace("http-equiv", "")
    assert "50.0%" in page.text and "2 of 4 videos" in page.text and "15% and 85%" in page.text
    assert "NOT REAL" in page.text
    assert f"{NAMES[0]} → 打字" not in page.text and f"打字 → {NAMES[0]}: 1 of 1" in page.text
    for name in ("train_clips", "mistakes", "right"):
        assert cv2.imread(str(run / f"{name}.png")) is not None


def test_a_mistake_names_the_training_clips_that_are_most_like_it(run: Path) -> None:
    dataset = dataset_of(run)
    near = [Neighbor("train/q.avi", "typing", 0.987), Neighbor("train/r.avi", "打字", 0.5)]
    write_neighbors(run / "neighbors.csv", {dataset.videos[1][0]: near})
    page = Page(write_report(run, val_set=dataset))
    told = [heading for heading in page.headings if "nearest" in heading]
    assert len(told) == 1 and told[0].endswith(
        "videos/clip, 1.avi; nearest training clips: typing 0.99 (q.avi), 打字 0.50 (r.avi)")


def test_a_report_can_be_made_again_and_names_what_is_lost(run: Path) -> None:
    dataset = dataset_of(run)
    Path(dataset.videos[1][0]).write_bytes(b"no video")
    page = Page(write_report(run, val_set=dataset))
    assert f"{dataset.videos[1][0]}: not a readable video" in page.text
    assert (run / "mistakes.png").exists() and not (run / "train_clips.png").exists()
    write_report(run)
    assert not (run / "mistakes.png").exists()  # an older picture would be taken for this report's


def test_a_training_clip_that_was_skipped_is_not_opened_again(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have ended a worker process, and the report is made in the main process."""
    dataset = dataset_of(run)
    bad = dataset.videos[1][0]
    (run / "bad_files.txt").write_text(f"{bad}\tthe worker process that read it was ended by SIGSEGV\n")
    opened = []
    read = type(dataset).__getitem__
    monkeypatch.setattr(type(dataset), "__getitem__", lambda self, key: opened.append(key[1]) or read(self, key))
    page = Page(write_report(run, train_set=dataset))
    assert 1 not in opened and {0, 2, 3} <= set(opened)
    assert f"{bad}: skipped in training, see bad_files.txt" in page.text


def test_the_page_draws_its_charts_itself(run: Path) -> None:
    """Charts are part of the page; no other file holds them, and nothing outside the core draws them."""
    code = ("import sys, tinyaction.results.report, tinyaction.cli.train\n"
            "sys.modules['matplotlib'] = None\n"
            "tinyaction.results.report.write_report(sys.argv[1])\n"
            "assert 'tensorboard' not in sys.modules")
    subprocess.run([sys.executable, "-c", code, str(run)], check=True)
    assert (run / "report.html").read_text(encoding="utf-8").count('<svg class="chart"') == 5
    assert [path.name for path in run.glob("*.png")] == []  # no videos were given, so there are no sheets either


def test_an_interrupted_report_leaves_the_old_one(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = write_report(run)
    before = page.read_bytes()

    def fail(*arguments: object) -> None:
        raise OSError("the power fails")

    monkeypatch.setattr("tinyaction.files.os.replace", fail)
    with pytest.raises(OSError, match="the power fails"):
        write_report(run, notice="another page")
    assert page.read_bytes() == before and not list(run.glob("*.part"))


def test_predictions_come_back_as_they_were_written(run: Path) -> None:
    saved = read_run(run)
    assert [(one.label, one.predicted, one.score, one.label_score) for one in saved.predictions] == [
        (0, 0, 0.7, 0.7), (1, 0, 0.6, 0.3), (2, 3, 0.9, 0.04), (3, 3, 0.5, 0.5)]
    assert [Path(one.filename).name for one in saved.predictions] == [f"clip, {number}.avi" for number in range(4)]
    assert saved.best == saved.history[0]  # equal epochs: the first, which best.pt holds


def test_the_better_epoch() -> None:
    rows = [{"val_top1": 0.5, "val_loss": 1.0}, {"val_top1": 0.6, "val_loss": 2.0},
            {"val_top1": 0.6, "val_loss": 1.5}, {"val_top1": 0.6, "val_loss": float("nan")}, {}]
    assert max(rows, key=epoch_sort_key) is rows[2]


def test_a_folder_that_is_no_run(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def error(folder: Path) -> str:
        assert main(["report", str(folder)]) == 2
        return capsys.readouterr().err

    assert "nowhere: no such folder" in error(tmp_path / "nowhere")
    assert "no config.json in it" in error(tmp_path)
    with open(run / "predictions.csv", "a", encoding="utf-8") as file:
        file.write("clip.mp4,no such class,typing,0.5,0.5\n")
    assert "predictions.csv, line 6: cannot be read (KeyError('no such class'))" in error(run)
    (run / "predictions.csv").write_text("path,class\n", encoding="utf-8")
    assert "predictions.csv, line 1: no column 'predicted'" in error(run)
    (run / "config.json").write_text("{", encoding="utf-8")
    assert "config.json: not the configuration of a run" in error(run)


# ---- commands ------------------------------------------------------------------------------------------------------


def test_training_leaves_a_report_and_the_command_makes_it_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = toys.write_set(tmp_path / "bars", num_train=4, num_val=4)
    out = tmp_path / "run"
    flags = ["--epochs", "2", "--size", "16", "--clip-len", "2", "--num-workers", "0", "--device", "cpu"]
    tensorboard = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    assert main(["train", "--data", str(data), "--out", str(out), "--tensorboard", *flags]) == 0
    assert f"report:   {out / 'report.html'}" in capsys.readouterr().out
    first = (out / "report.html").read_text(encoding="utf-8")
    assert {"report.html", "train_clips.png", "predictions.csv"} <= {path.name for path in out.iterdir()}

    assert main(["report", str(out)]) == 0
    assert (out / "report.html").read_text(encoding="utf-8") == first

    data.rename(tmp_path / "moved")
    assert main(["report", str(out)]) == 0
    assert "say with --data where the videos are" in capsys.readouterr().out
    assert "were not at hand" in (out / "report.html").read_text(encoding="utf-8")
    assert main(["report", str(out), "--data", str(tmp_path / "moved")]) == 0
    assert (out / "report.html").read_text(encoding="utf-8").count("<img") == first.count("<img") > 0

    events = tensorboard.EventAccumulator(str(out / "tensorboard"))
    events.Reload()
    assert {"loss/train", "loss/val", "top1/train", "top1/val", "lr"} <= set(events.Tags()["scalars"])
    rows = read_run(out).history
    assert [(event.step, event.value) for event in events.Scalars("loss/val")] == [
        (1, pytest.approx(rows[0]["val_loss"], rel=1e-5)), (2, pytest.approx(rows[1]["val_loss"], rel=1e-5))]


def test_tensorboard_is_asked_for_and_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = toys.write_set(tmp_path / "bars", num_train=2, num_val=2)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert main(["train", "--data", str(data), "--out", str(tmp_path / "run"), "--tensorboard"]) == 2
    assert "pip install 'tinyaction[plots]'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_report_that_fails_does_not_lose_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*arguments: object, **named: object) -> Path:
        raise OSError("the disk is full")

    monkeypatch.setattr("tinyaction.training.outcome.write_report", fail)
    data = toys.write_set(tmp_path / "bars", num_train=2, num_val=2)
    assert main(["train", "--data", str(data), "--out", str(tmp_path / "run"), "--epochs", "1", "--size", "16",
                 "--clip-len", "2", "--num-workers", "0", "--device", "cpu"]) == 0
    assert "no report: the disk is full; try again with: tinyaction report" in capsys.readouterr().out


def test_flags_that_are_on_or_off() -> None:
    assert parse_args(["--data", "d", "--tensorboard"]).tensorboard is True
    assert parse_args(["--data", "d"]).tensorboard is RunConfig("d").tensorboard is False


def test_a_data_uri_holds_the_picture() -> None:
    assert colour_of(data_uri(np.full((8, 8, 3), (250, 0, 250), dtype=np.uint8))) == [250, 0, 250]
    assert json.dumps(data_uri(np.zeros((2, 2, 3), dtype=np.uint8))).isascii()


# ---- probes and folds ----------------------------------------------------------------------------------------------


def page_with(run: Path, **facts: object) -> str:
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, **facts}))
    return Page(write_report(run)).text


def test_the_majority_class_stands_beside_the_accuracy(run: Path) -> None:
    """The class with most training videos, which may be another one than that with most validation videos."""
    assert "majority class" not in page_with(run)                      # a run of an earlier version
    assert "25.0%majority classof always saying \u2068typing" in page_with(run, most_frequent_class="typing")


@pytest.mark.parametrize(("probe", "tuned", "words"), [
    (0.75, 0.5, "50.0%fine-tunedworse than the probe, which best.pt is"),
    (0.5, 0.5, "50.0%fine-tunedno better than the probe"),
    (0.5, 0.75, "75.0%fine-tunedbetter than the probe"),
])
def test_the_probe_stands_beside_the_fine_tuned_network(run: Path, probe: float, tuned: float, words: str) -> None:
    text = page_with(run, method="probe-then-finetune", finetune={"val_accuracy": tuned, "epoch": 2},
                     probe={"val_accuracy": probe, "pooling": "stats", "num_folds": 0})
    assert f"{probe:.1%}probe" in text and words in text
    command = f"tinyaction train --config '{run}/config.json' --method probe"
    assert (command in text) == (tuned <= probe)
    assert "best epoch" in text and "seconds an epoch" in text  # it has a course, as a probe alone has not
    assert "seconds an epoch" not in page_with(run, method="probe")


def test_folds_are_a_table_with_mean_and_spread(run: Path) -> None:
    (run / "folds.csv").write_text(
        "fold,videos,train_videos,accuracy,mean_class_accuracy,loss,chosen,num_groups,groups\n"
        "1,2,2,1.0,0.75,0.5,\"stats, L2 strength 0.1\",1,'=Ann\n2,2,2,0.5,0.5,0.5,stats,2,Bo; Cy\n")
    text = page_with(run, folds=2, num_train=4)
    assert "4 videos in 2 folds" in text and "75.0% ± 35.4%mean of 2 folds" in text and "from 50.0% to 100.0%" in text
    assert "=Ann" in text and "Bo; Cy" in text and "stats, L2 strength 0.1" in text
    assert f"tinyaction train --config '{run}/config.json' --final" in text and "tinyaction evaluate" not in text
    assert "is trained on all of them" not in text
    text = page_with(run, final=True)
    assert "is trained on all of them, so none is left to test it" in text
    assert "tinyaction predict" in text and "tinyaction evaluate" not in text


# ---- the table of predictions --------------------------------------------------------------------------------------


def test_a_table_that_is_cut_says_how_many_wrong_ones_it_lacks(run: Path, monkeypatch) -> None:
    monkeypatch.setattr("tinyaction.results.predictions_table.MOST_ROWS", 1)
    assert "3 more clips, 1 of them wrong, are only in predictions.csv." in Page(write_report(run)).text
    monkeypatch.setattr("tinyaction.results.predictions_table.MOST_ROWS", 3)
    assert "1 more clips, all of them right, are only in predictions.csv." in Page(write_report(run)).text


def test_groups_are_a_column_where_there_are_any(run: Path) -> None:
    dataset = dataset_of(run)
    assert '"group"' not in write_report(run, val_set=dataset).read_text()
    dataset.videos.groups = ["anna", "ben", "anna", "carl"]
    page = write_report(run, val_set=dataset).read_text()
    assert '"columns": ["video", "true class", "predicted", "score", "group"]' in page and '"carl"' in page


def test_of_a_store_one_file_is_opened_to_link_them_all(tmp_path: Path, monkeypatch) -> None:
    data = toys.write_set(tmp_path / "bars", num_train=2, num_val=4)
    assert main(["store", "--data", str(data), "--num-workers", "0", "--out", str(tmp_path / "store")]) == 0
    stored = sorted(map(str, (tmp_path / "store" / "val").glob("*")))
    opened: list[str] = []
    monkeypatch.setattr("tinyaction.results.predictions_table.original_of",
                        lambda path: opened.append(path) or original_of(path))
    originals = Originals()
    assert [originals.of(path) for path in stored] == sorted(map(str, (data / "val").glob("*.mp4")))
    assert len(opened) == 1
    (data / "val" / "clip 3.mp4").unlink()                             # no longer there: the stored file is looked at
    assert originals.of(stored[3]) == stored[3] and len(opened) == 2
    assert originals.of("a.mp4") == "a.mp4"
