"""``tinyaction models``."""

import json

import pytest

from tinyaction.cli.models import count, main
from tinyaction.models import all_models


def lines_of(capsys, *argv):
    assert main(argv) == 0
    return capsys.readouterr().out.splitlines()


def test_the_list_has_every_model_and_fits_the_terminal(capsys):
    lines = lines_of(capsys)
    assert [line.split()[0] for line in lines[1 : len(all_models()) + 1]] == list(all_models())
    assert max(map(len, lines)) <= 80
    table = {line.split()[0]: line.split()[1:] for line in lines[1 : len(all_models()) + 1]}
    assert table["tsn-resnet50"] == ["25.6", "M", "8x224x224", "32.7", "imagenet"]
    assert table["r3d_18"] == ["33.4", "M", "16x112x112", "40.7", "kinetics"]
    assert table["conv2d"] == ["0.1", "M", "8x112x112", "0.4", "-"]


def test_a_part_of_a_name_lists_those_models(capsys):
    lines = lines_of(capsys, "mobilenet_v2")
    assert [line.split()[0] for line in lines[1:3]] == ["tsm-mobilenet_v2", "tsn-mobilenet_v2"] and lines[3] == ""


def test_one_model_with_all_of_it(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert lines_of(capsys, "tsm-resnet18", "--num-classes", "10") == [
        "tsm-resnet18",
        "  parameters     11.18 M with a head of 10 classes",
        "  GFLOPs         14.51 per view of 8 frames of 224x224 (multiply-adds)",
        "  frames         any",
        "  pixels a side  any",
        "  mean, std      123.67 116.28 103.53, 58.40 57.12 57.38",
        "  weights        IMAGENET1K_V1: 69.8 % top-1 on imagenet, 45 MB",
        "                 https://download.pytorch.org/models/resnet18-f37072fd.pth",
        "  train:",
        "    tinyaction train --data DIR --model tsm-resnet18 --weights imagenet --clip-len 8 --size 224",
    ]
    assert lines_of(capsys, "s3d")[3:5] == ["  frames         at least 14", "  pixels a side  at least 224"]


def test_the_count_is_of_the_recognizer_itself():
    conv1, conv2 = 3 * 64 * 49 * 16 * 16, 64 * 128 * 9 * 4 * 4  # at 32x32: 16x16 and 4x4 places
    parameters = 3 * 64 * 49 + 64 + 2 * 64 + 64 * 128 * 9 + 128 + 2 * 128 + 128 * 7 + 7
    assert count("conv2d", clip_len=5, size=32, num_classes=7) == (
        parameters, pytest.approx((5 * (conv1 + conv2) + 128 * 7) / 1e9))


@pytest.mark.parametrize("argv, message", [
    (["tsm-resnet16"], "error: model 'tsm-resnet16' is not known; did you mean tsm-resnet18"),
    (["s3d", "--clip-len", "8"], "error: clip_len is 8; s3d takes at least 14 frames"),
    (["s3d", "--clip-len", "0"], "error: --clip-len is 0; it must be at least 1"),
    (["--frames", "8"], "error: unrecognized arguments: --frames; see tinyaction models --help"),
    (["conv2d", "--num-classes", "1"], "error: num_classes is 1; a classifier needs at least two"),
])
def test_bad_arguments(capsys, argv, message):
    assert main(argv) == 2
    assert capsys.readouterr().err.startswith(message)


def test_published_networks_follow_the_list_and_fit_the_terminal(capsys):
    lines = lines_of(capsys)
    start = next(number for number, line in enumerate(lines) if line.startswith("published network"))
    assert start > len(all_models()) and max(map(len, lines)) <= 80
    table = {tuple(line.split()[:2]): line.split()[2:] for line in lines[start + 1 :]}
    assert table["videomae-base", "kinetics"] == ["86.5", "M", "180.3", "16x224x224", "81.5", "CC-BY-NC-4.0"]
    assert table["vjepa2-vith", "pretrained"][-2:] == ["-", "MIT"]
    assert table["r3d_18", "kinetics"][-3:] == ["63.2", "not", "stated"]
    assert [line for line in lines_of(capsys, "videomae", "--verbose") if "81.5 %  CC-BY-NC-4.0 VideoMAE's model zoo "
            "(5 clips x 3 crops)" in line]


def test_published_networks_as_json(capsys):
    assert main(["x3d_s", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["name"], row["licence"], row["accuracy"], row["source"]) == (
        "x3d_s", "Apache-2.0", 73.33, "PyTorchVideo's model zoo")


def test_one_published_network(capsys):
    lines = lines_of(capsys, "x3d_s")
    assert lines[0] == "x3d_s" and lines[2] == "  GFLOPs         1.96 per view of 13 frames of 160x160 (multiply-adds)"
    assert "    tinyaction train --data DIR --model x3d_s --weights kinetics --clip-len 13 --size 160" in lines
    assert [line.split()[0] for line in lines if "kinetics " in line and "M" in line] == ["x3d_s"]
