import json
from pathlib import Path

import numpy as np
import pytest
from toys import write_clip, write_set

from tinyaction.cli import benchmark
from tinyaction.cli.measuring import (
    Comparison,
    Speed,
    compare_with_guide,
    guide_item,
    in_fresh_process,
    our_item,
    peak_bytes,
)


def hold(num_bytes):
    return len(np.ones(num_bytes, np.uint8))



def test_the_guides_way_and_ours_give_the_same_pixels(tmp_path):
    arguments = (str(write_clip(tmp_path / "a.mp4", 0, 1, num_frames=24)), 4, 3, 40, 32)
    theirs = guide_item(*arguments)
    assert theirs.shape == (3, 3, 4, 32, 32) and theirs.dtype == np.uint8
    np.testing.assert_array_equal(our_item(*arguments), theirs)


def test_memory_is_that_of_the_step():
    for num_bytes in (50_000_000, 20_000_000):
        assert peak_bytes(lambda num_bytes=num_bytes: hold(num_bytes)) == pytest.approx(num_bytes, rel=0.1, abs=2e6)


def test_errors_come_back_from_the_other_process():
    """Functions of the package only: the other process does not know this file."""
    with pytest.raises(ValueError, match="gone.mp4: no such file"):
        in_fresh_process(our_item, "gone.mp4", 4, 1, 40, 32)


def test_the_ratios_of_a_comparison():
    each = Comparison("a.mp4", Speed(2.0, 400), Speed(9.0, 100), True)
    assert each.times_faster == 4.5 and each.memory_share == 0.25
    assert Comparison("a.mp4", Speed(2.0, None), Speed(9.0, 100), True).memory_share is None


@pytest.mark.slow
def test_comparison_of_a_real_clip(shared):
    """The expected gain, measured: at least 4 times as fast with equal pixels (the clip is 300 frames of 340x256)."""
    (each,) = compare_with_guide([str(shared / "clips/odd/test.mp4")], repeats=3)
    assert each.equal_pixels
    assert each.times_faster > 3


def test_the_command_prints_a_table_that_fits_and_writes_json(tmp_path, capsys):
    folder = write_set(tmp_path / "data", num_train=2, num_val=2)
    out = tmp_path / "b.json"
    flags = ["--data", str(folder), "--repeats", "1", "--clip-len", "2", "--size", "16", "--short-side", "24",
             "--batch-size", "2", "--num-workers", "0", "--device", "cpu", "--parts", "stages", "--json", str(out)]
    assert benchmark.main(flags) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert last == f"written to {out}"
    assert max(map(len, lines)) <= 80
    words = [line.split()[0] for line in lines if line]
    for stage in ("open", "decode", "resize", "augment", "pack", "item", "collate", "loader"):
        assert stage in words
    result = json.loads(out.read_text())
    assert set(result["stages"]) == {"videos", "jpeg", "raw"}
    assert result["stages"]["raw"]["item"]["clips_per_second"] > 0
    assert result["machine"]["torch"]
    assert [Path(video).name for video in result["videos"]] == ["clip 0.mp4", "clip 1.mp4"]


def test_the_tables_of_model_and_guide_fit():
    arguments = benchmark.parse_args(["--data", "x"])
    speeds = {stage: Speed(123456.7, 10**10) for stage in ("to device", "forward", "backward")}
    loaders = {f"loader {workers}": Speed(1e9, None) for workers in arguments.num_workers}
    lines = benchmark.model_lines(speeds, arguments, {name: loaders for name in ("videos", "jpeg", "raw")})
    lines += benchmark.guide_lines([Comparison("a very long name of a clip.mp4", Speed(1234.5, 10**10),
                                               Speed(9e4, None), False)])
    assert max(map(len, lines)) <= 80 and "NO" in lines[-1]


@pytest.mark.parametrize(("flags", "message"), [
    (["--repeats", "0"], "--repeats is 0; it must be at least 1"),
    (["--num-workers", "-1"], "--num-workers is -1; it must be at least 0"),
    (["--data", "gone.mp4", "--parts", "stages"], "gone.mp4: no such file"),
])
def test_wrong_flags(flags, message, capsys):
    assert benchmark.main(["--data", "x", *flags]) == 2
    assert message in capsys.readouterr().err
