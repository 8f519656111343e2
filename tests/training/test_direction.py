"""The lesson of "direction", reduced to 60 clips of 32 pixels; scripts/experiments/direction.py has the whole."""

import pytest
import torch

from tinyaction import (
    Updater,
    VideoDataset,
    build_dataloader,
    create_model,
    create_optimizer,
    eval_pipeline,
    evaluate,
    find_data,
    learning_rate,
    train_one_epoch,
    train_pipeline,
)
from tinyaction.prepare.synthetic import make_direction_set
from tinyaction.training.loop import TrainState
from tinyaction.training.shortcuts import of_network

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips") / "direction"
    make_direction_set(folder, num_train=60, num_val=20)
    return find_data(folder)


def accuracy_after(model_name, data, *, num_epochs):
    torch.manual_seed(0)
    model = create_model(model_name, 2, dropout=0.0)
    train_set = VideoDataset(data.train, train_pipeline(clip_len=8, size=32, flip_ratio=0))
    val_set = VideoDataset(data.val, eval_pipeline(clip_len=8, size=32), test_mode=True)
    loader = build_dataloader(train_set, batch_size=6, shuffle=True)
    updater = Updater(
        create_optimizer("adam", model, lr=3e-3),
        lambda step: learning_rate(step, base_lr=3e-3, total_steps=10 * num_epochs, warmup_steps=10),
        clip_grad_norm=40.0,
    )
    for epoch in range(num_epochs):
        loader.set_epoch(epoch)
        train_one_epoch(model, loader, updater, device=CPU, state=TrainState(step=10 * epoch))
    result = evaluate(model, build_dataloader(val_set, batch_size=20), device=CPU)
    changed = {one.name: one.accuracy for one in of_network(model, val_set, result, extent="all")}
    assert changed["all frames"] == result.top1
    return result, changed


def test_a_network_that_averages_its_frames_gives_twins_one_score(data):
    """So it is right on one of each two, whatever it learned."""
    result, changed = accuracy_after("conv2d", data, num_epochs=1)
    assert changed["frames shuffled"] == changed["frames reversed"] == result.top1  # their order is nothing to it
    scores = {name: score for name, score in zip(result.filenames, result.scores, strict=True)}
    twins = {name: name.replace("_right", "_left") for name in scores if "_right" in name}
    assert len(twins) == 10
    for right, left in twins.items():
        assert scores[right] == pytest.approx(scores[left], abs=1e-4)
    assert result.top1 == 0.5


def test_the_shift_makes_the_same_network_see_the_order(data):
    result, changed = accuracy_after("tsm-conv2d", data, num_epochs=5)
    assert result.top1 >= 0.9
    assert 0.4 <= changed["frames shuffled"] <= 0.6
    assert changed["frames reversed"] <= 0.1                           # each class becomes the other
    assert changed["the mean of the frames"] == 0.5                    # twins have the same one
    assert 0.4 <= changed["one middle frame"] <= 0.6
