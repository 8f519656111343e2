"""torchvision's networks as backbones: the same scores as torchvision, and the input each of them takes."""

import pytest
import torch
import torchvision
from nets import lively_net
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import get_model

from tinyaction.models import all_models, check_input, create_model, input_rule, model_arguments
from tinyaction.models.create import normalization
from tinyaction.models.torchvision import CLASSIFICATION_NETS, VIDEO_NETS, build_net, plain_backbone
from tinyaction.models.weights import fit_state_dict

# One network of each kind that torchvision has, and the pictures or clips to try it with.
QUICK = [
    ("tsn-efficientnet_b0", (2, 3, 64, 64)), ("tsn-regnet_y_400mf", (2, 3, 64, 64)), ("tsn-googlenet", (2, 3, 64, 64)),
    ("r3d_18", (2, 3, 4, 32, 32)), ("tsn-densenet121", (2, 3, 64, 64)),
]
SLOW = [
    ("tsn-convnext_tiny", (2, 3, 64, 64)), ("tsn-inception_v3", (2, 3, 96, 96)), ("tsn-swin_t", (2, 3, 64, 64)),
    ("tsn-swin_v2_t", (2, 3, 64, 64)), ("tsn-vit_b_32", (2, 3, 224, 224)), ("tsn-resnet50", (2, 3, 64, 64)),
    ("tsn-resnext50_32x4d", (2, 3, 64, 64)), ("mc3_18", (2, 3, 4, 32, 32)), ("r2plus1d_18", (2, 3, 4, 32, 32)),
    ("s3d", (2, 3, 16, 224, 224)), ("swin3d_t", (1, 3, 8, 64, 64)), ("mvit_v1_b", (1, 3, 16, 224, 224)),
    ("mvit_v2_s", (1, 3, 16, 224, 224)),
]


@pytest.mark.parametrize("name, shape", [*QUICK, *[pytest.param(*case, marks=pytest.mark.slow) for case in SLOW]])
@torch.inference_mode()
def test_the_scores_are_torchvisions(name, shape):
    """The head's mean and linear layer over the trunk's features give what torchvision's own forward gives."""
    net_name = name.removeprefix("tsn-")
    inputs = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    options = {"googlenet": {"init_weights": True}, "inception_v3": {"init_weights": True, "aux_logits": False}}
    net = lively_net(net_name, inputs, num_classes=5, **options.get(net_name, {}))
    model = create_model(name, 5).eval()
    loaded = fit_state_dict(model, name, net.state_dict(), source="net")
    assert loaded.missing == [] and all(key.lower().startswith("aux") for key in loaded.unexpected_keys)
    features = model.backbone(inputs)
    features = features.transpose(1, 2) if inputs.ndim == 5 else features[:, None]  # (N, T, F, h, w)
    assert features.shape[2] == model.cls_head.in_channels
    expected = net(inputs)                                             # of 1e6 where a norm saw two numbers
    assert model.cls_head(features).allclose(expected, rtol=0, atol=1e-3 * expected.abs().max().item())


@pytest.mark.parametrize("name", ["tsn-vit_b_32", "tsn-convnext_tiny", "tsn-swin_t", "s3d", "mvit_v2_s", "swin3d_t",
                                  "tsn-densenet121", "tsm-resnet50"])
def test_every_name_of_torchvisions_weights_has_its_place(name):
    with torch.device("meta"):
        net, model = get_model(name.removeprefix("tsn-").removeprefix("tsm-"), num_classes=5), create_model(name, 5)
    loaded = fit_state_dict(model, name, net.state_dict(), source="net")
    assert loaded.unexpected_keys == loaded.missing == [] and loaded.notes == ["its head of 5 classes is loaded too"]


@pytest.mark.parametrize("net_name, classify", [
    ("mobilenet_v3_small", lambda net, x: net.classifier(net.avgpool(x).flatten(1))),
    ("alexnet", lambda net, x: net.classifier(net.avgpool(x).flatten(1))),
    ("squeezenet1_1", lambda net, x: net.classifier(x).flatten(1)),
    pytest.param("vgg11_bn", lambda net, x: net.classifier(net.avgpool(x).flatten(1)), marks=pytest.mark.slow),
    pytest.param("maxvit_t", lambda net, x: net.classifier(x), marks=pytest.mark.slow),
])
@torch.inference_mode()
def test_the_features_are_those_before_the_classifier(net_name, classify):
    size = 224 if net_name == "maxvit_t" else 64
    frames = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    net = lively_net(net_name, frames, num_classes=5)
    model = create_model(f"tsn-{net_name}", 5).eval()
    loaded = fit_state_dict(model, f"tsn-{net_name}", net.state_dict(), source="net")
    assert loaded.missing == ["cls_head.fc.weight", "cls_head.fc.bias"]
    assert loaded.unexpected_keys and all(key.startswith("classifier") for key in loaded.unexpected_keys)
    assert classify(net, model.backbone(frames)).allclose(net(frames), rtol=1e-3, atol=1e-3)


@torch.inference_mode()
def test_a_resnets_features_are_exactly_torchvisions():
    net = get_model("resnet18").eval()
    seen = []
    net.avgpool.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    frames = torch.randn(3, 3, 64, 64)
    net(frames)
    trunk = nn.Sequential(*list(net.children())[:-2])
    ours = plain_backbone("resnet18").eval()
    ours.load_state_dict({key: value for key, value in net.state_dict().items() if not key.startswith("fc.")})
    assert [type(part) for part in ours] == [type(part) for part in trunk]
    assert trunk(frames).equal(seen[0]) and ours(frames).allclose(seen[0], rtol=1e-4, atol=1e-5)


def test_every_network_of_torchvision_has_a_name():
    assert {f"tsn-{net}" for net in torchvision.models.list_models(module=torchvision.models)} <= set(all_models())
    assert set(torchvision.models.list_models(module=torchvision.models.video)) <= set(all_models())
    assert {"conv2d", "conv3d", "tsm-conv2d", "tsm-mobilenet_v2", *(f"tsm-resnet{n}" for n in (18, 34, 50, 101))} <= \
        set(all_models())


def meta_backbone(name):
    try:
        with torch.device("meta"):
            return all_models()[name]()
    except NotImplementedError:  # RegNet computes its widths with tensors
        return all_models()[name]().to("meta")


HUGE = {"regnet_y_128gf", "regnet_y_32gf"}


@pytest.mark.slow
@pytest.mark.parametrize("net_name", [net for net in CLASSIFICATION_NETS + VIDEO_NETS if net not in HUGE])
def test_every_network_runs_at_its_bounds_and_at_its_own_size(net_name):
    """On shapes alone. At the size of its weights the multiply-adds are those that torchvision publishes."""
    is_video = net_name in VIDEO_NETS
    name = net_name if is_video else f"tsn-{net_name}"
    backbone, rule = meta_backbone(name).eval(), input_rule(name)
    for clip_len, size in ((rule.least_clip_len, rule.least_size), (rule.clip_len, rule.size)):
        check_input(name, clip_len=clip_len, size=size)
        shape = (1, 3, clip_len, size, size) if is_video else (1, 3, size, size)
        with FlopCounterMode(display=False) as counter:
            features = backbone(torch.empty(shape, device="meta"))
        assert features.shape[1] == backbone.out_channels and features.ndim == len(shape)
    published = torchvision.models.get_model_weights(net_name).DEFAULT.meta["_ops"]
    assert counter.get_total_flops() / 2e9 <= published + 0.001
    if net_name not in ("alexnet", "squeezenet1_0", "squeezenet1_1") and not net_name.startswith("vgg"):
        # Those have heavy classifiers; that of MobileNetV3 small has 0.0016 of its 0.057.
        assert counter.get_total_flops() / 2e9 >= 0.97 * published - 0.001


# ---------------------------------------------------------------------------------------------------------------------
# inputs
# ---------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name, clip_len, size, rule", [
    ("s3d", 13, 224, "clip_len is 13; s3d takes at least 14 frames"),
    ("s3d", 14, 112, "size is 112; s3d takes at least 224 pixels a side"),
    ("mvit_v1_b", 8, 224, "clip_len is 8; mvit_v1_b takes exactly 16 frames"),
    ("mvit_v2_s", 17, 224, "clip_len is 17; mvit_v2_s takes exactly 16 frames"),
    ("mvit_v2_s", 16, 256, "size is 256; mvit_v2_s takes exactly 224 pixels a side"),
    ("tsn-vit_b_16", 8, 112, "size is 112; tsn-vit_b_16 takes exactly 224 pixels a side"),
    ("tsn-vit_h_14", 8, 224, "size is 224; tsn-vit_h_14 takes exactly 518 pixels a side"),
    ("tsn-inception_v3", 8, 64, "size is 64; tsn-inception_v3 takes at least 75 pixels a side"),
    ("tsn-resnet19", 8, 224, "model 'tsn-resnet19' is not known; did you mean tsn-resnet1"),
])
def test_frames_that_a_network_cannot_take(name, clip_len, size, rule):
    with pytest.raises(ValueError, match=rule):
        check_input(name, clip_len=clip_len, size=size)


@pytest.mark.parametrize("name, clip_len, size", [
    ("s3d", 14, 224), ("mvit_v1_b", 16, 224), ("tsn-resnet18", 1, 32), ("conv2d", 1, 1), ("r3d_18", 8, 112),
    ("tsm-mobilenet_v2", 5, 64), ("tsn-vit_h_14", 3, 518),
])
def test_frames_that_it_can_take(name, clip_len, size):
    check_input(name, clip_len=clip_len, size=size)


@pytest.mark.parametrize("name, mean, std", [
    ("conv2d", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    ("tsm-resnet50", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    ("r3d_18", (110.2008, 100.63983, 95.99475), (58.14765, 56.46975, 55.332195)),
    ("mvit_v2_s", (114.75,) * 3, (57.375,) * 3),
    ("tsn-efficientnet_v2_l", (127.5,) * 3, (127.5,) * 3),
    ("tsn-inception_v3", (127.5,) * 3, (127.5,) * 3),
])
def test_pixels_are_normalized_as_the_networks_weights_ask_for(name, mean, std):
    assert [*map(tuple, normalization(name))] == [pytest.approx(mean), pytest.approx(std)]


@torch.inference_mode()
def test_inceptions_normalization_is_what_its_own_forward_makes_of_imagenets():
    pixels = torch.randint(0, 256, (1, 3, 75, 75), generator=torch.Generator().manual_seed(0)) / 255
    net = build_net("googlenet")
    net.transform_input = True
    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    own_mean, own_std = normalization("tsn-googlenet")
    expected = (255 * pixels - own_mean[0]) / own_std[0]
    assert net._transform_input((pixels - mean) / std).allclose(expected, atol=1e-5)


@pytest.mark.parametrize("name, options", [
    ("r3d_18", {}), ("conv2d", {"mean": (1.5, 2, 3), "std": (4, 5, 6), "dropout": 0.25, "average_clips": "score"}),
])
def test_a_model_is_rebuilt_from_its_arguments(name, options):
    model = create_model(name, 4, **options)
    arguments = model_arguments(name, model)
    again = create_model(**arguments)
    assert model_arguments(name, again) == arguments and arguments["name"] == name and arguments["num_classes"] == 4
    for key, value in options.items():
        assert arguments[key] == (list(value) if isinstance(value, tuple) else value)
    assert again.data_preprocessor.mean.equal(model.data_preprocessor.mean)
    assert again.data_preprocessor.std.equal(model.data_preprocessor.std)
    again.load_state_dict(model.state_dict())
    pixels = torch.randint(0, 256, (1, 1, 3, 4, 32, 32), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert model.eval()(pixels, mode="logits").allclose(again.eval()(pixels, mode="logits"), atol=1e-6)
