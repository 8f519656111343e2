"""Pretrained weights: whose keys they are, what is loaded, left over and missing, and what does not fit."""

import hashlib
import json
import logging
import urllib.error

import pytest
import torch
from nets import lively_net
from torch import nn
from toys import write_set

import tinyaction as ta
from tinyaction.cli import train
from tinyaction.models import create_model, load_weights, model_arguments
from tinyaction.models.hub import fetch_file
from tinyaction.models.openmmlab import translate_keys
from tinyaction.models.torchvision import BUILD_ARGUMENTS
from tinyaction.models.weights import find_published, fit_state_dict


def model_of(name, num_classes=3):
    torch.manual_seed(1)
    return create_model(name, num_classes).eval()


def frames(count=4, size=32):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


# ---------------------------------------------------------------------------------------------------------------------
# names
# ---------------------------------------------------------------------------------------------------------------------

MMACTION2 = {
    "backbone.conv1.conv.weight": "backbone.conv1.weight",
    "backbone.conv1.bn.running_var": "backbone.bn1.running_var",
    "backbone.layer1.0.conv1.conv.weight": "backbone.layer1.0.conv1.weight",
    "backbone.layer3.11.conv2.conv.weight": "backbone.layer3.11.conv2.weight",
    "backbone.layer4.2.conv3.bn.bias": "backbone.layer4.2.bn3.bias",
    "backbone.layer2.0.downsample.conv.weight": "backbone.layer2.0.downsample.0.weight",
    "backbone.layer2.0.downsample.bn.num_batches_tracked": "backbone.layer2.0.downsample.1.num_batches_tracked",
    "cls_head.fc_cls.weight": "cls_head.fc.weight",
    "cls_head.fc_cls.bias": "cls_head.fc.bias",
}
MMACTION2_TSM = {"backbone.layer1.0.conv1.conv.net.weight": "backbone.layer1.0.conv1.weight"}
MMACTION2_MOBILENET_TSM = {
    "backbone.conv1.conv.weight": "backbone.features.0.0.weight",
    "backbone.conv1.bn.bias": "backbone.features.0.1.bias",
    "backbone.layer1.0.conv.0.conv.weight": "backbone.features.1.conv.0.0.weight",
    "backbone.layer1.0.conv.1.conv.weight": "backbone.features.1.conv.1.weight",
    "backbone.layer1.0.conv.1.bn.weight": "backbone.features.1.conv.2.weight",
    "backbone.layer2.1.conv.0.net.conv.weight": "backbone.features.3.conv.0.0.weight",
    "backbone.layer2.1.conv.0.net.bn.running_mean": "backbone.features.3.conv.0.1.running_mean",
    "backbone.layer4.3.conv.1.bn.bias": "backbone.features.10.conv.1.1.bias",
    "backbone.layer5.0.conv.2.conv.weight": "backbone.features.11.conv.2.weight",
    "backbone.layer7.0.conv.2.bn.weight": "backbone.features.17.conv.3.weight",
    "backbone.conv2.conv.weight": "backbone.features.18.0.weight",
    "cls_head.fc_cls.bias": "cls_head.fc.bias",
}
TSM_REPOSITORY = {
    "module.base_model.conv1.weight": "backbone.conv1.weight",
    "module.base_model.layer1.0.conv1.net.weight": "backbone.layer1.0.conv1.weight",
    "module.base_model.layer2.0.downsample.1.bias": "backbone.layer2.0.downsample.1.bias",
    "module.new_fc.weight": "cls_head.fc.weight",
}
TSM_REPOSITORY_MOBILENET = {
    "module.base_model.features.0.0.weight": "backbone.features.0.0.weight",
    "module.base_model.features.1.conv.0.weight": "backbone.features.1.conv.0.0.weight",
    "module.base_model.features.1.conv.4.bias": "backbone.features.1.conv.2.bias",
    "module.base_model.features.3.conv.0.net.weight": "backbone.features.3.conv.0.0.weight",
    "module.base_model.features.3.conv.4.running_var": "backbone.features.3.conv.1.1.running_var",
    "module.base_model.features.3.conv.6.weight": "backbone.features.3.conv.2.weight",
    "module.base_model.classifier.weight": "cls_head.fc.weight",
}
DENSENET = {"features.denseblock1.denselayer2.norm.1.weight": "backbone.features.denseblock1.denselayer2.norm1.weight",
            "features.norm5.weight": "backbone.features.norm5.weight"}


@pytest.mark.parametrize("origin, table", [
    ("MMAction2 (TSN)", MMACTION2), ("MMAction2 (TSM)", MMACTION2 | MMACTION2_TSM),
    ("MMAction2 (TSM)", MMACTION2_MOBILENET_TSM), ("the TSM repository (TSM)", TSM_REPOSITORY),
    ("the TSM repository (TSM)", TSM_REPOSITORY_MOBILENET), ("torchvision", DENSENET),
    ("tinyaction", {"backbone.conv1.0.weight": "backbone.conv1.0.weight", "cls_head.fc.bias": "cls_head.fc.bias"}),
])
def test_names_from_elsewhere(origin, table):
    assert translate_keys(list(table)) == (origin, table)


@pytest.mark.parametrize("key, rule", [
    ("backbone.layer1.0.net.conv1.conv.weight", "shifts before the whole block"),
    ("module.base_model.layer1.0.net.conv1.weight", "shifts before the whole block"),
    ("backbone.layer2.net.0.conv1.conv.weight", "temporal pooling"),
])
def test_a_network_that_would_score_otherwise_is_refused(key, rule):
    with pytest.raises(ValueError, match=f"{key.removeprefix('module.')} belongs to a TSM .*{rule}"):
        translate_keys([key, "backbone.conv1.conv.weight"])


@pytest.mark.parametrize("table, name, num_classes", [
    ("tsn_r50", "tsn-resnet50", 400), ("tsm_r50", "tsm-resnet50", 400),
    ("tsn_r18", "tsn-resnet18", 10), ("tsm_r18", "tsm-resnet18", 10),
])
def test_mmaction2s_tables_map_without_a_leftover(shared, table, name, num_classes):
    shapes = json.loads((shared / "reference" / "g_state_keys.json").read_text())[table]
    model = create_model(name, num_classes)
    loaded = fit_state_dict(model, name, {key: torch.zeros(shape) for key, shape in shapes.items()}, source="table")
    assert loaded.unexpected_keys == loaded.missing == []
    assert sorted(loaded.loaded) == sorted(model.state_dict())


@pytest.mark.parametrize("table", ["tsm_r18_block", "tsm_r18_tpool"])
def test_mmaction2s_other_shifts_are_refused(shared, table):
    shapes = json.loads((shared / "reference" / "g_state_keys.json").read_text())[table]
    state = {key: torch.zeros(shape) for key, shape in shapes.items()}
    with pytest.raises(ValueError, match="belongs to a TSM"):
        fit_state_dict(create_model("tsm-resnet18", 10), "tsm-resnet18", state, source="table")


# ---------------------------------------------------------------------------------------------------------------------
# values
# ---------------------------------------------------------------------------------------------------------------------

class NoShift(nn.Module):
    def forward(self, features, num_frames):
        return features


@pytest.mark.parametrize("net_name, name, is_shifted", [
    ("resnet18", "tsn-resnet18", False), ("resnet18", "tsm-resnet18", True),
    ("mobilenet_v2", "tsn-mobilenet_v2", False),
    ("shufflenet_v2_x0_5", "tsn-shufflenet_v2_x0_5", False), ("mnasnet0_5", "tsn-mnasnet0_5", False),
])
@torch.inference_mode()
def test_torchvisions_weights_give_torchvisions_scores(tmp_path, net_name, name, is_shifted):
    net = lively_net(net_name, frames(), num_classes=3)
    torch.save(net.state_dict(), tmp_path / "net.pth")
    model = model_of(name)
    loaded = load_weights(model, name, tmp_path / "net.pth")
    assert loaded.origin == "torchvision" and loaded.unexpected_keys == loaded.missing == []
    assert loaded.notes == ["its head of 3 classes is loaded too"]
    clips = frames()[:, :, None]                                       # (N, C, T=1, H, W)
    if is_shifted:
        model.backbone.shift = NoShift()
        features = model.backbone(clips).transpose(1, 2)               # (N, T, F, h, w)
    else:
        features = model.backbone(clips[:, :, 0])[:, None]             # (N, T, F, h, w)
    assert model.cls_head(features).allclose(net(frames()), rtol=1e-3, atol=1e-3)  # sums run in another order


def tsm_repository_state(net):
    """The state dict of ``net`` as the TSM repository would write it."""
    state = {}
    for key, tensor in net.state_dict().items():
        if key.startswith("fc."):
            state[f"module.new_{key}"] = tensor
        else:
            parts = key.split(".")
            if len(parts) == 4 and parts[2] == "conv1":
                parts.insert(3, "net")
            state["module.base_model." + ".".join(parts)] = tensor
    return state


@torch.inference_mode()
def test_the_tsm_repositorys_checkpoint_is_the_same_network(tmp_path):
    net = lively_net("resnet18", frames(), num_classes=3)
    content = {"epoch": 3, "arch": "resnet18", "state_dict": tsm_repository_state(net), "best_prec1": torch.ones(1)}
    torch.save(content, tmp_path / "ckpt.best.pth.tar", _use_new_zipfile_serialization=False)
    torch.save(net.state_dict(), tmp_path / "net.pth")
    ours, theirs = model_of("tsm-resnet18"), model_of("tsm-resnet18")
    load_weights(ours, "tsm-resnet18", tmp_path / "net.pth")
    loaded = load_weights(theirs, "tsm-resnet18", tmp_path / "ckpt.best.pth.tar")
    assert loaded.origin == "the TSM repository (TSM)" and loaded.unexpected_keys == loaded.missing == []
    assert all(ours.state_dict()[key].equal(theirs.state_dict()[key]) for key in ours.state_dict())


def test_mmengines_checkpoint_of_the_guides_network(shared):
    model = model_of("conv3d", 2)
    loaded = load_weights(model, "conv3d", shared / "reference" / "mmengine_epoch_2.pth")
    assert len(loaded.loaded) == 16 and loaded.unexpected_keys == loaded.missing == []
    assert model.state_dict()["backbone.conv1.1.num_batches_tracked"].item() == 4


def test_the_imagenet_features_of_mobilenet(shared):
    path = shared / "weights" / "mobilenet_v2_imagenet_features.pt"
    state = list(torch.load(path, weights_only=True).values())
    for name in ("tsn-mobilenet_v2", "tsm-mobilenet_v2"):
        model = model_of(name)
        loaded = load_weights(model, name, path)
        assert len(loaded.loaded) == 312 and loaded.unexpected_keys == []
        assert loaded.missing == ["cls_head.fc.weight", "cls_head.fc.bias"]
        own = [value for key, value in model.state_dict().items() if key.startswith("backbone.")]
        assert all(a.equal(b) for a, b in zip(own, state, strict=True))  # key order is torchvision's


def test_create_model_loads_and_logs(tmp_path, caplog):
    torch.save(lively_net("resnet18", frames()).state_dict(), tmp_path / "net.pth")
    with caplog.at_level(logging.INFO, logger="tinyaction"):
        model = create_model("tsn-resnet18", 3, weights=str(tmp_path / "net.pth"))
    assert model.state_dict()["backbone.bn1.running_var"].std() > 0
    assert "its head of 1000 classes is left out: this model has 3" in caplog.text
    assert f"weights of torchvision from {tmp_path / 'net.pth'}: 120 tensors loaded" in caplog.text


def test_our_own_checkpoints_bring_their_mean_and_std(tmp_path):
    made = create_model("tsn-resnet18", 5, mean=(1, 2, 3), std=(4, 5, 6))
    names = ["a", "b", "c", "d", "e"]
    ta.Checkpoint(model_arguments("tsn-resnet18", made), made.state_dict(), names, {}).save(tmp_path / "best.pt")
    model = model_of("tsm-resnet18")
    loaded = load_weights(model, "tsm-resnet18", tmp_path / "best.pt")
    assert loaded.origin == "tinyaction" and loaded.unexpected_keys == ["cls_head.fc.weight", "cls_head.fc.bias"]
    assert model.data_preprocessor.mean.flatten().tolist() == [1, 2, 3]
    assert model_arguments("tsm-resnet18", model)["std"] == [4, 5, 6]
    assert model.backbone.layer3[0].conv1.weight.equal(made.backbone.layer3[0].conv1.weight)


def test_pixels_are_normalized_as_the_weights_ask(tmp_path, monkeypatch):
    """VGG16 is the only network with several normalizations; its 138 million numbers are not drawn anew each time."""
    monkeypatch.setitem(BUILD_ARGUMENTS, "vgg16", {"init_weights": False})
    model = model_of("tsn-vgg16", 2)
    torch.save(model.state_dict(), tmp_path / "vgg16.pth")
    monkeypatch.setattr("tinyaction.models.weights.fetch_file", lambda address: tmp_path / "vgg16.pth")
    for weights, mean, std in [("IMAGENET1K_V1", [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]),
                               ("IMAGENET1K_FEATURES", [122.99925, 116.9991, 103.9992], [1.0, 1.0, 1.0])]:
        load_weights(model, "tsn-vgg16", weights)
        assert model.data_preprocessor.mean.flatten().tolist() == pytest.approx(mean)
        assert model.data_preprocessor.std.flatten().tolist() == pytest.approx(std)
    own = create_model("tsn-vgg16", 2, weights="IMAGENET1K_V1", mean=(1, 2, 3), std=(4, 5, 6))
    assert own.data_preprocessor.mean.flatten().tolist() == [1, 2, 3]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(tmp_path, value):
    state = model_of("conv2d").state_dict()
    state["backbone.conv1.0.bias"][3] = value
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"a\.pth: its backbone.conv1.0.bias holds NaN or infinite numbers"):
        load_weights(model_of("conv2d"), "conv2d", tmp_path / "a.pth")


def test_what_was_loaded_is_said(tmp_path):
    state = lively_net("resnet18", frames()).state_dict() | {"extra.weight": torch.ones(2)}
    torch.save({"model": state}, tmp_path / "net.pth")
    assert load_weights(model_of("tsn-resnet18"), "tsn-resnet18", tmp_path / "net.pth").lines() == [
        f"weights of torchvision from {tmp_path / 'net.pth'}: 120 tensors loaded",
        "  not used, 3: fc.weight, fc.bias, extra.weight",
        "  missing in the file, 2, kept as initialised: cls_head.fc.weight, cls_head.fc.bias",
        "  its head of 1000 classes is left out: this model has 3",
    ]


def test_tsm_weights_in_a_network_without_the_shift_are_pointed_out():
    state = tsm_repository_state(lively_net("resnet18", frames(), num_classes=3))
    loaded = fit_state_dict(model_of("tsn-resnet18"), "tsn-resnet18", state, source="a.pth")
    assert loaded.notes[-1] == "TSM weights in tsn-resnet18: a start for training, but not the same scores"


# ---------------------------------------------------------------------------------------------------------------------
# what does not fit
# ---------------------------------------------------------------------------------------------------------------------

def refused(name, state, tmp_path):
    torch.save(state, tmp_path / "a.pth")
    model = model_of(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ValueError) as error:
        load_weights(model, name, tmp_path / "a.pth")
    assert all(value.equal(before[key]) for key, value in model.state_dict().items())  # nothing half loaded
    return str(error.value).replace(str(tmp_path), "DIR")


def test_a_trunk_of_another_width(tmp_path):
    message = refused("tsn-resnet18", lively_net("resnet50", frames()).state_dict(), tmp_path)
    assert message == ("DIR/a.pth does not fit tsn-resnet18: its layer1.0.conv1.weight is (64, 64, 1, 1), that of the "
                       "model (64, 64, 3, 3); the weights are of another network")


def test_a_deeper_and_a_shallower_trunk(tmp_path):
    shallow = lively_net("resnet18", frames()).state_dict()
    deep = shallow | {"layer1.2.conv1.weight": torch.ones(1)}
    assert refused("tsn-resnet18", deep, tmp_path) == (
        "DIR/a.pth does not fit tsn-resnet18: 1 of its tensors have no place in the backbone, layer1.2.conv1.weight "
        "first; the weights are of another network")
    assert refused("tsn-resnet34", shallow, tmp_path) == (
        "DIR/a.pth does not fit tsn-resnet34: 80 of the backbone's 180 tensors are missing in it, "
        "backbone.layer1.2.conv1.weight first; the weights are of another network")


def test_a_file_that_fits_nowhere(tmp_path):
    assert refused("tsn-resnet18", nn.LSTM(2, 3).state_dict(), tmp_path) == (
        "DIR/a.pth fits nowhere in tsn-resnet18: none of its 4 tensors has a place in the backbone (its names are "
        "like weight_ih_l0, the model's like backbone.conv1.weight)")


@pytest.mark.parametrize("content", [{"epoch": 3}, [torch.ones(2)], torch.ones(3), {"state_dict": {"a": 1}}])
def test_a_checkpoint_without_weights(tmp_path, content):
    assert refused("conv2d", content, tmp_path).startswith("DIR/a.pth: holds no state dict")


def test_no_such_file_and_no_checkpoint(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.pth: no such weights; .* imagenet or kinetics, or a file"):
        load_weights(model_of("conv2d"), "conv2d", tmp_path / "nothing.pth")
    (tmp_path / "film.mp4").write_bytes(b"\x00\x00\x00\x20ftypisom")
    with pytest.raises(ValueError, match=r"film\.mp4: not a readable checkpoint: it is not a file of torch\.save"):
        load_weights(model_of("conv2d"), "conv2d", tmp_path / "film.mp4")


# ---------------------------------------------------------------------------------------------------------------------
# torchvision's own
# ---------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name, weights, expected", [
    ("tsn-resnet50", "imagenet", "IMAGENET1K_V2"), ("tsn-resnet50", "IMAGENET1K_V1", "IMAGENET1K_V1"),
    ("tsm-mobilenet_v2", "imagenet", "IMAGENET1K_V2"), ("r3d_18", "kinetics", "KINETICS400_V1"),
    ("swin3d_b", "kinetics", "KINETICS400_V1"), ("tsn-resnet50", "weights.pth", None), ("conv2d", "a", None),
])
def test_torchvisions_weights_by_name(name, weights, expected):
    published = find_published(name, weights)
    assert (published and published.name) == expected


@pytest.mark.parametrize("name, weights, rule", [
    ("conv2d", "imagenet", "conv2d has no weights 'imagenet'; torchvision has none for it; name a file"),
    ("tsn-resnet18", "kinetics", "tsn-resnet18 has no weights 'kinetics'; torchvision has imagenet for it"),
    ("s3d", "imagenet", "s3d has no weights 'imagenet'; torchvision has kinetics for it"),
])
def test_weights_that_do_not_exist(name, weights, rule):
    with pytest.raises(ValueError, match=rule):
        find_published(name, weights)


def test_without_a_network_the_message_names_the_file_and_its_place(tmp_path, monkeypatch):
    def fail(*args, **options):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", fail)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ValueError) as error:
        load_weights(model_of("tsn-resnet18"), "tsn-resnet18", "imagenet")
    assert str(error.value) == (
        "the weights resnet18-f37072fd.pth are not on this machine and could not be fetched ("
        "https://download.pytorch.org/models/resnet18-f37072fd.pth: no route to host); bring "
        "https://download.pytorch.org/models/resnet18-f37072fd.pth and put it into "
        f"{tmp_path / 'hub' / 'checkpoints'}, or name the file with --weights")


def test_what_is_fetched_is_bounded_and_compared_with_the_digest_of_its_name(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    content = b"weights"
    digest = hashlib.sha256(content).hexdigest()[:8]
    good, other = (tmp_path / f"net-{name}.pth" for name in (digest, "00000000"))
    for path in (good, other):
        path.write_bytes(content)
    place = tmp_path / "torch" / "hub" / "checkpoints"
    with pytest.raises(ValueError, match=f"its sha256 begins with {digest} and not with 00000000"):
        fetch_file(other.as_uri())
    monkeypatch.setattr("tinyaction.models.hub.MAX_WEIGHT_BYTES", 6)
    with pytest.raises(ValueError, match="larger than 0 MB; nothing is kept"):
        fetch_file(good.as_uri())
    assert list(place.iterdir()) == []
    monkeypatch.setattr("tinyaction.models.hub.MAX_WEIGHT_BYTES", 7)
    assert fetch_file(good.as_uri()) == place / good.name and (place / good.name).read_bytes() == content


def test_the_file_is_taken_from_torch_hubs_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    path.parent.mkdir(parents=True)
    torch.save(lively_net("resnet18", frames()).state_dict(), path)
    loaded = load_weights(model_of("tsm-resnet18"), "tsm-resnet18", "imagenet")
    assert loaded.source == "ResNet18_Weights.IMAGENET1K_V1 (resnet18-f37072fd.pth)" and len(loaded.loaded) == 120


# ---------------------------------------------------------------------------------------------------------------------
# the flag
# ---------------------------------------------------------------------------------------------------------------------

def train_on_bars(folder, *flags):
    videos = folder / "bars"
    if not videos.is_dir():
        write_set(videos, num_train=2, num_val=2)
    return train.main(["--data", str(videos), "--epochs", "1", "--batch-size", "2", "--clip-len", "4", "--size", "32",
                       "--num-workers", "0", "--device", "cpu", "--out", str(folder / "run"), *flags])


def test_training_starts_from_the_weights_and_its_checkpoint_is_whole(tmp_path, capsys):
    start = model_of("conv2d", 7)
    torch.save(start.state_dict(), tmp_path / "start.pth")
    flags = ["--model", "tsm-conv2d", "--weights", str(tmp_path / "start.pth"), "--lr", "1e-9"]
    assert train_on_bars(tmp_path, *flags) == 0
    log = (tmp_path / "run" / "log.txt").read_text()
    assert f"weights of tinyaction from {tmp_path / 'start.pth'}: 14 tensors loaded" in log
    assert "its head of 7 classes is left out: this model has 2" in log
    model, checkpoint = ta.load_model(tmp_path / "run" / "best.pt")
    assert checkpoint.model["name"] == "tsm-conv2d" and checkpoint.model["mean"] == [123.675, 116.28, 103.53]
    assert type(model.backbone).__name__ == "TemporalShiftConvBackbone"
    assert model.backbone.conv1[0].weight.allclose(start.backbone.conv1[0].weight, atol=1e-6)


@pytest.mark.parametrize("flags, message", [
    (["--model", "s3d"], "error: clip_len is 4; s3d takes at least 14 frames"),
    (["--model", "tsm-resnet18", "--weights", "kinetics"], "error: tsm-resnet18 has no weights 'kinetics'"),
    (["--model", "conv3d", "--weights", "DIR/start.pth"], "error: DIR/start.pth does not fit conv3d"),
    (["--model", "conv2d", "--weights", "DIR/none.pth"], "error: DIR/none.pth: no such weights"),
])
def test_what_does_not_fit_is_an_error_before_there_is_a_run_folder(tmp_path, capsys, flags, message):
    torch.save(model_of("conv2d").state_dict(), tmp_path / "start.pth")
    assert train_on_bars(tmp_path, *[flag.replace("DIR", str(tmp_path)) for flag in flags]) == 2
    assert capsys.readouterr().err.replace(str(tmp_path), "DIR").startswith(message)
    assert not (tmp_path / "run").exists()
