"""Prediction is evaluation without labels: the same numbers, class names and errors."""

from pathlib import Path

import numpy as np
import pytest
import torch
from toys import CLASSES, save_toy, write_clip, write_set

from tinyaction import (
    Predictor,
    VideoDataset,
    VideoError,
    build_dataloader,
    eval_pipeline,
    evaluate,
    find_data,
    load_model,
)

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Five videos that are told apart, and a checkpoint with weights that tell them apart."""
    folder = write_set(tmp_path_factory.mktemp("bars"), num_train=2, num_val=5)
    save_toy(folder / "model.pt")
    return folder


@pytest.mark.parametrize("num_clips", [None, 1, 3])
def test_prediction_equals_evaluation(folder, num_clips):
    model, checkpoint = load_model(folder / "model.pt")
    videos = find_data(folder).val
    arguments = checkpoint.eval_pipeline | ({} if num_clips is None else {"num_clips": num_clips})
    loader = build_dataloader(VideoDataset(videos, eval_pipeline(**arguments), test_mode=True), batch_size=3)
    evaluation = evaluate(model, loader, device=CPU)

    predictor = Predictor(folder / "model.pt", device="cpu", num_clips=num_clips)
    predictions = predictor.predict(evaluation.filenames)
    assert [p.source for p in predictions] == evaluation.filenames
    assert np.array([p.scores for p in predictions]) == pytest.approx(evaluation.scores, abs=1e-6)
    assert np.ptp(evaluation.scores[:, 0]) > 0.01  # the videos do differ, so that equal scores mean something
    assert [p.label for p in predictions] == [CLASSES[row.argmax()] for row in evaluation.scores]


def test_a_prediction(folder):
    video = folder / "val" / "clip 0.mp4"
    prediction = Predictor(folder / "model.pt", device="cpu")(video)
    assert prediction.source == str(video)
    assert sum(prediction.scores) == pytest.approx(1)
    best, other = prediction.top()
    assert best[1] == max(prediction.scores)
    assert {best[0], other[0]} == set(CLASSES)
    assert prediction.top(1) == [best]
    assert prediction.label == best[0]


def test_a_video_is_predicted_the_same_whatever_its_neighbours_and_whatever_was_before(folder):
    predictor = Predictor(folder / "model.pt", device="cpu")
    files = [folder / "val" / f"clip {i}.mp4" for i in (3, 0, 3)]
    first, _, again = predictor.predict(files)
    assert first.scores == again.scores == predictor(files[0]).scores


def test_a_short_video_repeats_frames(folder, tmp_path):
    Predictor(folder / "model.pt", device="cpu")(write_clip(tmp_path / "short.mp4", 0, 0, num_frames=1))


def test_errors_name_what_is_wrong(folder):
    predictor = Predictor(folder / "model.pt", device="cpu")
    with pytest.raises(VideoError, match=r"nowhere\.mp4: no such file"):
        predictor("nowhere.mp4")
    with pytest.raises(FileNotFoundError, match=r"none\.pt: no such checkpoint"):
        Predictor(folder / "none.pt")
    with pytest.raises(ValueError, match="num_clips is 0; it must be at least 1"):
        Predictor(folder / "model.pt", num_clips=0)(folder / "val" / "clip 0.mp4")
