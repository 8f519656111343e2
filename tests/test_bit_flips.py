"""One flipped bit in a file that tinyaction wrote: it is found in one sentence, or changes nothing that is read.

In text that people read and edit (config.json, metrics.csv, predictions.csv, split.csv, clean.csv, the lists of a
store) no checksum tells damage from an edit. There the damage is bounded: one line of the table, one entry of the
config.

Not looked at, as tinyaction does not read them: log.txt, reports and pictures, exported networks, arrays of ``embed``.
"""

import dataclasses
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from toys import save_toy

import tinyaction as ta
from tinyaction.data.annotations import find_data
from tinyaction.files import write_whole
from tinyaction.models.checkpoint import Checkpoint
from tinyaction.prepare.check import CheckedFile, _add_to_cache, _read_cache
from tinyaction.results.features import FeatureCache
from tinyaction.results.run import read_run
from tinyaction.training.config import read_flags
from tinyaction.video import open_video

NUM_FLIPS = 80


def flips(path: Path, *, num: int = NUM_FLIPS) -> Iterator[int]:
    """Flip one bit of a file, yield the number of its byte, and mend it; so many times."""
    whole, rng = path.read_bytes(), random.Random(path.suffix)
    for _ in range(num):
        place = rng.randrange(len(whole))
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << rng.randrange(8)]) + whole[place + 1 :])
        yield place
    path.write_bytes(whole)


def frames_and_times(path: Path) -> tuple:
    reader = open_video(path)
    return reader.get_batch(range(len(reader))).tobytes(), reader.seconds.tobytes(), reader.fps


def weights(path: Path) -> dict:
    checkpoint = Checkpoint.load(path)
    content = {field.name: getattr(checkpoint, field.name) for field in dataclasses.fields(checkpoint)}
    return content | {"state_dict": {name: tensor.numpy().tobytes() for name, tensor in
                                     content["state_dict"].items()}}


@pytest.fixture
def write(tmp_path, stored) -> Callable[[str], Path]:
    """A small file of each kind that is read by programs alone."""

    def do(kind: str) -> Path:
        if kind == "checkpoint":
            return save_toy(tmp_path / "best.pt")
        return stored(format=kind, short_side=16)

    return do


@pytest.mark.parametrize("kind, read", [
    ("checkpoint", weights), ("jpeg", frames_and_times), ("raw", frames_and_times),
])
def test_a_flipped_bit_is_found_or_changes_nothing(kind, read, write):
    path = write(kind)
    expected, num_found = read(path), 0
    for place in flips(path):
        try:
            assert read(path) == expected, f"byte {place}"
        except ValueError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            num_found += 1
    assert num_found > NUM_FLIPS / 2


def test_features_are_computed_again(tmp_path):
    cache = FeatureCache(tmp_path)
    features = np.random.default_rng(0).normal(size=(2, 4, 3, 2, 2)).astype(np.float16)
    cache.write(tmp_path / "a.npz", features)
    num_found = 0
    for place in flips(tmp_path / "a.npz"):
        read = cache.read(tmp_path / "a.npz")
        num_found += read is None
        assert read is None or np.array_equal(read, features), f"byte {place}"
    assert num_found == len(cache.notes) > NUM_FLIPS / 3


def test_a_file_of_the_check_is_checked_again(tmp_path):
    """Digests and hashes there tell copies in both splits: another digit would hide one."""
    videos = [tmp_path / f"{number}.mp4" for number in range(3)]
    for number, video in enumerate(videos):
        video.write_bytes(b"x" * number)
        _add_to_cache(tmp_path / ".check.jsonl", CheckedFile(str(video), num_frames=7, fps=25.0, digest=64 * "a"))
    expected = _read_cache(tmp_path / ".check.jsonl")
    assert len(expected) == 3
    for place in flips(tmp_path / ".check.jsonl", num=200):
        found = _read_cache(tmp_path / ".check.jsonl")
        assert found.items() <= expected.items() and len(found) >= 1, f"byte {place}"  # a lost line break: two


# ---- text that people read ------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    write_whole(folder / "config.json", '{\n  "class_names": ["lying", "standing"],\n  "lr": 0.01,\n  "size": 64\n}\n')
    columns = "epoch,lr,train_loss,train_top1,val_loss,val_top1,val_top5,val_mean_class,seconds\n"
    write_whole(folder / "metrics.csv", columns + "".join(f"{n},0.01,0.5,0.5,0.6,0.7,1,0.7,2.5\n" for n in (1, 2, 3)))
    write_whole(folder / "predictions.csv", "path,class,predicted,correct,score,class_score\n" + "".join(
        f"clips/{n}.mp4,lying,standing,0,0.75,0.25\n" for n in range(5)))
    return folder


def entries_of(run) -> dict[tuple, object]:
    """(file, line, column) -> value."""
    rows = {"metrics": run.history, "predictions": [vars(row) for row in run.predictions], "config": [run.config]}
    return {(name, number, column): value for name, lines in rows.items() for number, row in enumerate(lines)
            for column, value in row.items()}


@pytest.mark.parametrize("name", ["config.json", "metrics.csv", "predictions.csv"])
def test_in_the_text_of_a_run_one_entry_is_another(name, run):
    """Or one column, where the flipped bit is in its name, or the end of the file, behind a quote that opens."""
    expected = entries_of(read_run(run))
    for place in flips(run / name):
        try:
            found = entries_of(read_run(run))
        except ValueError as error:
            assert str(run) in str(error) and "\n" not in str(error)
            continue
        changed = {key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key)}
        assert len({line for _, line, _ in changed}) <= 1 or len({column for *_, column in changed}) <= 2, place


def test_in_a_list_one_line_is_another(tmp_path):
    for label in ("lie", "run", "sit"):
        (tmp_path / label).mkdir()
        for number in range(4):
            (tmp_path / label / f"{number}.mp4").touch()
    find_data(tmp_path)

    def read() -> set:
        data = find_data(tmp_path)
        return {(split, videos.name(i), data.class_names[videos.labels[i]])
                for split, videos in (("train", data.train), ("val", data.val)) for i in range(len(videos))}

    expected = read()
    for place in flips(tmp_path / "split.csv"):
        try:
            found = read()
        except ValueError as error:
            assert str(tmp_path) in str(error) and "\n" not in str(error)
            continue
        assert len(expected - found) <= 2, f"byte {place}"  # a quote joins two lines


def test_flags_of_a_config(tmp_path):
    """What ``train --config`` takes from another run."""
    (tmp_path / "config.json").write_text('{"data": "x", "lr": 0.01, "size": 64, "model": "conv2d", '
                                          '"class_names": ["a", "b"]}')
    expected = read_flags(tmp_path / "config.json")
    for place in flips(tmp_path / "config.json"):
        try:
            found = read_flags(tmp_path / "config.json")
            ta.RunConfig(**found)
        except ValueError as error:
            assert "\n" not in str(error)
            continue
        assert sum(expected.get(name) != found.get(name) for name in expected.keys() | found.keys()) <= 1, place
