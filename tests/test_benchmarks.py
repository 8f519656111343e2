"""The benchmark scripts on a made-up folder with random weights: they run, and print what is published beside it."""

import importlib
import json
import re
from pathlib import Path

import pytest
import torch
from peers import lively
from toys import CLASSES, write_clip

from tinyaction.models import videomae

SCRIPTS = Path(__file__).parent.parent / "scripts" / "experiments"
SMALL = dict(embed_dim=16, depth=2, num_heads=2, mlp_dim=32, clip_len=4, size=16, patch=8)
CONFIG = {"model_type": "videomae", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
          "intermediate_size": 32, "num_frames": 4, "image_size": 16, "patch_size": 8, "tubelet_size": 2,
          "id2label": {"0": "swimming", "1": "standing", "2": "lying"}}


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module


@pytest.fixture
def network(tmp_path, monkeypatch):
    """Random weights behind the name videomae-base, for Kinetics and for Something-Something."""
    cards = [type(card)(**{**vars(card), "arguments": SMALL, "num_classes": 3, "clip_len": 4, "size": 16,
                           "short_side": 18, "test_size": 16})
             for card in videomae.PUBLISHED if card.name == "videomae-base"]
    monkeypatch.setattr(videomae, "PUBLISHED", tuple(cards))
    folder = tmp_path / "network"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    torch.save(lively(videomae.build(num_classes=3, **SMALL)).state_dict(), folder / "pytorch_model.bin")
    return folder


@pytest.fixture
def clips(tmp_path):
    for label, name in enumerate(CLASSES):
        for number in range(2):
            write_clip(tmp_path / "clips" / name / f"{number}.mp4", label, seed=number, side=32)
    return tmp_path / "clips"


def test_a_published_network_in_kinetics_layout(script, network, clips, capsys):
    words = ["videomae-base", "--weights", str(network), "--data", str(clips), "--num-workers", "0", "--device", "cpu"]
    assert script("published").main(words) == 0
    out = capsys.readouterr().out
    assert re.search(r"measured   top 1 \d+\.\d % \(\d+\.\d to \d+\.\d %\), 4 videos\n", out)
    assert ("published  top 1 81.5 %, top 5 95.1 %, kinetics, 5 clips x 3 crops; source: VideoMAE's model zoo") in out


@pytest.mark.parametrize("views, expected", [(None, (5, 3)), ("2x1", (2, 1))])
def test_views(script, views, expected):
    published = script("published")
    assert published.views_of(published.card_of("videomae-base", "kinetics"), views) == expected
    assert published.views_of(published.card_of("r3d_18", None), None) == (5, 1)
    with pytest.raises(ValueError, match="--views is many; it must be clips and crops, such as 5x3"):
        published.views_of(published.card_of("videomae-base", None), "many")
    with pytest.raises(ValueError, match="vjepa2-vith: no network of this name is published with a classifier"):
        published.card_of("vjepa2-vith", None)


def test_something_something(script, network, clips, capsys):
    words = ["videomae-base", "--weights", str(network), "--data", str(clips), "--num-workers", "0", "--device", "cpu"]
    assert script("ssv2").main(words) == 0
    out = capsys.readouterr().out
    assert " 70.8 %  videomae-base" in out and "published  top 1 70.8 %" in out and "4 videos" in out
    assert script("ssv2").main(["videomae-base"]) == 2
    assert "--data is missing" in capsys.readouterr().err


def test_ucf101(script, clips, tmp_path, capsys):
    (clips / "classInd.txt").write_text("1 lying\n2 standing\n")
    (clips / "trainlist01.txt").write_text("".join(f"{name}/0.mp4 {label}\n" for label, name in
                                                   enumerate(CLASSES, start=1)))
    (clips / "testlist01.txt").write_text("".join(f"{name}/1.mp4\n" for name in CLASSES))
    assert script("ucf101").main(["--data", str(clips), "--model", "conv2d", "--clip-len", "2", "--size", "16",
                                  "--num-workers", "0", "--device", "cpu", "--out", str(tmp_path / "run")]) == 0
    out = capsys.readouterr().out
    assert " 96.1 %  VideoMAE ViT-B" in out and re.search(r"\d+\.\d %  probe of conv2d, weights none, 2 videos", out)
    assert (tmp_path / "run" / "report.html").is_file()
