"""torchvision's video networks with their published classifiers, and the table of published networks."""

import re

import pytest
import torch
import torchvision
from nets import lively_net
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import get_model

from tinyaction.cli.models import json_row, verbose_table
from tinyaction.models import create_model
from tinyaction.models.published import all_cards, cards_of
from tinyaction.models.torchvision_published import load_torchvision, torchvision_cards
from tinyaction.models.weights import kinetics400_names

QUICK = [("r3d_18", 4, 64), ("mc3_18", 4, 64), ("swin3d_t", 4, 64)]
SLOW = [("r2plus1d_18", 4, 64), ("s3d", 14, 224), ("mvit_v1_b", 16, 224), ("mvit_v2_s", 16, 224), ("swin3d_s", 4, 64),
        ("swin3d_b", 4, 64)]
CASES = [*QUICK, *[pytest.param(*case, marks=pytest.mark.slow) for case in SLOW]]


@pytest.fixture
def file_of(tmp_path):
    """A file with a network of torchvision and random weights, as its hub would keep it, and the network."""

    def write(name, **options):
        torch.manual_seed(0)
        net = get_model(name, weights=None, **options)
        path = tmp_path / f"{name}.pth"
        torch.save(net.state_dict(), path)
        return net, path

    return write


@torch.inference_mode()
@pytest.mark.parametrize("name, clip_len, size", CASES)
def test_the_scores_are_torchvisions(tmp_path, name, clip_len, size):
    """To 1e-5 of the same clips, which torchvision's own recipe normalizes as the recognizer does."""
    pixels = torch.randint(0, 256, (1, 2, 3, clip_len, size, size), generator=torch.Generator().manual_seed(0),
                           dtype=torch.uint8)
    recipe = torchvision.models.get_model_weights(name).DEFAULT.transforms(crop_size=(size, size), resize_size=(size,))
    inputs = torch.stack([recipe(view.transpose(0, 1)) for view in pixels[0]])  # (V, C, T, H, W)
    net = lively_net(name, inputs)
    torch.save(net.state_dict(), tmp_path / "net.pth")
    model = load_torchvision(name, weights=tmp_path / "net.pth")
    assert model.data_preprocessor(pixels)[0].allclose(inputs, rtol=0, atol=1e-6)
    expected, found = net(inputs), model.cls_head(model.backbone(inputs).transpose(1, 2))
    scale = expected.abs().max().item()
    assert (found - expected).abs().max().item() <= 1e-5 * max(1.0, scale)
    assert (expected[0] - expected[1]).abs().max().item() > 1e-3 * scale


def test_class_names_and_clips_are_those_of_its_weights(file_of):
    model = load_torchvision("r3d_18", weights=file_of("r3d_18")[1])
    published = model.published
    assert published.class_names[:3] == ("abseiling", "air drumming", "answering questions")
    assert published.class_names == kinetics400_names() and len(set(published.class_names)) == 400
    assert (published.clip_len, published.frame_interval, published.size, published.short_side) == (16, 2, 112, 128)
    assert not model.training and model.cls_head.num_classes == 400
    assert model.data_preprocessor.mean.flatten().tolist() == pytest.approx([110.2008, 100.63983, 95.99475])


def test_all_weights_have_the_same_classes():
    for net in torchvision.models.list_models(module=torchvision.models.video):
        for weights in torchvision.models.get_model_weights(net):
            assert tuple(weights.meta["categories"]) == kinetics400_names()


@pytest.mark.parametrize("card", torchvision_cards(), ids=lambda card: card.source.rpartition(" ")[2])
def test_a_card_says_what_torchvisions_documentation_says(card):
    expected = {"r3d_18": (16, 2), "mc3_18": (16, 2), "r2plus1d_18": (16, 2), "s3d": (128, 2), "mvit_v1_b": (16, 4),
                "mvit_v2_s": (16, 4), "swin3d_t": (32, 2), "swin3d_s": (32, 2), "swin3d_b": (32, 2)}
    assert (card.clip_len, card.frame_interval) == expected[card.name]
    assert 60 < card.top1 < card.top5 < 100 and card.address.startswith("https://download.pytorch.org/models/")


# ---------------------------------------------------------------------------------------------------------------------
# files that do not fit
# ---------------------------------------------------------------------------------------------------------------------

def test_a_file_with_another_classifier_is_no_published_network(file_of):
    _, path = file_of("r3d_18", num_classes=7)
    with pytest.raises(ValueError, match=r"r3d_18.pth has no classifier for the 400 published classes: cls_head.fc"):
        load_torchvision("r3d_18", weights=path)


def test_a_file_of_another_network(file_of):
    _, path = file_of("mc3_18")
    with pytest.raises(ValueError, match="r3d_18.*the weights are of another network"):
        load_torchvision("r3d_18", weights=path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such weights"):
        load_torchvision("r3d_18", weights=tmp_path / "none.pth")


def test_without_a_network_the_file_to_bring_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def refuse(*arguments, **options):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    with pytest.raises(ValueError, match=r"r3d_18-b3b3357e.pth are not on this machine .*bring https://.*put it into"):
        load_torchvision("r3d_18")


def test_a_file_brought_by_hand_is_found(tmp_path, monkeypatch, file_of):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    net, path = file_of("r3d_18")
    (tmp_path / "checkpoints").mkdir()
    path.rename(tmp_path / "checkpoints" / "r3d_18-b3b3357e.pth")
    model = load_torchvision("r3d_18")
    assert model.cls_head.fc.weight.equal(net.fc.weight)
    assert "R3D_18_Weights.KINETICS400_V1" in model.published.source


@pytest.mark.parametrize("name, message", [
    ("tsn-resnet18", "tsn-resnet18 is no video network of torchvision; these are mc3_18"),
    ("r3d_19", "model 'r3d_19' is not known; did you mean r3d_18"),
])
def test_other_names(name, message):
    with pytest.raises(ValueError, match=message):
        load_torchvision(name)


# ---------------------------------------------------------------------------------------------------------------------
# the table
# ---------------------------------------------------------------------------------------------------------------------

def test_a_row_of_the_table():
    (card,) = cards_of("x3d_s")
    assert json_row(card) == {
        "name": "x3d_s", "dataset": "kinetics", "num_parameters": 3_794_274, "gflops": 1.963,
        "input": "13x160x160 /6", "licence": "Apache-2.0", "views": "10 clips x 3 crops",
        "source": "PyTorchVideo's model zoo", "accuracy": 73.33}
    line = next(line for line in verbose_table([card]).splitlines() if line.startswith("x3d_s"))
    assert re.split(r"\s{2,}", line) == ["x3d_s", "kinetics", "3.8 M", "2.0", "13x160x160 /6", "73.3 %", "Apache-2.0",
                                         "PyTorchVideo's model zoo (10 clips x 3 crops)"]


def test_each_set_of_weights_has_one_row():
    cards = (*all_cards(), *torchvision_cards())
    assert {"x3d_xs", "x3d_s", "x3d_m", "x3d_l", "slow_r50", "slowfast_r50", "r3d_18", "mvit_v2_s"} <= \
        {card.name for card in cards}
    assert len({(card.name, card.dataset, card.source) for card in cards}) == len(cards)
    assert len({line.index("kinetics") for line in verbose_table(cards).splitlines() if "kinetics " in line}) == 1


@pytest.mark.slow
@pytest.mark.parametrize("card", torchvision_cards(), ids=lambda card: card.source.rpartition(" ")[2])
def test_costs_are_counted_on_the_networks(card):
    with torch.device("meta"):
        model = create_model(card.name, card.num_classes).eval()
    assert sum(parameter.numel() for parameter in model.parameters()) == card.num_parameters
    clip = torch.empty((1, 1, 3, card.clip_len, card.size, card.size), dtype=torch.uint8, device="meta")
    with FlopCounterMode(display=False) as counter:
        model(clip, mode="logits")
    assert counter.get_total_flops() / 2e9 == pytest.approx(card.gflops, abs=0.001)
