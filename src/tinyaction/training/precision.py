"""The number format in which the network computes: float32, bfloat16 or float16."""

import torch

FORMATS = {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_amp(name: str, device: torch.device) -> torch.dtype | None:
    """Return the number format for a name: "off" (float32), "bf16", "fp16", or "auto".

    "auto" is bfloat16 on a CUDA device whose hardware has it, float16 on other CUDA devices, float32 elsewhere.

    Raises:
        ValueError: the device does not compute in that format.
    """
    if name not in ("auto", *FORMATS):
        raise ValueError(f"amp {name!r} is not known; it must be auto, off, bf16 or fp16")
    if name == "fp16" and device.type != "cuda" or name == "bf16" and device.type not in ("cuda", "cpu"):
        raise ValueError(f"--amp {name} does not go with device {device}; take --amp auto or --amp off")
    if name != "auto":
        return FORMATS[name]
    if device.type != "cuda":
        return None
    has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)  # emulated, as on a T4, it is slow
    return torch.bfloat16 if has_bf16 else torch.float16


def create_scaler(amp: torch.dtype | None) -> torch.amp.GradScaler | None:
    """Make a loss scaler for float16; None for other formats, which need none."""
    return torch.amp.GradScaler() if amp == torch.float16 else None
