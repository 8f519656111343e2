"""X3D, Slow and SlowFast beside PyTorchVideo's own: same tensors, same features, logits and gradients."""

import math
import warnings

import pytest
import torch
import torch.nn.functional as F
from nets import enliven

from tinyaction.models import slowfast, x3d

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it uses what torch and torchvision gave up
    pytest.importorskip("pytorchvideo.models.hub", reason="pytorchvideo is not installed; the extra 'peers' has it")
    from pytorchvideo.models import hub
    from pytorchvideo.models.resnet import create_resnet
    from pytorchvideo.models.slowfast import create_slowfast
    from pytorchvideo.models.x3d import create_x3d

X3D_SIZES = [
    dict(width=1.0, depth=1.0, bottleneck=2.25, stem_channels=8, se_ratio=0.0625, hidden=32),
    dict(width=1.5, depth=1.4, bottleneck=3.0, stem_channels=12, se_ratio=0.125, hidden=96),
    dict(width=2.0, depth=2.2, bottleneck=2.25, stem_channels=12, se_ratio=0.0625, hidden=256),
]
SLOW_SIZES = [(50, 8), (50, 16), (101, 8)]                             # PyTorchVideo's depth, channels of the stem
SLOWFAST_SIZES = [(18, 16, 4, 7), (50, 16, 4, 5), (50, 32, 8, 7)]      # ..., alpha, frames of a fusion's kernel
DEPTHS = {18: (1, 1, 1, 1), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


def x3d_pair(arguments, *, clip_len, size, activation=None, num_classes=7):
    theirs = create_x3d(
        input_clip_length=clip_len, input_crop_size=size, model_num_class=num_classes, dropout_rate=0,
        width_factor=arguments["width"], depth_factor=arguments["depth"], bottleneck_factor=arguments["bottleneck"],
        stem_dim_in=arguments["stem_channels"], se_ratio=arguments["se_ratio"], head_dim_out=arguments["hidden"],
        head_activation=activation)
    side = math.ceil(size / 32)
    ours = x3d.build(num_classes=num_classes, window=(clip_len, side, side), dropout=0, **arguments)
    return loaded(theirs, ours, x3d.convert)


def slow_pair(depth, channels, *, clip_len, size, num_classes=7):
    theirs = create_resnet(model_depth=depth, stem_dim_out=channels, model_num_class=num_classes, dropout_rate=0,
                           stem_conv_kernel_size=(1, 7, 7), head_pool_kernel_size=(clip_len, size // 32, size // 32))
    ours = slowfast.build("slow", depths=DEPTHS[depth], channels=channels,
                          num_classes=num_classes, window=(clip_len, size // 32, size // 32), dropout=0)
    return loaded(theirs, ours, slowfast.convert)


def slowfast_pair(depth, channels, alpha, fusion_frames, *, clip_len, size, num_classes=7):
    side = size // 32
    theirs = create_slowfast(
        model_depth=depth, stem_dim_outs=(channels, channels // 8), model_num_class=num_classes, dropout_rate=0,
        slowfast_fusion_conv_kernel_size=(fusion_frames, 1, 1), slowfast_fusion_conv_stride=(alpha, 1, 1),
        head_pool_kernel_sizes=((clip_len // alpha, side, side), (clip_len, side, side)))
    ours = slowfast.build("slowfast", depths=DEPTHS[depth], channels=channels, alpha=alpha, window=(1, side, side),
                          fusion_frames=fusion_frames, num_classes=num_classes, dropout=0)
    return loaded(theirs, ours, slowfast.convert)


def loaded(theirs, ours, convert):
    """Both with the same lively tensors; that no name is missing or unexpected is what ``strict`` says."""
    enliven(theirs)
    theirs.blocks[-1].proj.weight.data.mul_(50)                        # logits of about 1
    ours.load_state_dict(convert(theirs.state_dict()), strict=True)
    return theirs.eval(), ours.eval()


def clips(clip_len, size, num=2):
    return torch.randn(num, 3, clip_len, size, size, generator=torch.Generator().manual_seed(0))


def two_pathways(clips, alpha):
    """As PyTorchVideo's tutorials pack a clip."""
    indices = torch.linspace(0, clips.shape[2] - 1, clips.shape[2] // alpha).long()
    return [clips.index_select(2, indices), clips]


def logits(model, inputs):
    return model.cls_head(model.backbone(inputs).transpose(1, 2))


def features_at(blocks, x, depth):
    """What comes out of the first ``depth`` blocks: one tensor, or one for each pathway."""
    for block in list(blocks)[:depth]:
        x = block(*x) if isinstance(x, tuple) else block(x)
    return x


def assert_close(ours, theirs, tolerance):
    """Within ``tolerance``, relative to the largest value where that is more than 1."""
    scale = max(1.0, theirs.abs().max().item())
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max().item() <= tolerance * scale


@pytest.mark.parametrize("arguments", X3D_SIZES)
def test_x3d_is_pytorchvideos(arguments):
    theirs, ours = x3d_pair(arguments, clip_len=5, size=64)
    inputs = clips(5, 64)
    with torch.no_grad():
        for depth in (2, 5):
            assert_close(features_at(ours.backbone.blocks, inputs, depth),
                         features_at(theirs.blocks, inputs, depth), 1e-5)
        assert_close(logits(ours, inputs), theirs(inputs), 1e-5)


@pytest.mark.parametrize("depth, channels", SLOW_SIZES)
def test_slow_is_pytorchvideos(depth, channels):
    theirs, ours = slow_pair(depth, channels, clip_len=4, size=64)
    inputs = clips(4, 64)
    with torch.no_grad():
        for blocks in (2, 5):
            assert_close(features_at(ours.backbone.blocks, inputs, blocks),
                         features_at(theirs.blocks, inputs, blocks), 1e-5)
        assert_close(logits(ours, inputs), theirs(inputs), 1e-5)


@pytest.mark.parametrize("depth, channels, alpha, fusion_frames", SLOWFAST_SIZES)
def test_slowfast_is_pytorchvideos(depth, channels, alpha, fusion_frames):
    theirs, ours = slowfast_pair(depth, channels, alpha, fusion_frames, clip_len=16, size=64)
    inputs = clips(16, 64)
    with torch.no_grad():
        for blocks in (2, 5):
            slow, fast = features_at(theirs.blocks, two_pathways(inputs, alpha), blocks)
            own_slow, own_fast = features_at(ours.backbone.blocks, tuple(two_pathways(inputs, alpha)), blocks)
            assert_close(own_slow, slow, 1e-5)
            assert_close(own_fast, fast, 1e-5)
        assert_close(logits(ours, inputs), theirs(two_pathways(inputs, alpha)), 1e-5)


@torch.no_grad()
@pytest.mark.parametrize("size, num_windows", [(64, 1), (96, 4), (128, 9)])
def test_larger_pictures_have_the_mean_of_windows(size, num_windows):
    """X3D averages probabilities, Slow and SlowFast logits, as the published networks do at their test sizes."""
    inputs = clips(4, size)
    theirs, ours = x3d_pair(X3D_SIZES[0], clip_len=4, size=64, activation=torch.nn.Softmax)
    assert theirs.blocks[5].pool(features_at(theirs.blocks, inputs, 5))[0, 0].numel() == num_windows
    assert_close(logits(ours, inputs).softmax(dim=1), theirs(inputs), 1e-6)
    theirs, ours = slow_pair(50, 8, clip_len=4, size=64)
    assert_close(logits(ours, inputs), theirs(inputs), 1e-5)
    theirs, ours = slowfast_pair(18, 16, 4, 7, clip_len=4, size=64)
    assert_close(logits(ours, inputs), theirs(two_pathways(inputs, 4)), 1e-5)


@torch.no_grad()
def test_longer_clips_have_the_mean_of_windows_too():
    theirs, ours = slow_pair(50, 8, clip_len=4, size=64)
    assert_close(logits(ours, clips(7, 64)), theirs(clips(7, 64)), 1e-5)


@torch.no_grad()
def test_smaller_clips_are_those_of_a_network_made_for_them():
    _, ours = x3d_pair(X3D_SIZES[0], clip_len=8, size=96)
    theirs, _ = x3d_pair(X3D_SIZES[0], clip_len=5, size=64)
    ours.load_state_dict(x3d.convert(theirs.state_dict()))
    assert_close(logits(ours, clips(5, 64)), theirs(clips(5, 64)), 1e-5)


@pytest.mark.parametrize("mode, dtype, tolerance", [("eval", torch.float32, 1e-4), ("train", torch.float64, 1e-9)])
@pytest.mark.parametrize("kind", ["x3d", "slow", "slowfast"])
def test_the_gradients_of_a_loss_are_pytorchvideos(kind, mode, dtype, tolerance):
    """In training mode in double precision: norms of a small batch enlarge what rounding leaves."""
    pair = {"x3d": lambda: x3d_pair(X3D_SIZES[1], clip_len=4, size=64),
            "slow": lambda: slow_pair(50, 16, clip_len=4, size=64),
            "slowfast": lambda: slowfast_pair(18, 16, 4, 7, clip_len=8, size=64)}[kind]
    theirs, ours = (model.to(dtype).train(mode == "train") for model in pair())
    inputs, labels = clips(8 if kind == "slowfast" else 4, 64).to(dtype), torch.tensor([1, 4])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its Swish uses a name that torch gave up
        F.cross_entropy(theirs(two_pathways(inputs, 4) if kind == "slowfast" else inputs), labels).backward()
    F.cross_entropy(logits(ours, inputs), labels).backward()
    convert = x3d.convert if kind == "x3d" else slowfast.convert
    expected = convert({name: parameter.grad for name, parameter in theirs.named_parameters()})
    found = {name: parameter.grad for name, parameter in ours.named_parameters()}
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert_close(found[name], gradient, tolerance)
    assert max(gradient.abs().max().item() for gradient in expected.values()) > 1e-2


@pytest.mark.parametrize("card", [*x3d.PUBLISHED, *slowfast.PUBLISHED], ids=lambda card: card.name)
def test_the_published_networks_have_the_same_tensors(card):
    """Full size, on shapes alone."""
    family = x3d if card.name.startswith("x3d") else slowfast
    with torch.device("meta"):
        theirs = getattr(hub, card.name)()
        ours = family.build(num_classes=card.num_classes, **card.arguments)
    converted = family.convert(theirs.state_dict())
    assert {name: tensor.shape for name, tensor in ours.state_dict().items()} == \
        {name: tensor.shape for name, tensor in converted.items()}


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("card", [*x3d.PUBLISHED, *slowfast.PUBLISHED], ids=lambda card: card.name)
def test_the_published_networks_give_the_same_scores(card):
    """Full size and the published input, with random weights."""
    family = x3d if card.name.startswith("x3d") else slowfast
    theirs, ours = loaded(getattr(hub, card.name)(), family.build(**card.arguments), family.convert)
    inputs = clips(card.clip_len, card.test_size, num=1)
    expected = theirs(two_pathways(inputs, 4) if card.name.startswith("slowfast") else inputs)
    found = logits(ours, inputs)
    assert_close(found.softmax(dim=1) if card.name.startswith("x3d") else found, expected, 1e-5)
