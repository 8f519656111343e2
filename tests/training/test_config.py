"""The fields of a run are its flags."""

import argparse
import json
import re
import shlex
from dataclasses import asdict, fields, replace

import pytest

from tinyaction.cli import main
from tinyaction.cli.flags import add_flags
from tinyaction.cli.train import parse_args
from tinyaction.training.config import RunConfig


def test_each_field_is_a_flag_with_its_default_and_its_text():
    parser = argparse.ArgumentParser()
    add_flags(parser)
    text = " ".join(parser.format_help().split())
    for field in fields(RunConfig):
        assert "--" + field.name.replace("_", "-") in text
        assert field.metadata["help"] in text
        for choice in field.metadata["choices"]:
            assert str(choice) in text
    assert RunConfig(**vars(parser.parse_args(["--data", "clips"]))) == RunConfig("clips")


def test_the_flags_that_were_promised():
    """Those of the issue, by name; a script may rely on them."""
    names = "data model epochs batch_size lr optimizer num_workers clip_len num_clips size seed device out".split()
    assert set(names) <= {field.name for field in fields(RunConfig)}


def test_each_flag_arrives():
    argv = ("--data d --model conv3d --epochs 2 --batch-size 3 --lr 0.5 --optimizer adam --weight-decay 0.25 "
            "--warmup-epochs 1.5 --clip-grad-norm 2 --num-workers 4 --clip-len 5 --num-clips 6 --train-clips 7 "
            "--size 8 --flip 0 --seed 9 --device cpu --tensorboard --out o --head-lr-multiplier 2.5 --freeze all "
            "--freeze-norms --label-smoothing 0.125 --mixup 0.25 --class-weights --ema 0.75 "
            "--patience 4 --augment color "
            "--crop multiscale --num-crops 3 --max-views 11 --flip-pairs a=b --store raw --grad-accum 2 "
            "--amp bf16 --compile").split()
    expected = {
        "data": "d", "model": "conv3d", "epochs": 2, "batch_size": 3, "lr": 0.5, "optimizer": "adam",
        "weight_decay": 0.25, "warmup_epochs": 1.5, "clip_grad_norm": 2.0, "num_workers": 4, "clip_len": 5,
        "num_clips": 6, "train_clips": 7, "size": 8, "flip": 0.0, "seed": 9, "device": "cpu", "tensorboard": True,
        "out": "o", "head_lr_multiplier": 2.5, "freeze": "all", "freeze_norms": True,
        "label_smoothing": 0.125, "mixup": 0.25,
        "class_weights": True, "balanced": False, "ema": 0.75, "patience": 4, "augment": "color",
        "crop": "multiscale", "num_crops": 3, "max_views": 11, "flip_pairs": "a=b",
        "store": "raw", "grad_accum": 2, "amp": "bf16", "compile": True}
    assert {name: value for name, value in asdict(parse_args(argv)).items() if name in expected} == expected
    assert parse_args(["--data", "d", "--balanced"]).balanced
    assert not parse_args("--data d --model r3d_18 --weights kinetics --no-freeze-norms".split()).freeze_norms


@pytest.mark.parametrize(("argv", "expected"), [
    ("--model conv2d", (8, 64, "sgd", 0.01, 30, 1.0, False)),
    ("--model tsm-conv2d", (8, 64, "sgd", 0.01, 30, 1.0, False)),
    ("--model tsm-resnet18 --weights imagenet", (8, 224, "adamw", 5e-5, 20, 1.0, True)),
    ("--model tsm-resnet18 --weights imagenet --method finetune", (8, 224, "adamw", 2e-4, 20, 10.0, True)),
    ("--model tsm-resnet18", (8, 224, "sgd", 0.01, 50, 1.0, False)),
    ("--model r3d_18 --weights kinetics", (16, 112, "adamw", 5e-5, 20, 1.0, True)),
    ("--model tsm-resnet18 --weights imagenet --size 112 --lr 0.1 --epochs 3", (8, 112, "adamw", 0.1, 3, 1.0, True)),
])
def test_what_no_flag_says_comes_from_the_recipe(argv, expected):
    config = parse_args(["--data", "d", *argv.split()])
    names = ("clip_len", "size", "optimizer", "lr", "epochs", "head_lr_multiplier", "freeze_norms")
    assert tuple(getattr(config, name) for name in names) == expected
    assert all(value is not None for value in asdict(config).values())


def test_workers_are_one_a_core_at_most_eight(monkeypatch, tmp_path):
    quota = tmp_path / "cpu.max"
    monkeypatch.setattr("tinyaction.device.CPU_QUOTA", quota)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(3)), raising=False)
    assert RunConfig("d").num_workers == 3
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert RunConfig("d").num_workers == 8
    assert RunConfig("d", num_workers=0).num_workers == 0
    quota.write_text("max 100000\n")
    assert RunConfig("d").num_workers == 8
    quota.write_text("250000 100000\n")  # a container's two cores and a half of the 64
    assert RunConfig("d").num_workers == 2
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert RunConfig("d").num_workers == 1


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ("--data d --grad-accum 0", "--grad-accum is 0; it must be at least 1"),
        ("--data d --store zip", "--store is 'zip'; it must be jpeg or raw"),
        ("--data d --amp int8", "--amp is 'int8'; it must be auto, off, bf16 or fp16"),
        ("--data d --epochs 0", "--epochs is 0; it must be at least 1"),
        ("--data d --batch-size 0", "--batch-size is 0; it must be at least 1"),
        ("--data d --clip-len 0", "--clip-len is 0; it must be at least 1"),
        ("--data d --num-clips 0", "--num-clips is 0; it must be at least 1"),
        ("--data d --train-clips -1", "--train-clips is -1; it must be at least 1"),
        ("--data d --size 0", "--size is 0; it must be at least 1"),
        ("--data d --num-workers -2", "--num-workers is -2; it must be at least -1"),
        ("--data d --seed -1", "--seed is -1; it must be at least 0"),
        ("--data d --seed 4294967296", "--seed is 4294967296; it must be below 4294967296"),
        ("--data d --lr 0", "--lr is 0.0; it must be above 0"),
        ("--data d --lr nan", "--lr is nan; it must be above 0"),
        ("--data d --lr inf", "--lr is inf; it must be finite"),
        ("--data d --weight-decay nan", "--weight-decay is nan; it must be at least 0"),
        ("--data d --warmup-epochs -1", "--warmup-epochs is -1.0; it must be at least 0"),
        ("--data d --clip-grad-norm -1", "--clip-grad-norm is -1.0; it must be at least 0"),
        ("--data d --flip 1.5", "--flip is 1.5; it must be at most 1"),
        ("--data d --label-smoothing 1", "--label-smoothing is 1.0; it must be below 1"),
        ("--data d --head-lr-multiplier 0", "--head-lr-multiplier is 0.0; it must be above 0"),
        ("--data d --ema -0.5", "--ema is -0.5; it must be at least 0"),
        ("--data d --mixup -1", "--mixup is -1.0; it must be at least 0"),
        ("--data d --patience -1", "--patience is -1; it must be at least 0"),
        ("--data d --max-views -1", "--max-views is -1; it must be at least 0"),
        ("--data d --augment colour", "--augment is 'colour'; it must be none, basic, randaugment or color"),
        ("--data d --crop big", "--crop is 'big'; it must be resized or multiscale"),
        ("--data d --num-crops 5", "--num-crops is 5; it must be 1, 3 or 10"),
        ("--data d --class-weights --balanced", "--class-weights and --balanced both make up for rare classes"),
        ("--data d --lr fast", "argument --lr: invalid float value: 'fast'"),
        ("--data d --epochs 1.5", "argument --epochs: invalid int value: '1.5'"),
        ("--data d --epoch 3", "unrecognized arguments: --epoch 3"),  # no abbreviations: they hide slips of the key
        ("--epochs 3", "the following arguments are required: --data"),
    ],
)
def test_a_wrong_value_is_named_with_its_flag_and_its_rule(argv, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        parse_args(argv.split())


# ---- the help, and configs from files ------------------------------------------------------------------------------


def test_the_help_is_grouped_fits_into_80_columns_and_begins_with_an_example(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert lines[0] == "usage: tinyaction train --data DIR [flags]"
    assert max(map(len, lines)) <= 80
    headings = [line for line in lines if re.fullmatch("[a-z]+:", line)]
    assert headings == ["example:", "options:", "data:", "model:", "method:", "training:", "augmentation:",
                        "evaluation:", "run:"]
    example = re.search("example:\n  (.*)\n", text)[1]
    assert parse_args(shlex.split(example)[2:]).weights == "imagenet"


def written_config(tmp_path, **changes):
    path = tmp_path / "config.json"
    facts = {"class_names": ["a", "b"], "lr_of_the_batch": 1}
    config = asdict(RunConfig("clips", lr=0.5, seed=7, out="runs/a")) | facts | changes
    path.write_text(json.dumps({name: value for name, value in config.items() if value is not None}))
    return path


def test_a_config_runs_again_and_flags_on_the_line_replace_its_own(tmp_path):
    path = written_config(tmp_path)
    expected = RunConfig("clips", lr=0.5, seed=7)  # in a new folder
    assert parse_args(["--config", str(path)]) == expected
    assert parse_args(["--config", str(tmp_path)]) == expected
    assert parse_args(["--config", str(path), "--seed", "8", "--data", "d", "--out", "runs/b"]) == replace(
        expected, seed=8, data="d", out="runs/b")


def test_a_config_of_an_earlier_version_has_other_names(tmp_path):
    path = written_config(tmp_path, head_lr_multiplier=None, max_skipped=None, video_timeout=None, head_lr=5.0,
                          max_bad=0.5, time_limit=60.0)
    config = parse_args(["--config", str(path)])
    assert (config.head_lr_multiplier, config.max_skipped, config.video_timeout) == (5.0, 0.5, 60.0)


@pytest.mark.parametrize(("changes", "words"), [
    ({"bach_size": 4}, "'bach_size' is no flag of tinyaction train; did you mean 'batch_size'?"),
    ({"epochs": "many"}, "--epochs is 'many'; it must be a whole number"),
    ({"epochs": True}, "--epochs is True; it must be a whole number"),
    ({"lr": "fast"}, "--lr is 'fast'; it must be a number"),
    ({"balanced": 1}, "--balanced is 1; it must be true or false"),
    ({"data": 5}, "--data is 5; it must be a text"),
    ({"data": None}, "not the config of a run; it must be an object with the name 'data'"),
])
def test_a_damaged_config_is_one_sentence(tmp_path, changes, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        parse_args(["--config", str(written_config(tmp_path, **changes))])


def test_configs_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.json: no such file"):
        parse_args(["--config", str(tmp_path / "none.json")])
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json: not the config of a run"):
        parse_args(["--config", str(tmp_path)])
    with pytest.raises(ValueError, match="--config begins a new run and --resume goes on with one"):
        parse_args(["--config", str(tmp_path), "--resume", str(tmp_path)])
