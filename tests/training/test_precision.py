"""Number formats, steps of several batches, compiled and channels-last networks: what they may change."""

import pytest
import torch
from loops import CPU, FakeLoader, batch_of, sgd, tiny_model, weights_of
from torch import nn

from tinyaction.models import create_model
from tinyaction.training.build import build_schedule
from tinyaction.training.config import RunConfig
from tinyaction.training.loop import TrainState, fit, train_one_epoch
from tinyaction.training.precision import choose_amp, create_scaler

CLIPS = torch.randint(0, 256, (2, 1, 3, 2, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
VIDEOS = ((1.0, 0), (2.0, 1), (-1.0, 1), (0.5, 0), (3.0, 1))


def train(*batches, model=None, state=None, **arguments):
    model = tiny_model() if model is None else model
    return model, train_one_epoch(model, FakeLoader(*batches), sgd(model, **arguments), device=CPU, state=state)


@pytest.mark.parametrize("clip_grad_norm", [0.0, 0.1])
def test_batches_that_make_one_step_are_as_one_batch(clip_grad_norm):
    """Of unequal size: each video counts the same."""
    whole, expected = train(batch_of(*VIDEOS), clip_grad_norm=clip_grad_norm)
    parts, result = train(batch_of(*VIDEOS[:2]), batch_of(*VIDEOS[2:4]), batch_of(VIDEOS[4]), grad_accum=3,
                          clip_grad_norm=clip_grad_norm)
    assert weights_of(parts) == pytest.approx(weights_of(whole), abs=1e-6)
    assert result.loss == pytest.approx(expected.loss)
    assert weights_of(whole) != [0, 0, 0, 0]


def test_the_last_step_may_have_fewer_batches():
    one, _ = train(batch_of(*VIDEOS[:2]), batch_of(*VIDEOS[2:]))
    other, _ = train(batch_of(VIDEOS[0]), batch_of(VIDEOS[1]), batch_of(*VIDEOS[2:]), grad_accum=2)
    assert weights_of(other) == pytest.approx(weights_of(one), abs=1e-6)


def test_the_rate_follows_the_steps_not_the_batches():
    seen = []
    batches = [batch_of(video) for video in VIDEOS]
    train(*batches, grad_accum=2, state=TrainState(step=10), lr_at=lambda step: seen.append(step) or 0)
    assert seen == [10, 11, 12]
    for num_batches, grad_accum, num_steps in [(5, 2, 3), (4, 2, 2), (5, 1, 5)]:
        config = RunConfig("clips", grad_accum=grad_accum, epochs=1, warmup_epochs=0)
        lr_at = build_schedule(config, 1.0, num_batches=num_batches, grad_accum=grad_accum)
        assert lr_at(num_steps - 1) > lr_at(num_steps) == 0
    seen.clear()
    model = tiny_model()
    loader = FakeLoader(*batches)
    fit(model, loader, loader, sgd(model, grad_accum=2, lr_at=lambda step: seen.append(step) or 0), num_epochs=2,
        device=CPU)
    assert seen == [0, 1, 2, 3, 4, 5]


def test_bf16_computes_in_bf16_and_keeps_weights_in_float32():
    seen = []
    model = create_model("conv2d", 2)
    model.backbone.conv1[0].register_forward_hook(lambda *arguments: seen.append(arguments[2].dtype))
    batch = batch_of(VIDEOS[0], VIDEOS[1]) | {"inputs": CLIPS}
    _, result = train(batch, model=model, amp=torch.bfloat16)
    assert seen == [torch.bfloat16]
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    seen.clear()
    model.load_state_dict(create_model("conv2d", 2).state_dict())
    train(batch, model=model)
    assert seen == [torch.float32] and 0.3 < result.loss < 2


def test_bf16_trains_nearly_as_float32():
    losses = []
    for amp in (None, torch.bfloat16):
        torch.manual_seed(0)
        model = create_model("conv2d", 2, dropout=0)
        updater = sgd(model, 0.01, amp=amp)
        loader = FakeLoader(batch_of(VIDEOS[0], VIDEOS[1]) | {"inputs": CLIPS})
        losses.append([train_one_epoch(model, loader, updater, device=CPU).loss for _ in range(6)])
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    assert losses[1][-1] < losses[1][0]


class HalvingScaler:
    """Stands in for CUDA's: scales by 8, and says in which order it was used."""

    def __init__(self):
        self.calls = []

    def scale(self, loss):
        self.calls.append("scale")
        return loss * 8

    def unscale_(self, optimizer):
        self.calls.append("unscale")
        for group in optimizer.param_groups:
            for weight in group["params"]:
                weight.grad /= 8

    def step(self, optimizer):
        self.calls.append("step")
        optimizer.step()

    def update(self):
        self.calls.append("update")


def test_with_a_scaler_gradients_are_unscaled_before_they_are_clipped():
    expected, _ = train(batch_of(*VIDEOS), clip_grad_norm=0.5)
    scaler = HalvingScaler()
    model, _ = train(batch_of(*VIDEOS), clip_grad_norm=0.5, scaler=scaler)
    assert weights_of(model) == pytest.approx(weights_of(expected))
    assert scaler.calls == ["scale", "unscale", "step", "update"]


class OverflowingNorm(nn.Module):
    """A batch norm whose input is too large for float16 in some batches."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(1)

    def forward(self, frames):
        return self.norm((frames.half() * 60_000).float())


def overflowing_model():
    model = tiny_model()
    model.backbone = OverflowingNorm()
    return model


def test_an_overflow_of_float16_in_the_forward_pass_skips_the_step_and_leaves_the_statistics(caplog):
    """60,000 is the most that float16 holds: x = 2 overflows, and the loss is NaN."""
    good, bad = batch_of((0.5, 0), (1.0, 1)), batch_of((2.0, 1), (0.5, 0))
    models = []
    for batches in ([good, good], [good, bad, good]):
        model = overflowing_model()
        updater = sgd(model, scaler=torch.amp.GradScaler("cpu", init_scale=1.0))
        result = train_one_epoch(model, FakeLoader(*batches), updater, device=CPU)
        models.append((model.state_dict(), result.loss, result.num_videos))
    (expected, loss, num_videos), (state, loss_too, num_videos_too) = models
    assert all(torch.equal(state[name], expected[name]) for name in expected if "num_batches" not in name)
    assert (loss_too, num_videos_too) == (loss, num_videos) == (loss, 4)
    assert "step 1 is skipped: its loss is not finite in float16 (x=2.0.mp4, x=0.5.mp4)" in caplog.text


def test_overflows_without_end_are_an_error():
    model = overflowing_model()
    updater = sgd(model, scaler=torch.amp.GradScaler("cpu", init_scale=1.0))
    with pytest.raises(ValueError, match="the loss of step 20 is nan; .*compute in bf16 or float32"):
        train_one_epoch(model, FakeLoader(*[batch_of((2.0, 1), (0.5, 0))] * 30), updater, device=CPU)


def test_only_float16_has_a_scaler():
    assert create_scaler(None) is None and create_scaler(torch.bfloat16) is None


def test_the_names_of_formats(monkeypatch):
    cuda = torch.device("cuda")
    assert choose_amp("off", CPU) is None
    assert choose_amp("bf16", CPU) == torch.bfloat16
    assert choose_amp("auto", CPU) is None and choose_amp("auto", torch.device("mps")) is None
    for in_hardware, expected in ((True, torch.bfloat16), (False, torch.float16)):  # a T4 or V100 only emulates it
        monkeypatch.setattr(torch.cuda, "is_bf16_supported",
                            lambda including_emulation=True, here=in_hardware: including_emulation or here)
        assert choose_amp("auto", cuda) == expected
    for name, device in (("fp16", "cpu"), ("fp16", "mps"), ("bf16", "mps")):
        with pytest.raises(ValueError, match=f"--amp {name} does not go with device {device}; take --amp auto"):
            choose_amp(name, torch.device(device))
    with pytest.raises(ValueError, match="amp 'fp8' is not known; it must be auto, off, bf16 or fp16"):
        choose_amp("fp8", CPU)


def test_2d_networks_lie_channels_last_and_compute_the_same():
    model = create_model("conv2d", 2).eval()
    convolutions = [part for part in model.modules() if isinstance(part, nn.Conv2d)]
    assert all(part.weight.is_contiguous(memory_format=torch.channels_last) for part in convolutions)
    expected = model(CLIPS, mode="logits")
    for part in convolutions:
        part.to(memory_format=torch.contiguous_format)
    torch.testing.assert_close(model(CLIPS, mode="logits"), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_a_compiled_network_trains_as_the_plain_one():
    weights = []
    for compiled in (False, True):
        torch.manual_seed(0)
        model = create_model("conv2d", 2, dropout=0)
        if compiled:
            model.compile()
        train(batch_of(VIDEOS[0], VIDEOS[1]) | {"inputs": CLIPS}, model=model)
        weights.append(model.state_dict())
    assert weights[0].keys() == weights[1].keys()
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-3, atol=1e-3)
