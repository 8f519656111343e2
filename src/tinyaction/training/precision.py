"""The number format in which the network computes: float32, bfloat16 or float16."""

import copy
import time

import torch

from tinyaction.distributed import from_first
from tinyaction.models.recognizer import Recognizer


def choose_amp(name: str, device: torch.device, model: Recognizer, inputs: torch.Tensor) -> torch.dtype | None:
    """The number format for a name: "off", "bf16", "fp16", or "auto".

    "auto" is bfloat16 on a CUDA device that has it, else float16 there; on a CPU bfloat16 where ``model`` runs at
    least a tenth faster with it on ``inputs`` (B, V, C, T, H, W), which is measured now; elsewhere float32.

    Raises:
        ValueError: the device does not compute in that format.
    """
    formats = {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}
    if name not in ("auto", *formats):
        raise ValueError(f"amp {name!r} is not known; it must be off, auto, bf16 or fp16")
    if name == "fp16" and device.type != "cuda" or name == "bf16" and device.type not in ("cuda", "cpu"):
        raise ValueError(f"--amp {name} does not go with device {device.type}; take --amp auto or --amp off")
    if name != "auto":
        return formats[name]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if device.type == "cpu":
        gain = min(_seconds_of(model, inputs, None) / _seconds_of(model, inputs, torch.bfloat16) for _ in range(2))
        return torch.bfloat16 if from_first(gain) > 1.1 else None
    return None


def _seconds_of(model: Recognizer, inputs: torch.Tensor, amp: torch.dtype | None) -> float:
    """Seconds of one forward and backward pass, the second of two; weights and statistics are left as they were."""
    state = copy.deepcopy(model.state_dict())
    for _ in range(2):
        start = time.perf_counter()
        with torch.autocast(inputs.device.type, dtype=amp, enabled=amp is not None):
            loss = model(inputs, mode="logits").float().square().mean()
        loss.backward()
        seconds = time.perf_counter() - start
    model.zero_grad(set_to_none=True)
    model.load_state_dict(state)
    return seconds


def create_scaler(amp: torch.dtype | None) -> torch.amp.GradScaler | None:
    """A scaler of the loss for float16, which needs one; None for other formats."""
    return torch.amp.GradScaler() if amp == torch.float16 else None
