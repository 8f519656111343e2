"""The benchmark measures what it says, shows how far it is, and its tables fit."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from toys import write_clip, write_set

from tinyaction.cli import bench
from tinyaction.data.pipelines import train_pipeline
from tinyaction.data.transforms import Compose
from tinyaction.results.speed import STAGES, measure_items, measure_loader, measure_model

ROOT = Path(__file__).parents[2]


def test_each_stage_has_the_time_that_it_took(tmp_path):
    """On a clock that moves by a millisecond when it is read, and by half a second in an augmentation."""
    now, repeats = [0.0], []

    class Slow:
        def __call__(self, results):
            now[0] += 0.5
            return results

    def clock():
        now[0] += 0.001
        return now[0]

    files = [str(write_clip(tmp_path / f"{number}.mp4", 0, number)) for number in range(2)]
    usual = train_pipeline(clip_len=2, size=16).transforms
    pipeline = Compose([*usual[:-2], Slow(), *usual[-2:]])
    speeds = measure_items({"videos": files}, pipeline, batch_size=2, repeats=3, clock=clock,
                           on_repeat=lambda: repeats.append(1))["videos"]
    assert set(speeds) == set(STAGES) and len(repeats) == 4
    assert speeds["augment"] == pytest.approx(1 / 0.503)               # a box, a flip and the slow one: three readings
    assert speeds["item"] == pytest.approx(1 / 0.501)
    assert speeds["decode"] == pytest.approx(1 / 0.001)
    assert speeds["collate"] == pytest.approx(2 / 0.001)               # both clips in one batch


def test_a_loader_counts_its_clips(tmp_path):
    class Wait:
        def __call__(self, results):
            time.sleep(0.01)
            return results

    file = str(write_clip(tmp_path / "a.mp4", 0, 0))
    pipeline = Compose([*train_pipeline(clip_len=2, size=16).transforms, Wait()])
    speed = measure_loader([file], pipeline, batch_size=2, num_workers=0, repeats=1)
    assert 0 < speed <= 100                                            # each clip takes at least 10 ms


def test_the_network_has_three_stages():
    speeds = measure_model("conv2d", clip_len=2, size=16, batch_size=2, device=torch.device("cpu"), repeats=1)
    assert list(speeds) == ["to device", "forward", "backward"] and min(speeds.values()) > 0


def test_the_command_prints_a_table_that_fits_and_writes_json(tmp_path, capsys, monkeypatch):
    folder = write_set(tmp_path / "data", num_train=2, num_val=2)
    out = tmp_path / "b.json"
    flags = ["--data", str(folder), "--repeats", "1", "--clip-len", "2", "--size", "16", "--short-side", "24",
             "--batch-size", "2", "--num-workers", "0", "--device", "cpu", "--num-videos", "1", "--cpu-time",
             "--json", str(out)]
    shown = []
    monkeypatch.setattr("tinyaction.cli.progress.CountLine.__call__",
                        lambda line, unit, done, num_all: shown.append((unit, done, num_all)))
    assert bench.main(flags) == 0
    assert shown == [("measurements", number, 14) for number in range(1, 15)]  # 2 x (3 sources + 3 loaders + 1)
    *lines, last = capsys.readouterr().out.splitlines()
    assert last == f"written to {out}"
    assert "1 videos, medians of 1, processor time" in lines
    assert max(map(len, lines)) <= 80
    words = [line.split()[0] for line in lines if line]
    for stage in (*STAGES, "loader", "forward", "step"):
        assert stage in words
    result = json.loads(out.read_text())
    assert set(result["clips_per_second"]) == {"videos", "jpeg", "raw"}
    assert result["clips_per_second"]["raw"]["item"] > 0 and result["model"]["forward"] > 0
    assert result["machine"]["torch"]
    assert [Path(video).name for video in result["videos"]] == ["clip 0.mp4"]
    assert bench.main(flags) == 2
    assert "--json is" in capsys.readouterr().err


def test_large_numbers_fit():
    arguments = bench.parse_args(["--data", "x", "--num-workers", "0", "64"])
    speeds = dict.fromkeys((*STAGES, "loader 0", "loader 64"), 123456789.7)
    items = dict.fromkeys(("videos", "jpeg", "raw"), speeds)
    stores = dict.fromkeys(items, {"bytes": 1e12, "seconds": 1e5})
    lines = [*bench.item_lines(items, arguments), *bench.store_lines(items, stores),
             *bench.model_lines({"forward": 1e9}, items, arguments)]
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(("flags", "message"), [
    (["--repeats", "0"], "--repeats is 0; it must be at least 1"),
    (["--num-workers", "0", "-2"], "--num-workers is -2; it must be at least -1"),
    (["--data", "gone.mp4"], "gone.mp4: no such file"),
    (["--json", "no/where/b.json"], "no such folder to write"),
])
def test_wrong_flags(flags, message, capsys):
    assert bench.main(["--data", "x", *flags]) == 2
    assert message in capsys.readouterr().err


def run_guide(*words):
    """The table of scripts/experiments/guide.py, a list of cells a line."""
    result = subprocess.run([sys.executable, ROOT / "scripts/experiments/guide.py", *words], capture_output=True,
                            text=True)
    assert result.returncode == 0, result.stderr
    return [re.split(r"  +", line.strip()) for line in result.stdout.splitlines()]


def test_the_guides_way_and_ours_give_the_same_pixels(tmp_path):
    pytest.importorskip("decord")
    clip = write_clip(tmp_path / "a.mp4", 0, 1, num_frames=24)
    *_, (name, *numbers, equal) = run_guide(clip, "--repeats", "1")
    assert (name, len(numbers), equal) == ("a.mp4", 5, "yes")


@pytest.mark.slow
def test_comparison_of_a_real_clip(shared):
    """Measured: at least 4 times as fast with equal pixels (the clip is 300 frames of 340x256)."""
    pytest.importorskip("decord")
    *_, (_, _, _, times, _, _, equal) = run_guide(shared / "clips/odd/test.mp4", "--repeats", "3")
    assert equal == "yes" and float(times) > 3
