"""The table of predictions in a real browser: sorting, filtering, cells of the matrix, clips, names that are text."""

import functools
import shutil
import threading
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from tinyaction.results.evaluation import EpochRecord, Evaluation, TrainResult
from tinyaction.results.report import write_report
from tinyaction.results.run import RunFolder
from tinyaction.results.timeline import Timeline
from tinyaction.results.timeline_metrics import Segment
from tinyaction.results.timeline_report import leave_timelines
from tinyaction.video.writer import write_video

CLASSES = ["clap", "</script><script>document.title = 'run'</script>", "wave"]


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="the extra browser (playwright) is not installed")
    with api.sync_playwright() as play:
        try:
            found = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        except api.Error as error:
            pytest.skip(f"no Chromium to start: {str(error).splitlines()[0]}")
        yield found
        found.close()


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run over 250 clips, the first wrong ones, one of them there as a file."""
    folder = tmp_path_factory.mktemp("page")
    N = 250
    labels = np.arange(N) % 3
    predicted = labels.copy()
    predicted[:20] = (labels[:20] + 1) % 3
    scores = np.full((N, 3), 0.1)
    scores[np.arange(N), predicted] = 0.5 + 0.4 * np.arange(N) / N
    names = [str(folder / "videos" / f"clip {number}.mp4") for number in range(N)]
    (folder / "videos").mkdir()
    frames = np.random.default_rng(0).integers(0, 255, (12, 64, 64, 3), dtype=np.uint8)
    write_video(names[1], list(frames), fps=12)
    val = Evaluation(0.5, scores, labels, names, 0.0, 0.0)
    writer = RunFolder(folder / "run")
    writer.write_config({"class_names": CLASSES, "data": "videos", "model": "conv2d"})
    for epoch in range(3):
        writer.add_metrics(EpochRecord(epoch, 0.1, TrainResult(0.7, 0.5, 6, 0.0, 0.0), val))
    writer.write_predictions(val, CLASSES)
    writer.close()
    return write_report(folder / "run").parent


@contextmanager
def opened(browser, folder: Path, *, width: int = 390, is_served: bool = True):
    """The page from a server of its folder, which does not let a browser go to a second of a video; or from disk."""
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(folder.parent))
    handler.log_message = lambda *_: None
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    page = browser.new_page(viewport={"width": width, "height": 800})
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"http://127.0.0.1:{server.server_port}/{folder.name}/report.html" if is_served else
              (folder / "report.html").as_uri())
    yield page
    page.close()
    server.shutdown()
    server.server_close()
    thread.join()
    assert errors == []


@pytest.fixture
def page(browser, run):
    with opened(browser, run) as page:
        yield page


def cells(page, column: int) -> list[str]:
    return page.locator(f"#clips tbody tr td:nth-child({column})").all_inner_texts()


def test_names_are_text_and_a_phone_shows_the_page_without_scrolling_sideways(page):
    assert page.title() == "run · tinyaction"
    assert CLASSES[1] in cells(page, 2)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for box in (one.bounding_box() for one in page.locator("#clips tbody tr").first.locator("td").all()):
        assert box["x"] >= 0 and box["x"] + box["width"] <= 390        # the button too


def test_sorting_by_any_column_both_ways(page):
    scores = [float(text) for text in cells(page, 4)]
    assert scores == sorted(scores, reverse=True) and len(scores) == 100  # a hundred at once
    page.click("#clips th[data-column='3'] button")
    scores = [float(text) for text in cells(page, 4)]
    assert scores == sorted(scores) and page.get_attribute("#clips th[data-column='3']", "aria-sort") == "ascending"
    page.click("#clips th[data-column='0'] button")
    assert [Path(name).stem for name in cells(page, 1)[:3]] == ["clip 0", "clip 1", "clip 2"]  # not 0, 1, 10
    page.click("#clips-more")
    assert len(cells(page, 1)) == 200


def test_filters_and_their_end(page):
    page.select_option("#clips-which", "wrong")
    assert page.inner_text("#clips-count") == "20 of 250 clips" and len(cells(page, 1)) == 20
    page.fill("#clips-search", "clip 1.mp4")
    assert page.inner_text("#clips-count") == "1 of 250 clips"
    page.click("#clips-reset")
    assert page.inner_text("#clips-count") == "250 of 250 clips"


def test_a_cell_of_the_matrix_lists_its_clips_by_mouse_and_keyboard(page):
    page.click(".matrix .cell[data-true='0'][data-predicted='1']")
    assert page.inner_text("#clips-count") == f"7 of 250 clips, clap predicted as {CLASSES[1]}"
    assert set(cells(page, 2)) == {"clap"} and set(cells(page, 3)) == {CLASSES[1]}
    page.focus(".matrix .cell[data-true='2'][data-predicted='2']")
    page.keyboard.press("Enter")
    assert set(cells(page, 2)) == set(cells(page, 3)) == {"wave"}


def test_a_clip_plays_where_it_is_and_is_named_where_not(page):
    page.fill("#clips-search", "clip 1.mp4")
    page.click("#clips tbody button")
    page.wait_for_function("document.querySelector('#clips video') === null"
                           " || document.querySelector('#clips video').readyState > 0")
    video = page.locator("#clips video")
    if video.count():                                  # a browser without H.264 says so instead
        assert page.evaluate("document.querySelector('#clips video').duration") == pytest.approx(1, abs=0.1)
    else:
        assert "cannot play the file" in page.inner_text("#clips .clip")
    page.click("#clips tbody button")
    assert page.locator("#clips .clip").count() == 0
    page.fill("#clips-search", "clip 2.mp4")
    page.click("#clips tbody button")
    assert "was not there when this page was made" in page.inner_text("#clips .clip")


@pytest.fixture(scope="module")
def timelines(tmp_path_factory) -> Path:
    """An evaluation of two videos, the first one there as a file and wrong in its first half."""
    folder = tmp_path_factory.mktemp("timelines")
    frames = np.random.default_rng(0).integers(0, 255, (40, 64, 64, 3), dtype=np.uint8)
    write_video(folder / "long 1.mp4", list(frames), fps=10)
    names, steps = [*CLASSES, "background"], np.repeat([3, 1, 2, 3], 10)
    told = np.where(np.arange(40) < 20, np.repeat([3, 0, 2, 3], 10), steps)
    videos = [Timeline(str(folder / name), names, np.eye(4, dtype=np.float32)[labels], 0.1, 4.0, False)
              for name, labels in (("long 10.mp4", steps), ("long 1.mp4", told))]
    true = [Segment(1, 2, CLASSES[1]), Segment(2, 3, "wave")]
    writer = RunFolder(folder / "evaluated")
    leave_timelines(writer, {"task": "timeline", "evaluated": "run", "class_names": names, "num_val": 2, "stride": 0.1,
                             "model": "conv2d", "data": "videos", "clip_len": 1, "size": 64}, videos, [true, true])
    writer.close()
    return write_report(folder / "evaluated").parent


@pytest.mark.parametrize("width", [390, 1200])
def test_tracks_are_text_read_with_the_keyboard_and_played(browser, timelines, width):
    with opened(browser, timelines, width=width, is_served=False) as page:
        assert page.title() == "evaluated · tinyaction"                # no class ran
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        names = page.locator("figure.tracks figcaption").all_inner_texts()
        assert "long 1.mp4" in names[0] and "75.0%" in names[0] and "100.0%" in names[1]
        first = page.locator("figure.tracks").first
        assert not first.locator("video").is_visible()                 # before it is asked for
        first.locator(".band").nth(1).locator("[tabindex='0']").focus()
        assert first.locator(".told").inner_text() == "predicted: clap, 0:01 to 0:02, score 1.00"
        page.keyboard.press("ArrowRight")
        assert first.locator(".told").inner_text() == "predicted: wave, 0:02 to 0:03, score 1.00"
        first.locator(".seg").first.hover()
        assert first.locator(".told").inner_text() == f"true: {CLASSES[1]}, 0:01 to 0:02"
        left, right = (first.locator(".seg").nth(number).bounding_box() for number in (0, 1))
        assert left["x"] + left["width"] == pytest.approx(right["x"], abs=1)
        first.locator(".seg").nth(1).click()
        page.wait_for_function("document.querySelector('figure.tracks video').readyState > 0"
                               " || document.querySelector('figure.tracks video').hidden")
        if first.locator("video").is_visible():
            assert page.evaluate("document.querySelector('figure.tracks video').currentTime") >= 2
        else:
            assert "cannot play the file" in first.locator(".told").inner_text()


def test_tracks_are_searched_ordered_and_widened(browser, timelines):
    with opened(browser, timelines) as page:
        assert page.inner_text("#tracks-count") == "2 of 2 videos"
        page.fill("#tracks-search", "clap")                            # told in one of them only
        assert page.inner_text("#tracks-count") == "1 of 2 videos"
        assert page.locator("figure.tracks:visible").count() == 1
        page.fill("#tracks-search", "")
        page.select_option("#tracks-order", "name")
        assert [name.split()[1] for name in page.locator("figure.tracks figcaption").all_inner_texts()] == [
            "1.mp4", "10.mp4"]
        before = page.locator(".wide").first.bounding_box()["width"]
        page.select_option("#tracks-zoom", "4")
        assert page.locator(".wide").first.bounding_box()["width"] == pytest.approx(4 * before, abs=1)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
