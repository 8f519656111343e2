"""MMAction2's X3D, SlowOnly and SlowFast.

MMAction2 is not installed here. Names and shapes are written down from its sources (version 1.2.0: backbones x3d,
resnet3d, resnet3d_slowonly, resnet3d_slowfast; heads x3d_head, i3d_head, slowfast_head), and its forward passes stand
below once more, as functions of these names. No published file was compared.
"""

import pytest
import torch
import torch.nn.functional as F
from nets import recognizer_from_mmaction2

from tinyaction.models.openmmlab_video import find_kind

NORM = ("weight", "bias", "running_mean", "running_var")


def fill(shapes):
    """A state dict of random values for names and shapes, large enough that no layer fades away."""
    random = torch.Generator().manual_seed(0)
    state = {}
    for name, shape in shapes.items():
        tensor = torch.randn(shape, generator=random)
        if name.endswith("running_var") or (name.endswith("weight") and len(shape) == 1):
            tensor = 0.5 + torch.rand(shape, generator=random)
        elif len(shape) > 1:
            tensor /= shape[1:].numel() ** 0.5
        state[name] = tensor
    return state


def conv_module(name, out_channels, in_channels, kernel, *, norm=True):
    """mmcv's ConvModule without bias."""
    shapes = {f"{name}.conv.weight": torch.Size((out_channels, in_channels, *kernel))}
    return shapes | ({f"{name}.bn.{part}": torch.Size((out_channels,)) for part in NORM} if norm else {})


def linear(name, num_out, num_in, *, bias=True):
    shapes = {f"{name}.weight": torch.Size((num_out, num_in))}
    return shapes | ({f"{name}.bias": torch.Size((num_out,))} if bias else {})


def x3d_state(*, stem=24, depths=(3, 5, 11, 7), gamma_b=2.25, num_classes=6):
    shapes = conv_module("backbone.conv1_s", stem, 3, (1, 3, 3), norm=False)
    shapes |= conv_module("backbone.conv1_t", stem, 1, (5, 1, 1))
    before = stem
    for stage, depth in enumerate(depths):
        out, inner = stem * 2 ** stage, int(stem * 2 ** stage * gamma_b)
        gate = max(8, int(inner / 16 + 4) // 8 * 8)                    # SEModule._round_width
        gate += 8 if gate < 0.9 * inner / 16 else 0
        for index in range(depth):
            name = f"backbone.layer{stage + 1}.{index}"
            if index == 0:
                shapes |= conv_module(f"{name}.downsample", out, before, (1, 1, 1))
            shapes |= conv_module(f"{name}.conv1", inner, before if index == 0 else out, (1, 1, 1))
            shapes |= conv_module(f"{name}.conv2", inner, 1, (3, 3, 3))
            shapes |= conv_module(f"{name}.conv3", out, inner, (1, 1, 1))
            if index % 2 == 0:
                for fc, (num_out, num_in) in {"fc1": (gate, inner), "fc2": (inner, gate)}.items():
                    shapes |= {f"{name}.se_module.{fc}.weight": torch.Size((num_out, num_in, 1, 1, 1)),
                               f"{name}.se_module.{fc}.bias": torch.Size((num_out,))}
        before = out
    shapes |= conv_module("backbone.conv5", inner, out, (1, 1, 1))
    return fill(shapes | linear("cls_head.fc1", 2048, inner, bias=False) | linear("cls_head.fc2", num_classes, 2048))


def pathway(prefix, channels, stem_frames, inflate, *, depths, lateral=0):
    """ResNet3dPathway; ``lateral``: the features that come from the fast pathway, as a share 1 / ``lateral``."""
    shapes = conv_module(f"{prefix}conv1", channels, 3, (stem_frames, 7, 7))
    before = channels
    for stage, depth in enumerate(depths):
        planes = channels * 2 ** stage
        for index in range(depth):
            name = f"{prefix}layer{stage + 1}.{index}"
            width = before + (2 * before // lateral if lateral else 0) if index == 0 else 4 * planes
            if index == 0:
                shapes |= conv_module(f"{name}.downsample", 4 * planes, width, (1, 1, 1))
            shapes |= conv_module(f"{name}.conv1", planes, width, (3 if inflate[stage] else 1, 1, 1))
            shapes |= conv_module(f"{name}.conv2", planes, planes, (1, 3, 3))
            shapes |= conv_module(f"{name}.conv3", 4 * planes, planes, (1, 1, 1))
        before = 4 * planes
    return shapes


def slowonly_state(*, channels=8, depths=(3, 4, 6, 3), num_classes=6):
    shapes = pathway("backbone.", channels, 1, (0, 0, 1, 1), depths=depths)
    return fill(shapes | linear("cls_head.fc_cls", num_classes, 32 * channels))


def slowfast_state(*, channels=16, depths=(1, 2, 1, 1), fusion_frames=7, num_classes=6):
    shapes = pathway("backbone.slow_path.", channels, 1, (0, 0, 1, 1), depths=depths, lateral=8)
    shapes |= pathway("backbone.fast_path.", channels // 8, 5, (1, 1, 1, 1), depths=depths)
    for name, width in (("conv1", channels), *((f"layer{stage}", channels * 2 ** (stage + 1)) for stage in (1, 2, 3))):
        shapes |= conv_module(f"backbone.slow_path.{name}_lateral", 2 * width // 8, width // 8, (fusion_frames, 1, 1),
                              norm=False)
    return fill(shapes | linear("cls_head.fc_cls", num_classes, 32 * channels * 9 // 8))


# ---------------------------------------------------------------------------------------------------------------------
# its forward passes
# ---------------------------------------------------------------------------------------------------------------------

class Forward:
    """MMAction2's modules as functions of a state dict."""

    def __init__(self, state):
        self.state = state

    def conv(self, x, name, *, stride=(1, 1, 1), groups=1, act=True):
        weight = self.state[f"{name}.conv.weight"]
        x = F.conv3d(x, weight, stride=stride, padding=[side // 2 for side in weight.shape[2:]], groups=groups)
        if f"{name}.bn.weight" in self.state:
            norm = {part: self.state[f"{name}.bn.{part}"] for part in NORM}
            x = F.batch_norm(x, norm["running_mean"], norm["running_var"], norm["weight"], norm["bias"])
        return x.relu() if act else x

    def blocks(self, x, layer, block, *, stride):
        index = 0
        while f"{layer}.{index}.conv1.conv.weight" in self.state:
            steps, name = (1, stride, stride) if index == 0 else (1, 1, 1), f"{layer}.{index}"
            out = block(x, name, steps)
            if f"{name}.downsample.conv.weight" in self.state:
                x = self.conv(x, f"{name}.downsample", stride=steps, act=False)
            x = (out + x).relu()
            index += 1
        return x

    def bottleneck3d(self, x, name, stride):
        x = self.conv(self.conv(x, f"{name}.conv1"), f"{name}.conv2", stride=stride)
        return self.conv(x, f"{name}.conv3", act=False)

    def block_x3d(self, x, name, stride):
        x = self.conv(x, f"{name}.conv1")
        x = self.conv(x, f"{name}.conv2", stride=stride, groups=x.shape[1], act=False)
        if f"{name}.se_module.fc1.weight" in self.state:
            gate = F.adaptive_avg_pool3d(x, 1)
            for fc, act in (("fc1", torch.relu), ("fc2", torch.sigmoid)):
                weight, bias = (self.state[f"{name}.se_module.{fc}.{part}"] for part in ("weight", "bias"))
                gate = act(F.conv3d(gate, weight, bias))
            x = x * gate
        return self.conv(x * x.sigmoid(), f"{name}.conv3", act=False)

    def linear(self, x, name):
        return F.linear(x, self.state[f"{name}.weight"], self.state.get(f"{name}.bias"))

    def x3d(self, x):
        x = self.conv(self.conv(x, "backbone.conv1_s", stride=(1, 2, 2), act=False), "backbone.conv1_t",
                      groups=len(self.state["backbone.conv1_t.conv.weight"]))
        for stage in (1, 2, 3, 4):
            x = self.blocks(x, f"backbone.layer{stage}", self.block_x3d, stride=2)
        x = F.adaptive_avg_pool3d(self.conv(x, "backbone.conv5"), 1).flatten(1)
        return self.linear(self.linear(x, "cls_head.fc1").relu(), "cls_head.fc2")

    def stem(self, x, prefix):
        return F.max_pool3d(self.conv(x, f"{prefix}conv1", stride=(1, 2, 2)), (1, 3, 3), (1, 2, 2), (0, 1, 1))

    def slowonly(self, x):
        x = self.stem(x, "backbone.")
        for stage in (1, 2, 3, 4):
            x = self.blocks(x, f"backbone.layer{stage}", self.bottleneck3d, stride=1 if stage == 1 else 2)
        return self.linear(F.adaptive_avg_pool3d(x, 1).flatten(1), "cls_head.fc_cls")

    def slowfast(self, x, *, alpha):
        def lateral(slow, fast, name):
            fused = self.conv(fast, f"backbone.slow_path.{name}_lateral", stride=(alpha, 1, 1), act=False)
            return torch.cat((slow, fused), dim=1)

        slow = F.interpolate(x, mode="nearest", scale_factor=(1 / alpha, 1.0, 1.0))
        slow, fast = self.stem(slow, "backbone.slow_path."), self.stem(x, "backbone.fast_path.")
        slow = lateral(slow, fast, "conv1")
        for stage in (1, 2, 3, 4):
            stride = 1 if stage == 1 else 2
            slow = self.blocks(slow, f"backbone.slow_path.layer{stage}", self.bottleneck3d, stride=stride)
            fast = self.blocks(fast, f"backbone.fast_path.layer{stage}", self.bottleneck3d, stride=stride)
            if stage < 4:
                slow = lateral(slow, fast, f"layer{stage}")
        pooled = [F.adaptive_avg_pool3d(features, 1).flatten(1) for features in (fast, slow)]  # in this order
        return self.linear(torch.cat(pooled, dim=1), "cls_head.fc_cls")


CASES = [
    ("x3d", x3d_state(), 4, lambda forward, x: forward.x3d(x)),
    ("x3d", x3d_state(depths=(5, 10, 25, 15)), 2, lambda forward, x: forward.x3d(x)),
    ("x3d", x3d_state(stem=16, depths=(1, 2, 5, 3), gamma_b=3.0), 3, lambda forward, x: forward.x3d(x)),
    ("slowonly", slowonly_state(), 4, lambda forward, x: forward.slowonly(x)),
    ("slowonly", slowonly_state(depths=(3, 4, 23, 3)), 2, lambda forward, x: forward.slowonly(x)),
    ("slowfast", slowfast_state(), 8, lambda forward, x: forward.slowfast(x, alpha=4)),
    ("slowfast", slowfast_state(fusion_frames=5), 16, lambda forward, x: forward.slowfast(x, alpha=8)),
]


@torch.no_grad()
@pytest.mark.parametrize("kind, state, clip_len, forward", CASES)
def test_the_scores_are_mmaction2s(kind, state, clip_len, forward):
    assert find_kind(state) == kind
    model = recognizer_from_mmaction2(state).eval()
    pixels = torch.randint(0, 256, (2, 1, 3, clip_len, 64, 64), generator=torch.Generator().manual_seed(0))
    mean, std = {"x3d": ((114.75,) * 3, (57.38,) * 3)}.get(kind, ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)))
    normalized = (pixels[:, 0] - torch.tensor(mean).view(3, 1, 1, 1)) / torch.tensor(std).view(3, 1, 1, 1)
    expected = forward(Forward(state), normalized)
    logits = model(pixels, mode="logits")[:, 0]
    scale = expected.abs().max().item()
    assert scale > 0.1 and (expected[0] - expected[1]).abs().max() > 1e-4 * scale
    assert (logits - expected).abs().max().item() <= 1e-5 * max(1.0, scale)


def test_a_checkpoint_of_its_runner_may_have_other_prefixes_and_its_preprocessor():
    state = {f"module.{name}": tensor for name, tensor in slowonly_state().items()}
    state["module.data_preprocessor.mean"] = torch.zeros(3, 1, 1, 1)
    assert find_kind(state) == "slowonly"
    recognizer_from_mmaction2(state)


@pytest.mark.parametrize("change, message", [
    ({"backbone.layer2.0.conv2.bn.running_var": None},
     "file.pth does not fit slowfast: 1 of .*, backbone.blocks.2.res_blocks.0.branch2.norm_b.running_var"),
    ({"backbone.layer3.2.non_local_block.g.conv.weight": torch.zeros(4, 8, 1, 1, 1)},
     "file.pth does not fit slowfast: 1 of its .* no place, .*non_local_block"),
    ({"backbone.layer1.0.conv1.conv.weight": torch.zeros(8, 8, 3, 1, 1)},
     "backbone.layer1 sees 3 frames at once, the network here 1"),
    ({"cls_head.fc_cls.weight": None}, "file.pth is cut: cls_head.fc_cls.weight is missing"),
    ({"backbone.layer4.0.conv1.conv.weight": torch.zeros(64, 128, 3, 1, 2)},
     r"its backbone.blocks.4.res_blocks.0.branch2.conv_a.weight is \(64, 128, 3, 1, 2\), that of the network"),
])
def test_files_that_do_not_fit(change, message):
    state = {name: tensor for name, tensor in (slowonly_state() | change).items() if tensor is not None}
    with pytest.raises(ValueError, match=message):
        recognizer_from_mmaction2(state, source="file.pth")


def test_a_slowfast_of_unequal_pathways_and_unknown_fusions():
    state = slowfast_state() | fill(pathway("backbone.fast_path.", 2, 5, (1, 1, 1, 1), depths=(1, 3, 1, 1)))
    with pytest.raises(ValueError, match=r"\[1, 2, 1, 1\] blocks in the slow pathway and \[1, 3, 1, 1\] in the fast"):
        recognizer_from_mmaction2(state)
    with pytest.raises(ValueError, match="fusions of 3 frames are in no published config"):
        recognizer_from_mmaction2(slowfast_state(fusion_frames=3))


@pytest.mark.parametrize("names", [[], ["backbone.conv1.conv.weight", "cls_head.fc_cls.weight"], ["head.weight"]])
def test_other_networks_are_none_of_these(names):
    state = {name: torch.zeros(4, 3, 7, 7) for name in names}          # a TSN has four dimensions
    assert find_kind(state) is None
    with pytest.raises(ValueError, match="the file is no X3D, SlowOnly, SlowFast, TimeSformer or"):
        recognizer_from_mmaction2(state)
