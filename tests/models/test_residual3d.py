"""X3D, Slow and SlowFast as recognizers: windows, frames of the slow pathway, clips that they cannot take."""

import math
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tinyaction.models import slowfast, x3d
from tinyaction.models.residual3d import WindowHead
from tinyaction.models.torch_file import find_state_dict, read_torch_file

CARDS = [*x3d.PUBLISHED, *slowfast.PUBLISHED]


def small_x3d():
    return x3d.build(num_classes=3, width=1.0, depth=1.0, stem_channels=8, hidden=16, window=(4, 2, 2)).eval()


def small_slowfast(**options):
    arguments = dict(depths=(1, 1, 1, 1), channels=16, num_classes=3, window=(1, 2, 2)) | options
    return slowfast.build("slowfast", **arguments).eval()


def pixels(*shape):
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


# ---------------------------------------------------------------------------------------------------------------------
# the head
# ---------------------------------------------------------------------------------------------------------------------

def head_of_one_feature(**options):
    """Logits are (x, 0) of the mean x of a window."""
    head = WindowHead(2, 1, dropout=0, **options)
    head.load_state_dict({"fc.weight": torch.tensor([[1.0], [0.0]]), "fc.bias": torch.zeros(2)})
    return head


def test_a_window_is_moved_over_the_map_by_steps_of_one():
    features = torch.arange(9.0).view(1, 1, 1, 3, 3)                   # (N, T, F, h, w): 0 1 2 | 3 4 5 | 6 7 8
    windows = [(0 + 1 + 3 + 4) / 4, (1 + 2 + 4 + 5) / 4, (3 + 4 + 6 + 7) / 4, (4 + 5 + 7 + 8) / 4]
    logits = head_of_one_feature(window=(1, 2, 2))(features)
    assert logits.tolist() == [[pytest.approx(sum(windows) / 4), 0.0]]
    probabilities = head_of_one_feature(window=(1, 2, 2), average_windows="prob")(features).exp()
    expected = sum(1 / (1 + math.exp(-window)) for window in windows) / 4
    assert probabilities.tolist() == [[pytest.approx(expected), pytest.approx(1 - expected)]]


@pytest.mark.parametrize("average_windows", ["logits", "prob"])
@pytest.mark.parametrize("window", [None, (1, 3, 3), (5, 7, 7)])
def test_a_map_that_is_no_larger_than_the_window_has_its_plain_mean(window, average_windows):
    features = torch.arange(9.0).view(1, 1, 1, 3, 3)
    head = head_of_one_feature(window=window, average_windows=average_windows)
    assert head(features).tolist() == [[4.0, 0.0]]


def test_edges_count_less_where_windows_overlap():
    """Ones at the corners are in one window each, a one in the middle is in all four."""
    head = head_of_one_feature(window=(1, 2, 2))
    corner, middle = torch.zeros(2, 1, 1, 1, 3, 3)
    corner[..., 0, 0], middle[..., 1, 1] = 1, 1
    assert head(corner)[0, 0].item() == pytest.approx(1 / 16)
    assert head(middle)[0, 0].item() == pytest.approx(1 / 4)


# ---------------------------------------------------------------------------------------------------------------------
# frames
# ---------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("num_frames, alpha, strided, expected", [
    (32, 4, False, [0, 4, 8, 13, 17, 22, 26, 31]),
    (32, 4, True, [0, 4, 8, 12, 16, 20, 24, 28]),
    (32, 8, True, [0, 8, 16, 24]),
    (8, 4, False, [0, 7]),
    (4, 4, False, [0]),
    (3, 1, False, [0, 1, 2]),
])
def test_the_slow_pathway_sees_one_frame_in_alpha(num_frames, alpha, strided, expected):
    assert slowfast.slow_indices(num_frames, alpha, strided=strided) == expected


@pytest.mark.parametrize("num_frames", [8, 16, 32, 64, 128])
def test_spread_frames_are_those_of_the_published_rule(num_frames):
    published = torch.linspace(0, num_frames - 1, num_frames // 4).long().tolist()
    assert slowfast.slow_indices(num_frames, 4) == published


@torch.no_grad()
def test_each_pathway_sees_its_own_frames():
    """A frame between two of the slow pathway changes the fast features; both change with a frame of both."""
    model = small_slowfast(fusion_norm=False)
    for part in model.backbone.blocks:
        if part.multipathway_fusion is not None:
            torch.nn.init.zeros_(part.multipathway_fusion.conv_fast_to_slow.weight)
    clip = torch.randn(1, 3, 8, 64, 64, generator=torch.Generator().manual_seed(0))
    num_slow = model.backbone.out_channels * 8 // 9
    before = model.backbone(clip)
    for frame, slow_changes in ((3, False), (7, True), (0, True)):
        changed = clip.clone()
        changed[:, :, frame] += 1
        after = model.backbone(changed)
        assert before[:, :num_slow].equal(after[:, :num_slow]) != slow_changes
        assert not before[:, num_slow:].equal(after[:, num_slow:])


@torch.no_grad()
@pytest.mark.parametrize("make", [small_x3d, small_slowfast, lambda: slowfast.build(
    "slow", depths=(1, 1, 1, 1), channels=8, num_classes=3).eval()], ids=["x3d", "slowfast", "slow"])
def test_a_recognizer_of_views(make):
    """Scores are the mean of the views' probabilities, whatever goes through the network at once."""
    torch.manual_seed(0)
    model, inputs = make(), pixels(2, 3, 3, 4, 64, 64)                 # (B, V, C, T, H, W)
    torch.nn.init.normal_(model.cls_head.fc.weight)
    logits = model(inputs, mode="logits")                              # (B, V, K)
    samples = model(inputs, [SimpleNamespace(), SimpleNamespace()], mode="predict")
    scores = torch.stack([sample.pred_score for sample in samples])
    assert scores.allclose(logits.softmax(dim=2).mean(dim=1)) and scores.std() > 1e-4
    for video in range(2):
        assert model(inputs[video : video + 1], mode="logits").allclose(logits[video : video + 1], atol=1e-5)
    model.max_views = 2
    assert model(inputs, mode="logits").allclose(logits, atol=1e-5)
    features = model(inputs)                                           # (B*V, t, F, h, w)
    assert features.shape[0] == 6 and features.shape[2:] == (model.backbone.out_channels, 2, 2)


# ---------------------------------------------------------------------------------------------------------------------
# what they cannot take, and what they cost
# ---------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("make, clip_len, size, rule", [
    (small_slowfast, 30, 64, "clip_len is 30; SlowFast takes multiples of 4 frames"),
    (small_slowfast, 2, 64, "clip_len is 2; SlowFast takes multiples of 4 frames"),
    (small_slowfast, 4, 31, "size is 31; SlowFast takes at least 32 pixels a side"),
    (small_x3d, 4, 24, "size is 24; X3D takes at least 32 pixels a side"),
])
def test_clips_that_a_network_cannot_take(make, clip_len, size, rule):
    with pytest.raises(ValueError, match=rule):
        make()(pixels(1, 1, 3, clip_len, size, size), mode="logits")


@pytest.mark.parametrize("family, arguments, clip_len, size, rule", [
    (x3d, {}, 0, 160, "clip_len is 0; X3D takes at least 1 frame"),
    (x3d, {}, 4, 16, "size is 16; X3D takes at least 32 pixels a side"),
    (slowfast, {"kind": "slow"}, 8, 16, "size is 16; Slow takes at least 32 pixels a side"),
    (slowfast, {"kind": "slowfast"}, 31, 224, "clip_len is 31; SlowFast takes multiples of 4 frames"),
    (slowfast, {"kind": "slowfast", "alpha": 8}, 12, 224, "clip_len is 12; SlowFast takes multiples of 8 frames"),
])
def test_clips_are_checked_before_a_network_is_built(family, arguments, clip_len, size, rule):
    with pytest.raises(ValueError, match=rule):
        family.check_input(arguments, clip_len=clip_len, size=size)


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_published_clips_fit(card):
    (x3d if card.name.startswith("x3d") else slowfast).check_input(
        card.arguments, clip_len=card.clip_len, size=card.test_size)


def test_tensors_that_are_missing_are_named():
    state = small_x3d().state_dict()
    del state["backbone.blocks.1.res_blocks.0.branch2.conv_a.weight"]
    with pytest.raises(RuntimeError, match=r"blocks\.1\.res_blocks\.0\.branch2\.conv_a\.weight"):
        small_x3d().load_state_dict(state)


def test_the_tensors_of_a_published_file_are_found(tmp_path):
    state = small_x3d().state_dict()
    torch.save({"model_state": state, "epoch": 3}, tmp_path / "X3D_S.pyth")
    found = find_state_dict(read_torch_file(tmp_path / "X3D_S.pyth"), tmp_path / "X3D_S.pyth")
    assert found.keys() == state.keys()


def test_a_block_starts_as_its_shortcut():
    model = small_x3d()
    block = model.backbone.blocks[3].res_blocks[1]                     # without a convolution in the shortcut
    x = torch.rand(1, 32, 2, 4, 4)
    assert block.branch1_conv is None and block(x).equal(x)


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_parameters_and_multiply_adds_are_those_on_the_card(card):
    """On shapes alone. At 256 pixels the two of 50 layers need what PyTorchVideo publishes: 54.52 and 65.71."""
    with torch.device("meta"):
        model = (x3d if card.name.startswith("x3d") else slowfast).build(**card.arguments).eval()
    assert sum(parameter.numel() for parameter in model.parameters()) == card.num_parameters
    gflops = {}
    for size in (card.size, card.test_size):
        with FlopCounterMode(display=False) as counter:
            model(torch.empty((1, 1, 3, card.clip_len, size, size), dtype=torch.uint8, device="meta"), mode="logits")
        gflops[size] = counter.get_total_flops() / 2e9
    assert gflops[card.size] == pytest.approx(card.gflops, abs=0.001)
    published = {"slow_r50": 54.52, "slowfast_r50": 65.71}
    if card.name in published:
        assert gflops[256] == pytest.approx(published[card.name], abs=0.01)


def test_importing_the_package_imports_none_of_this():
    code = "import sys, tinyaction; print([m for m in sys.modules if m.endswith(('x3d', 'slowfast', 'residual3d'))])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
