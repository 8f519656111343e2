"""A tiny set of clips that a network learns in seconds: a bright bar, lying (class 0) or standing (class 1)."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch

from tinyaction import Checkpoint, create_model
from tinyaction.models.create import model_arguments
from tinyaction.video.writer import write_video

CLASSES = ("lying", "standing")


def bar_frames(label: int, seed: int, *, num_frames: int = 10, side: int = 64) -> Iterator[npt.NDArray[np.uint8]]:
    """The bar moves 4 pixels a frame over a background that is the seed's own."""
    background = np.random.RandomState(seed).randint(0, 80, (side, side, 3)).astype(np.uint8)
    for time in range(num_frames):
        frame = background.copy()
        start = (8 * seed + 4 * time) % (side - 16)
        if label == 0:
            frame[start : start + 16] = 230
        else:
            frame[:, start : start + 16] = 230
        yield frame


def write_clip(path: Path, label: int, seed: int, *, num_frames: int = 10, side: int = 64) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, bar_frames(label, seed, num_frames=num_frames, side=side), fps=10, replace=True)
    return path


def write_set(folder: Path, *, num_train: int = 8, num_val: int = 4, num_frames: int = 10) -> Path:
    """The guide's layout: lists beside train/ and val/; the labels alternate, and the names have a space."""
    for split, num_clips in (("train", num_train), ("val", num_val)):
        lines = []
        for number in range(num_clips):
            label = number % 2
            seed = number + (100 if split == "val" else 0)
            write_clip(folder / split / f"clip {number}.mp4", label, seed, num_frames=num_frames)
            lines.append(f"clip {number}.mp4 {label}\n")
        (folder / f"bars_{split}_list.txt").write_text("".join(lines))
    (folder / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    (folder / "README.txt").write_text("Generated clips: a bar, lying or standing.\n")  # --model auto is the guide's
    return folder


def save_toy(path: Path, name: str = "conv2d", **pipeline: int) -> Path:
    """A checkpoint of a network with random weights whose scores differ from clip to clip."""
    torch.manual_seed(1)
    model = create_model(name, 2)
    torch.nn.init.normal_(model.cls_head.fc.weight, std=1)  # scores that differ clearly
    Checkpoint(model_arguments(name, model), model.state_dict(), list(CLASSES),
               {"clip_len": 4, "size": 32, "num_clips": 2} | pipeline).save(path)
    return path


def telling_frames(num_frames: int, height: int, width: int) -> npt.NDArray[np.uint8]:
    """(T, H, W, 3) whose pixels say where they are: (frame, row, column), each modulo 256."""
    return np.moveaxis(np.indices((num_frames, height, width)), 0, -1).astype(np.uint8)


def pictures(num: int, height: int = 16, width: int = 24) -> list[bytes]:
    """PNG: exact."""
    return [cv2.imencode(".png", frame[..., ::-1])[1].tobytes() for frame in telling_frames(num, height, width)]


def place(seed: int) -> npt.NDArray[np.uint8]:
    """A picture (240, 320, 3) of blobs and edges, one for each seed."""
    rng = np.random.default_rng(seed)
    picture = np.full((240, 320, 3), 128, np.uint8)
    for _ in range(120):
        x, y, w, h = rng.integers([0, 0, 6, 6], [300, 220, 50, 50]).tolist()
        colour = rng.integers(0, 255, 3).tolist()
        if rng.random() < 0.5:
            cv2.rectangle(picture, (x, y), (x + w, y + h), colour, -1)
        else:
            cv2.circle(picture, (x, y), w // 2, colour, -1)
    return picture


def clip_of(picture: npt.NDArray[np.uint8], *, seed: int = 0, num_frames: int = 3) -> list[npt.NDArray[np.uint8]]:
    """Frames of a camera that stands, with somebody who walks through and some noise."""
    rng = np.random.default_rng(seed)
    frames = []
    for number in range(num_frames):
        frame = picture.astype(np.int64) + rng.integers(-6, 7, picture.shape)
        x = int(rng.integers(0, picture.shape[1] - 40))
        frame[picture.shape[0] // 3:, x:x + 40] = rng.integers(0, 255, 3) + number
        frames.append(frame.clip(0, 255).astype(np.uint8))
    return frames
