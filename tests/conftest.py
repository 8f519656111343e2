"""What tests share: the folder of real clips and numbers, and generated clips that are their own answer key."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from toys import pictures, telling_frames

from tinyaction.prepare.stored_file import StoreSettings, store_video
from tinyaction.prepare.synthetic import make_stand_in
from tinyaction.video.frames import FORMATS
from tinyaction.video.writer import write_video

if "PYTEST_XDIST_WORKER" in os.environ:  # several processes of tests share the cores: one thread for each and its own
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
signal.signal(signal.SIGINT, signal.default_int_handler)  # nohup and & have them ignored, and so would all processes
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real clips and reference numbers; without it the test is skipped."""
    folder = os.environ.get("TINYACTION_SHARED", "")
    if not folder:
        pytest.skip("TINYACTION_SHARED is not set: it names the folder of real clips and reference numbers")
    if not Path(folder).is_dir():
        pytest.skip(f"TINYACTION_SHARED is {folder!r}, and there is no such folder")
    return Path(folder)


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The generated stand-in of the tutorial's set, made once: it takes ten seconds. Only for reading."""
    folder = tmp_path_factory.mktemp("data") / "kinetics400_tiny"
    make_stand_in(folder)
    return folder


@pytest.fixture
def telling_clip(tmp_path: Path) -> Callable[..., Path]:
    """Write ``telling_frames`` to a lossless file, so that decoded pixels say which frame, row and column they are."""

    def make(num_frames: int = 24, height: int = 32, width: int = 48, name: str = "telling.avi") -> Path:
        path = tmp_path / name
        write_video(path, telling_frames(num_frames, height, width), fps=25, codec="ffv1", replace=True)
        return path

    return make


@pytest.fixture
def stored(tmp_path, telling_clip):
    """Store the telling clip with settings and open what was written."""

    def do(**settings):
        target = tmp_path / f"clip{FORMATS[settings.get('format', 'jpeg')]}"
        store_video(telling_clip(), target, StoreSettings(**settings))
        return target

    return do


@pytest.fixture
def frame_folder(tmp_path):
    def do(num=6, name="img_{:05}.png", first=1, folder="frames"):
        path = tmp_path / folder
        path.mkdir(parents=True, exist_ok=True)
        for number, picture in enumerate(pictures(num), start=first):
            (path / name.format(number)).write_bytes(picture)
        return path

    return do


@pytest.fixture(autouse=True)
def no_fetching(monkeypatch: pytest.MonkeyPatch) -> None:
    """--model auto finds no weights: tests ask nothing of the network."""
    monkeypatch.setattr("tinyaction.training.auto.fetch_file", _refuse)


def _refuse(address: str) -> None:
    raise ValueError(f"{address} is not fetched in tests")


@pytest.fixture(scope="session", autouse=True)
def own_ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the list of the outputs of these tests out of the user's cache folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield
