"""The table of predictions in a real browser: sorting, filtering, cells of the matrix, clips, names that are text."""

import functools
import shutil
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from tinyaction.results.evaluation import EpochRecord, Evaluation, TrainResult
from tinyaction.results.report import write_report
from tinyaction.results.run import RunFolder
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


@pytest.fixture
def page(browser, run):
    """The page through a server of its folder, as a browser plays no file:// video of another folder everywhere."""
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(run.parent))
    handler.log_message = lambda *_: None
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    page = browser.new_page(viewport={"width": 390, "height": 800})
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"http://127.0.0.1:{server.server_port}/run/report.html")
    yield page
    page.close()
    server.shutdown()
    server.server_close()
    thread.join()
    assert errors == []


def cells(page, column: int) -> list[str]:
    return page.locator(f"#clips tbody tr td:nth-child({column})").all_inner_texts()


def test_names_are_text_and_a_phone_shows_the_page_without_scrolling_sideways(page):
    assert page.title() == "run · tinyaction"
    assert CLASSES[1] in cells(page, 2)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


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
