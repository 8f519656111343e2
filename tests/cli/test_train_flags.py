"""What the flags of fine-tuning and of evaluation do in a run, from the command line to the checkpoint."""

import csv
import json
from pathlib import Path

import pytest
import torch
from toys import write_set

from tinyaction import Predictor, create_model
from tinyaction.cli.evaluate import main as evaluate
from tinyaction.cli.train import main, parse_args
from tinyaction.data.annotations import find_data
from tinyaction.models.checkpoint import Checkpoint, load_model
from tinyaction.training.build import build_criterion, build_datasets


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_set(tmp_path_factory.mktemp("bars"), num_train=6, num_val=2)


SMALL = "--clip-len 2 --size 16 --num-workers 0 --device cpu --batch-size 2"


def train(folder: Path, out: Path, flags: str) -> int:
    return main(["--data", str(folder), "--out", str(out), *SMALL.split(), *flags.split()])


def test_the_protocol_travels_in_the_checkpoint(folder, tmp_path, capsys):
    flags = "--epochs 1 --num-clips 2 --num-crops 3 --max-views 4"
    assert train(folder, tmp_path / "run", flags) == 0
    checkpoint = tmp_path / "run" / "best.pt"
    model, content = load_model(checkpoint)
    assert content.eval_pipeline == {"clip_len": 2, "size": 16, "num_clips": 2, "num_crops": 3}
    assert model.max_views == 4
    with open(tmp_path / "run" / "predictions.csv", newline="") as file:
        written = {row["path"]: float(row["class_score"]) for row in csv.DictReader(file)}
    data = find_data(folder)
    predictor = Predictor(checkpoint, device="cpu")
    for filename, label in (data.val[i] for i in range(len(data.val))):
        assert predictor(filename).scores[label] == pytest.approx(written[filename], abs=1e-5)

    capsys.readouterr()
    arguments = ["--data", str(folder), "--checkpoint", str(checkpoint), "--num-workers", "0", "--device", "cpu"]
    assert evaluate(arguments) == 0
    as_trained = capsys.readouterr().out
    assert evaluate([*arguments, "--max-views", "1"]) == 0
    assert capsys.readouterr().out == as_trained
    assert evaluate([*arguments, "--num-crops", "10", "--num-clips", "1"]) == 0
    assert evaluate([*arguments, "--num-crops", "2"]) == 2


def test_what_is_frozen_stays_and_the_average_is_saved(folder, tmp_path):
    """With all frozen only the head moves, and at this rate not far; an average differs from the weights."""
    torch.manual_seed(3)
    assert train(folder, tmp_path / "a", "--epochs 1 --seed 3 --freeze all --lr 1e-12") == 0
    torch.manual_seed(3)
    fresh = create_model("conv2d", 2).state_dict()
    saved = Checkpoint.load(tmp_path / "a" / "last.pt").state_dict
    assert all(saved[name].equal(fresh[name]) for name in fresh if name.startswith("backbone."))
    torch.testing.assert_close(saved["cls_head.fc.weight"], fresh["cls_head.fc.weight"], rtol=0, atol=1e-6)
    for name, flags in (("plain", ""), ("ema", "--ema 0.9")):
        assert train(folder, tmp_path / name, f"--epochs 1 {flags}") == 0
    plain, ema = (Checkpoint.load(tmp_path / name / "last.pt").state_dict for name in ("plain", "ema"))
    assert plain.keys() == ema.keys()
    assert not plain["cls_head.fc.weight"].equal(ema["cls_head.fc.weight"])
    assert not plain["backbone.conv1.1.running_mean"].equal(ema["backbone.conv1.1.running_mean"])


def test_patience_ends_a_run_that_does_not_get_better(folder, tmp_path):
    assert train(folder, tmp_path / "run", "--epochs 9 --freeze all --lr 1e-12 --patience 2") == 0
    with open(tmp_path / "run" / "metrics.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 3  # the first is the best; two more are not better
    assert "stopped after epoch 3: 2 epochs without improvement" in (tmp_path / "run" / "log.txt").read_text()


def test_flags_reach_the_pipeline_and_the_loss(folder):
    config = parse_args(["--data", str(folder), "--model", "conv2d", "--augment", "color", "--crop", "multiscale",
                         "--flip-pairs", "lying=standing", "--mixup", "0.5", "--class-weights",
                         "--label-smoothing", "0.1", "--seed", "4"])
    data = find_data(folder)
    train_set, val_set = build_datasets(config, data)
    text = repr(train_set.pipeline)
    assert "ColorJitter" in text and "VideoMultiScaleCrop" in text and "label_map={0: 1, 1: 0}" in text
    assert "ColorJitter" not in repr(val_set.pipeline)
    goal = build_criterion(config, data)
    assert (goal.mixup, goal.label_smoothing, goal.seed) == (0.5, 0.1, 4)
    assert goal.class_weights.tolist() == [1, 1]
    assert build_criterion(parse_args(["--data", str(folder), "--model", "conv2d"]), data) is None


def test_a_run_with_every_habit_at_once(folder, tmp_path):
    flags = ("--model tsm-conv2d --epochs 2 --freeze 1 --freeze-norms --head-lr-multiplier 10 "
             "--label-smoothing 0.1 --mixup 0.2 --balanced --ema 0.9 --patience 5 "
             "--augment randaugment --optimizer adamw --lr 0.001")
    assert train(folder, tmp_path / "run", flags) == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["freeze"], config["ema"], config["balanced"]) == ("1", 0.9, True)


@pytest.mark.parametrize(("flags", "words"), [
    ("--freeze 3", "--freeze is '3'; it must be all, or a number of stages, 0 to 2"),
    ("--flip-pairs lying=sitting", "'sitting' is no class"),
    ("--model tsm-conv2d --freeze half", "--freeze is 'half'"),
])
def test_what_is_wrong_is_said_before_a_folder_is_made(folder, tmp_path, capsys, flags, words):
    assert train(folder, tmp_path / "run", flags) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
