"""The recognizers: values and properties that hold for any weights."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import tinyaction as ta
from tinyaction.models import model_arguments

MODEL_NAMES = ["conv2d", "conv3d"]


def model_of(name, *, num_classes=3, seed=0, **options):
    """A model in evaluation mode whose norms and last layer are not at their neutral start."""
    generator = torch.Generator().manual_seed(seed)
    model = ta.create_model(name, num_classes, **options)
    with torch.no_grad():
        for key, values in model.state_dict().items():
            if not key.endswith("num_batches_tracked"):
                low, high = (0.5, 1.5) if key.endswith(("running_var", "1.weight")) else (-0.3, 0.3)
                values.copy_(torch.rand(values.shape, generator=generator) * (high - low) + low)
    return model.eval()


def pixels(*shape, seed=0):
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def samples_of(*labels, num_clips=1):
    return [ta.DataSample(torch.tensor([label]), (32, 32), num_clips, 4, f"{label}.mp4") for label in labels]


class Lookup(nn.Module):
    """A backbone without weights: the features of a frame are the means of its channels."""

    def forward(self, frames):
        return frames.mean(dim=(2, 3), keepdim=True)  # (N, 3, 1, 1)


def model_with_known_logits(average_clips="prob"):
    """Logits of a clip = its mean colour in units of 1/255."""
    head = ta.TemporalAverageHead(3, 3, average_clips=average_clips)
    head.fc.weight.data = torch.eye(3)
    return ta.Recognizer(Lookup(), head, ta.VideoPreprocessor(mean=(0, 0, 0), std=(255, 255, 255))).eval()


def coloured(*colours):
    """One video (1, V, 3, T=2, 4, 4), each view of one colour; 255 is a logit of 1."""
    return torch.tensor(colours).mul(255)[None, :, :, None, None, None].expand(1, -1, 3, 2, 4, 4)


# ---------------------------------------------------------------------------------------------------------------------
# preprocessor
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_preprocessor_normalizes_each_channel(dtype):
    frame = torch.zeros(2, 5, 3, 4, 6, 7, dtype=dtype)
    frame[:, :, 1] = 255
    out = ta.VideoPreprocessor()(frame)
    assert out.dtype == torch.float32 and out.shape == frame.shape
    expected = [(0 - 123.675) / 58.395, (255 - 116.28) / 57.12, (0 - 103.53) / 57.375]
    for channel, value in enumerate(expected):
        assert torch.allclose(out[:, :, channel], torch.tensor(value))


def test_preprocessor_takes_other_statistics():
    out = ta.VideoPreprocessor(mean=(0, 1, 2), std=(1, 2, 4))(torch.full((1, 1, 3, 1, 1, 1), 6))
    assert out.flatten().tolist() == [6.0, 2.5, 1.0]


# ---------------------------------------------------------------------------------------------------------------------
# features
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, expected", [("conv2d", (2 * 3, 8, 128, 4, 5)), ("conv3d", (2 * 3, 4, 128, 4, 5))])
def test_features_are_views_frames_channels_height_width(name, expected):
    model = ta.create_model(name, 3).eval()
    inputs = pixels(2, 3, 3, 8, 32, 40)  # (B, V, C, T, H, W)
    assert model(inputs).shape == model(inputs, mode="tensor").shape == expected
    assert model(inputs, mode="logits").shape == (2, 3, 3)


@torch.inference_mode()
def test_conv2d_is_the_guides_network():
    model, frames = model_of("conv2d"), torch.randn(2, 3, 33, 40, generator=torch.Generator().manual_seed(0))
    w = {key.removeprefix("backbone."): values for key, values in model.state_dict().items()}

    def norm(x, name):
        statistics = (w[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias"))
        mean, var, weight, bias = (values[:, None, None] for values in statistics)
        return (x - mean) / (var + 1e-5).sqrt() * weight + bias

    x = F.conv2d(frames, w["conv1.0.weight"], w["conv1.0.bias"], stride=2, padding=3)
    x = F.max_pool2d(norm(x, "conv1.1").relu(), 3, stride=2, padding=1)
    x = F.conv2d(x, w["conv.0.weight"], w["conv.0.bias"], stride=2, padding=1)
    assert torch.allclose(model.backbone(frames), norm(x, "conv.1").relu(), atol=1e-4)


@torch.inference_mode()
def test_conv2d_the_score_of_a_clip_is_the_mean_of_its_frames_scores():
    model, inputs = model_of("conv2d"), pixels(2, 2, 3, 4, 32, 32)
    of_frames = torch.stack([model(inputs[:, :, :, t : t + 1], mode="logits") for t in range(4)])
    assert torch.allclose(model(inputs, mode="logits"), of_frames.mean(dim=0), atol=1e-5)
    assert of_frames.std(dim=0).min() > 1e-3  # the frames do differ


@torch.inference_mode()
def test_order_of_frames_matters_to_conv3d_only():
    inputs = pixels(1, 1, 3, 8, 32, 32)
    backwards = inputs.flip(3)
    for name, matters in (("conv2d", False), ("conv3d", True)):
        model = model_of(name)
        forth, back = model(inputs, mode="logits"), model(backwards, mode="logits")
        assert torch.allclose(forth, back, atol=1e-5) is not matters


@pytest.mark.parametrize("name", MODEL_NAMES)
@torch.inference_mode()
def test_a_videos_score_does_not_depend_on_its_neighbours(name):
    model, inputs = model_of(name), pixels(3, 2, 3, 4, 32, 32)
    together = model(inputs, mode="logits")
    alone = torch.cat([model(inputs[i : i + 1], mode="logits") for i in range(3)])
    views = torch.cat([model(inputs[:, v : v + 1], mode="logits") for v in range(2)], dim=1)
    assert torch.allclose(together, alone, atol=1e-5)
    assert torch.allclose(together, views, atol=1e-5)
    assert together.std(dim=(0, 1)).min() > 1e-3  # the videos do differ


@torch.inference_mode()
def test_head_averages_space_and_frames():
    head = ta.TemporalAverageHead(2, 3).eval()
    features = torch.randn(4, 5, 3, 2, 6, generator=torch.Generator().manual_seed(0))  # (N, T, F, h, w)
    expected = head.fc(features.sum(dim=(1, 3, 4)) / (5 * 2 * 6))
    assert torch.allclose(head(features), expected, atol=1e-6)


def test_dropout_acts_in_training_on_the_averaged_features():
    torch.manual_seed(0)
    head = ta.TemporalAverageHead(1000, 1000, dropout=0.25)
    head.fc.weight.data = torch.eye(1000)
    features = torch.ones(1, 2, 1000, 1, 1)
    kept = head.train()(features)[0]
    assert sorted(kept.unique().tolist()) == pytest.approx([0, 1 / 0.75])
    assert 0.2 < (kept == 0).float().mean() < 0.3
    assert head.eval()(features).tolist() == torch.ones(1, 1000).tolist()

    head.fc.weight.data = torch.ones(1000, 1000) / 1000  # all classes see the same features, so all lose the same
    scores = head.train()(features)
    assert 1e-4 < (scores.mean() - 1).abs() < 0.1 and scores.std() < 1e-5


# ---------------------------------------------------------------------------------------------------------------------
# predictions
# ---------------------------------------------------------------------------------------------------------------------

VIEWS = ([2.0, 0.0, 0.0], [0.0, 1.0, 0.0])  # logits of two views


@pytest.mark.parametrize("average_clips, expected", [
    ("prob", [(math.e**2 / (math.e**2 + 2) + 1 / (math.e + 2)) / 2,
              (1 / (math.e**2 + 2) + math.e / (math.e + 2)) / 2,
              (1 / (math.e**2 + 2) + 1 / (math.e + 2)) / 2]),
    ("score", [1.0, 0.5, 0.0]),
    (None, [[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]]),
])
def test_views_are_averaged(average_clips, expected):
    (sample,) = model_with_known_logits(average_clips)(coloured(*VIEWS), samples_of(1), mode="predict")
    assert torch.allclose(sample.pred_score, torch.tensor(expected))
    assert sample.pred_label.item() == 0 and sample.pred_label.shape == ()
    assert sample.label.tolist() == [1]  # what is known stays


@pytest.mark.parametrize("average_clips, expected", [
    ("prob", [[0.5 * (0.8 + 0.25), 0.5 * (0.2 + 0.75)]]), ("score", [[0.5 * math.log(4), 0.5 * math.log(3)]]),
    (None, [[0.5 * math.log(4), 0.5 * math.log(3)]]),
])
def test_a_video_has_one_score_per_class_however_its_views_are_kept(average_clips, expected):
    head = ta.TemporalAverageHead(2, 3, average_clips=average_clips)
    logits = torch.tensor([[[math.log(4), 0.0], [0.0, math.log(3)]]])  # (1, 2, 2): softmax 0.8 0.2 and 0.25 0.75
    assert torch.allclose(head.video_scores(logits), torch.tensor(expected))


def test_each_sample_gets_the_prediction_of_its_own_video():
    inputs = torch.cat([coloured([0.0, 0.0, 1.0]), coloured([0.0, 1.0, 0.0]), coloured([1.0, 0.0, 0.0])])
    samples = samples_of(0, 0, 0)
    predicted = model_with_known_logits()(inputs, samples, mode="predict")
    assert [sample.pred_label.item() for sample in predicted] == [2, 1, 0]
    assert all(a is b for a, b in zip(predicted, samples, strict=True))


def test_equal_scores_predict_the_lowest_class():
    (sample,) = model_with_known_logits()(coloured([0.0, 1.0, 1.0]), samples_of(0), mode="predict")
    assert sample.pred_label.item() == 1


# ---------------------------------------------------------------------------------------------------------------------
# training
# ---------------------------------------------------------------------------------------------------------------------


def test_loss_is_cross_entropy():
    loss = model_with_known_logits()(coloured([2.0, 0.0, 0.0]), samples_of(1), mode="loss")
    assert set(loss) == {"loss_cls"}
    assert loss["loss_cls"].item() == pytest.approx(math.log(math.e**2 + 2) - 0)


def test_defect_8_in_training_each_view_carries_its_videos_label():
    inputs = torch.cat([coloured([3.0, 0.0, 0.0], [3.0, 0.0, 0.0]), coloured([0.0, 0.0, 0.0], [0.0, 0.0, 3.0])])
    loss = model_with_known_logits()(inputs, samples_of(0, 2, num_clips=2), mode="loss")["loss_cls"]
    sure, unsure = math.log(math.e**3 + 2) - 3, math.log(3)
    assert loss.item() == pytest.approx((3 * sure + 1 * unsure) / 4)


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_defect_8_every_weight_learns_from_several_clips_per_video(name):
    model = model_of(name).train()
    model(pixels(2, 2, 3, 4, 32, 32), samples_of(0, 2, num_clips=2), mode="loss")["loss_cls"].backward()
    assert [key for key, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()] == []


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_defect_8_all_of_the_model_moves_to_its_device(name):
    model = ta.create_model(name, 3).to("meta")  # a device without memory, there on every machine
    assert {part.device.type for part in [*model.parameters(), *model.buffers()]} == {"meta"}
    inputs = torch.empty(2, 2, 3, 4, 32, 32, dtype=torch.uint8, device="meta")
    assert model(inputs, samples_of(0, 1), mode="loss")["loss_cls"].device.type == "meta"  # labels came from the CPU


@torch.inference_mode()
def test_defect_8_the_metric_reads_what_the_head_writes():
    predicted = model_with_known_logits()(coloured(*VIEWS), samples_of(0), mode="predict")
    scores = torch.stack([sample.pred_score for sample in predicted])
    assert ta.top_k_accuracy(scores, [sample.label.item() for sample in predicted], (1,)) == [1.0]


# ---------------------------------------------------------------------------------------------------------------------
# weights
# ---------------------------------------------------------------------------------------------------------------------

KEYS = [
    "backbone.conv1.0.weight", "backbone.conv1.0.bias", "backbone.conv1.1.weight", "backbone.conv1.1.bias",
    "backbone.conv1.1.running_mean", "backbone.conv1.1.running_var", "backbone.conv1.1.num_batches_tracked",
    "backbone.conv.0.weight", "backbone.conv.0.bias", "backbone.conv.1.weight", "backbone.conv.1.bias",
    "backbone.conv.1.running_mean", "backbone.conv.1.running_var", "backbone.conv.1.num_batches_tracked",
    "cls_head.fc.weight", "cls_head.fc.bias",
]


@pytest.mark.parametrize("name, first, second", [
    ("conv2d", (64, 3, 7, 7), (128, 64, 3, 3)),
    ("conv3d", (64, 3, 3, 7, 7), (128, 64, 3, 3, 3)),
])
def test_the_names_of_the_weights_are_the_guides(name, first, second):
    state = ta.create_model(name, 5).state_dict()
    assert list(state) == KEYS
    assert state["backbone.conv1.0.weight"].shape == first
    assert state["backbone.conv.0.weight"].shape == second
    assert state["cls_head.fc.weight"].shape == (5, 128)


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_weights_start_as_in_the_guide(name):
    torch.manual_seed(0)
    model = ta.create_model(name, 100)
    for part in model.modules():
        if isinstance(part, nn.Conv2d | nn.Conv3d):
            fan_out = part.out_channels * math.prod(part.kernel_size)
            assert part.weight.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=0.05)
            assert not part.bias.any()
        if isinstance(part, nn.BatchNorm2d | nn.BatchNorm3d):
            assert (part.weight == 1).all() and not part.bias.any()
    assert model.cls_head.fc.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert not model.cls_head.fc.bias.any()


def test_create_model_hands_its_options_to_the_head():
    head = ta.create_model("conv2d", 7, dropout=0.2, average_clips=None).cls_head
    assert (head.num_classes, head.in_channels, head.dropout.p, head.average_clips) == (7, 128, 0.2, None)


def test_the_same_seed_gives_the_same_weights():
    def weights(seed):
        torch.manual_seed(seed)
        return ta.create_model("conv2d", 2).state_dict()["backbone.conv.0.weight"]

    assert weights(1).equal(weights(1)) and not weights(1).equal(weights(2))


# ---------------------------------------------------------------------------------------------------------------------
# wrong arguments
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make, rule", [
    (lambda: ta.create_model("conv2", 2), "model 'conv2' is not known; did you mean conv2d"),
    (lambda: ta.create_model("xyz", 2), "model 'xyz' is not known; did you mean .*conv2d"),  # nothing is near: all
    (lambda: ta.create_model("conv2d", 1), "num_classes is 1; a classifier needs at least two"),
    (lambda: ta.TemporalAverageHead(2, 3, average_clips="mean"),
     "average_clips is 'mean'; it must be 'prob', 'score' or None"),
    (lambda: model_with_known_logits()(torch.zeros(1, 3, 2, 4, 4)),
     r"inputs are \(1, 3, 2, 4, 4\); they must be \(B, V, C, T, H, W\)"),
    (lambda: model_with_known_logits()(coloured(*VIEWS), mode="train"),
     "mode is 'train'; it must be 'tensor', 'logits', 'loss' or 'predict'"),
    (lambda: model_with_known_logits()(coloured(*VIEWS), mode="loss"), "mode 'loss' needs data_samples"),
    (lambda: model_with_known_logits()(coloured(*VIEWS), [ta.DataSample(None, (4, 4), 2, 2, "a.mp4")], mode="loss"),
     "a.mp4 has no label; a loss needs one"),
])
def test_wrong_arguments_are_named_with_their_value_and_rule(make, rule):
    with pytest.raises(ValueError, match=rule):
        make()


@pytest.mark.parametrize("name", ["conv2d", "tsm-conv2d", "conv3d"])
def test_views_in_pieces_give_the_same_scores(name):
    """2 videos of 5 views, at most 3 at once: the network sees 3, 3, 3 and 1, and the head joins them again."""
    torch.manual_seed(0)
    model = ta.create_model(name, 3).eval()
    inputs = torch.randint(0, 256, (2, 5, 3, 4, 32, 32), dtype=torch.uint8)
    with torch.inference_mode():
        whole = model(inputs, mode="logits")
        model.max_views = 3
        seen = []
        model.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
        pieces = model(inputs, mode="logits")
    frames = 4 if name == "conv2d" else 1
    assert seen == [3 * frames, 3 * frames, 3 * frames, 1 * frames]
    torch.testing.assert_close(pieces, whole, rtol=1e-5, atol=1e-6)
    assert ta.create_model(**model_arguments(name, model)).max_views == 3


def test_training_sees_all_views_at_once():
    """Its batch norms' statistics are those of the whole batch."""
    model = ta.create_model("conv2d", 3, max_views=1).train()
    seen = []
    model.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    model(torch.zeros(2, 2, 3, 4, 32, 32, dtype=torch.uint8), mode="logits")
    assert seen == [16]


def test_a_head_for_another_number_of_channels_is_one_sentence():
    model = ta.Recognizer(ta.ConvBackbone(), ta.TemporalAverageHead(2, 64))
    with pytest.raises(ValueError, match="128 channels, the head was made for 64; make it with in_channels=128"):
        model(torch.zeros(1, 1, 3, 2, 16, 16), mode="logits")
