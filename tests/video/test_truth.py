"""Files as phones, cutters, recorders and converters write them, against what ffmpeg shows of each, upright.

Skipped where TINYACTION_SHARED is not set; test_codecs.py holds what can be generated.
"""

import json
import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from tinyaction.data.dataset import VideoDataset, build_dataloader
from tinyaction.data.transforms import Compose, VideoDecode, VideoInit
from tinyaction.sample import DataSample
from tinyaction.video import open_video

FOLDER = Path(os.environ.get("TINYACTION_SHARED", ""), "clips/files")
TRUTH = json.loads((FOLDER / "truth.json").read_text()) if (FOLDER / "truth.json").is_file() else {}
MAX_SECONDS, MAX_DIFFERENCE = 0.002, 4


def cell_means(frame):
    """(H, W, 3) to (8, 8, 3): the mean of each of 8 x 8 cells."""
    rows, columns = (np.linspace(0, side, 9).astype(int) for side in frame.shape[:2])
    return np.array([[frame[rows[y] : rows[y + 1], columns[x] : columns[x + 1]].mean((0, 1)) for x in range(8)]
                     for y in range(8)])


def largest_difference(frames, cells):
    """Of any frame from its cells in the truth, on average."""
    return max(np.abs(cell_means(frame) - cell).mean() for frame, cell in zip(frames, cells, strict=True))


@pytest.fixture(scope="module")
def all_cells(shared):
    with np.load(shared / "clips/files/truth.npz") as archive:
        return {name: archive[name].astype(float) for name in archive.files}


@pytest.mark.parametrize("name", sorted(TRUTH))
def test_a_file_is_read_as_its_player_shows_it(name, all_cells):
    truth, cells = TRUTH[name], all_cells[name]
    reader = open_video(FOLDER / name)
    N = len(reader)
    assert N == truth["num_frames"]
    assert np.abs(reader.seconds - truth["seconds"]).max() < MAX_SECONDS
    assert 0 <= reader.fps < 10_000
    in_turn = list(reader.read(range(N)))
    assert {frame.shape for frame in in_turn} == {(truth["height"], truth["width"], 3)}
    assert largest_difference(in_turn, cells) < MAX_DIFFERENCE
    rng = random.Random(name)
    for _ in range(8):  # sparsely, each from a reader of its own
        indices = sorted(rng.sample(range(N), rng.randint(2, min(N, 16))))
        frames = list(open_video(FOLDER / name).read(indices))
        assert largest_difference(frames, cells[indices]) < MAX_DIFFERENCE
        assert all(np.array_equal(frame, in_turn[index]) for frame, index in zip(frames, indices, strict=True))
    for index in rng.sample(range(N), min(N, 20)) + [N - 1, 0]:  # one alone, there and back
        assert np.array_equal(reader.get_batch([index])[0], in_turn[index])


def every_fifth(results):
    """A transform: the cells (N, 8, 8, 3) of every fifth frame instead of a clip."""
    results["frame_inds"] = np.arange(0, results["total_frames"], 5)
    cells = np.array([cell_means(frame) for frame in VideoDecode()(results)["imgs"]])
    sample = DataSample(None, (8, 8), num_clips=1, clip_len=len(cells), filename=results["filename"])
    return {"inputs": torch.from_numpy(cells), "data_samples": sample}


def test_files_are_right_in_a_loader_with_workers(all_cells, tmp_path):
    listed = tmp_path / "list.txt"
    listed.write_text("".join(f"{name} 0\n" for name in sorted(TRUTH)))
    dataset = VideoDataset(listed, Compose([VideoInit(), every_fifth]), data_prefix=FOLDER)
    loader = build_dataloader(dataset, batch_size=1, num_workers=2)
    found = {Path(batch["data_samples"][0].filename).name: batch["inputs"][0].numpy() for batch in loader}
    assert sorted(found) == sorted(TRUTH) != []
    for name, cells in found.items():
        assert np.abs(cells - all_cells[name][::5]).mean((1, 2, 3)).max() < MAX_DIFFERENCE, name
