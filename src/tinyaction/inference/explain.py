"""Explain a prediction with Grad-CAM: the places of the frames that speak for the class.

Of a network with feature maps these are what its head averages, of a transformer the tokens that its last block sees.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from tinyaction.data.augment import view_order
from tinyaction.data.dataset import collate
from tinyaction.data.pipelines import sampled_frames
from tinyaction.inference.overlay import enlarged, with_heat, with_label
from tinyaction.inference.predictor import Predictor
from tinyaction.inference.sources import list_videos
from tinyaction.models import Recognizer
from tinyaction.results.sheets import Strip, draw_sheet
from tinyaction.video import UInt8Array, open_video
from tinyaction.video.writer import VideoFile


@dataclass
class Explanation:
    """The frames that the network saw of a video, and where in them it found the class.

    Attributes:
        label, score: the class that is explained, and its score for the whole video.
        frame_inds: (N,) the frames that the network saw, ascending; ``num_frames`` are in the file.
        frames: (N, H, W, 3) uint8 as it saw them: resized and cropped.
        heat: (N, H, W) 0..1, relative to the highest place of the video; all 0 where nothing speaks for the class.
    """

    source: str
    label: str
    score: float
    fps: float
    num_frames: int
    frame_inds: npt.NDArray[np.int64]
    frames: UInt8Array
    heat: npt.NDArray[np.float32]


def class_heat(model: Recognizer, inputs: torch.Tensor, label: int) -> torch.Tensor:
    """Grad-CAM of a class for clips (V, C, T, H, W) uint8: (V, T, H, W) float, 0..1 over all of them.

    Maps of clips with fewer steps in time are spread over T.

    Raises:
        ValueError: the network gives one vector and no map.
    """
    has_tokens = hasattr(model.backbone, "token_maps")
    heat = (token_heat if has_tokens else map_heat)(model, inputs, label).relu()  # (V, t, h, w)
    size = (inputs.shape[2], inputs.shape[3], inputs.shape[4])
    heat = F.interpolate(heat.unsqueeze(1), size=size, mode="trilinear", align_corners=False)[:, 0]  # (V, T, H, W)
    return heat / heat.max().clamp(min=1e-12)


def map_heat(model: Recognizer, inputs: torch.Tensor, label: int) -> torch.Tensor:
    """What places add to a class's logit, (V, t, h, w): the maps before the head times their mean gradients.

    Source: Selvaraju et al. 2017.
    """
    with torch.no_grad():
        features = model(inputs[None], mode="tensor").float()          # (V, t, F, h, w)
    if features.shape[3] * features.shape[4] == 1:
        raise ValueError("this network ends in one vector per clip and has no map of places; explain needs a network "
                         "with feature maps, such as conv2d, tsn-resnet18 or tsm-mobilenet_v2, or larger frames")
    with torch.enable_grad():
        features.requires_grad_()
        gradient, = torch.autograd.grad(model.cls_head(features)[:, label].sum(), features)
    return (gradient.mean(dim=(3, 4), keepdim=True) * features.detach()).sum(dim=2)


def token_heat(model: Recognizer, inputs: torch.Tensor, label: int) -> torch.Tensor:
    """How a class's logit would fall if the last block saw the mean token in a token's place: (V, t, h, w).

    It is the first-order estimate, gradient times difference. A token's own gradient, unlike the mean of all, knows
    how much the last attention looks at it; and zero has no meaning for a token, as it has for a map behind a ReLU.
    """
    backbone: Any = model.backbone
    seen: list[torch.Tensor] = []

    def watch(block: torch.nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        torch.set_grad_enabled(True)                                   # the blocks before it need no memory for that
        seen.append(arguments[0].detach().requires_grad_())
        return (seen[0], *arguments[1:])

    handle = backbone.blocks[-1].register_forward_pre_hook(watch)
    try:
        with torch.no_grad():
            logits = model.cls_head(model.extract_features(inputs[None]))  # (V, K)
    finally:
        handle.remove()
    gradient, = torch.autograd.grad(logits[:, label].sum(), seen[0])   # (V, L, F)
    grid = backbone.patch_embed.grid_of(inputs)
    tokens, gradient = (backbone.token_maps(part, grid) for part in (seen[0].detach(), gradient))  # (V, t, h, w, F)
    heat = (gradient * (tokens - tokens.mean(dim=(1, 2, 3), keepdim=True))).sum(dim=4)
    is_rounding = heat.abs() < 1e-5 * (gradient * tokens).abs().sum(dim=4)  # as where all tokens are alike
    return heat.masked_fill(is_rounding, 0.0)


def explain(predictor: Predictor, path: str | Path, *, class_name: str | None = None) -> Explanation:
    """Explain the predicted class of a video file, or the class given.

    With several crops of a clip, the centre is explained; the score is that of all views.

    Raises:
        ValueError: there is no such class, the network has no map of places, or the path is a folder.
        VideoError: the file cannot be read.
    """
    check_one_video(path)
    if class_name is not None and class_name not in predictor.class_names:
        raise ValueError(f"class {class_name!r} is not known; this checkpoint has "
                         f"{', '.join(predictor.class_names[:20])}")
    reader = open_video(path)
    item = predictor.pipeline({"filename": str(path), "video_reader": reader})
    prediction = predictor.predict_batch(collate([item]))[0]
    label = prediction.top(1)[0][0] if class_name is None else class_name
    number = predictor.class_names.index(label)
    frame_inds = sampled_frames(predictor.pipeline, len(reader), fps=reader.fps)       # (clips*T,)
    clips = _centre_views(item["inputs"], predictor)                   # (clips, C, T, H, W)
    heat = class_heat(predictor.model, clips.to(predictor.device), number).cpu()  # (clips, T, H, W)
    order = np.argsort(frame_inds, kind="stable")
    frames = clips.permute(0, 2, 3, 4, 1).flatten(0, 1).numpy()        # (clips*T, H, W, C)
    return Explanation(str(path), label, prediction.scores[number], reader.fps, len(reader), frame_inds[order],
                       frames[order], heat.flatten(0, 1).numpy()[order])


def check_one_video(path: str | Path) -> None:
    """Raise ValueError unless the path is that of one video."""
    if list_videos(path) is not None:
        raise ValueError(f"{path}: a folder or a pattern; explain takes one video file")


def _centre_views(inputs: torch.Tensor, predictor: Predictor) -> torch.Tensor:
    """Select from views (V, C, T, H, W) the centre crop of each clip, in the order of clips."""
    num_crops = predictor.eval_arguments.get("num_crops", 1)
    views = view_order(len(inputs) // num_crops, num_crops)
    return inputs[[place for place, view in enumerate(views) if view.crop == "centre"]]


def explanation_sheet(explanation: Explanation, *, num_frames: int = 6, side: int = 160) -> UInt8Array:
    """Draw frames as the network saw them, in the order of time, and below them their heat: (H, W, 3) RGB."""
    N = len(explanation.frames)
    chosen = np.unique(np.linspace(0, N - 1, min(num_frames, N)).round().astype(int))
    plain = [enlarged(explanation.frames[i], side) for i in chosen]
    hot = [enlarged(with_heat(explanation.frames[i], explanation.heat[i]), side) for i in chosen]
    numbers = ", ".join(str(explanation.frame_inds[i]) for i in chosen)
    notice = "" if explanation.heat.max() > 0 else "nothing in these frames speaks for this class"
    return draw_sheet(f"{explanation.label} {explanation.score:.2f}   {Path(explanation.source).name}", [
        Strip(plain, f"frames {numbers} of {explanation.num_frames}"),
        Strip(hot, "what speaks for the class", "red: most, blue: little, no colour: nothing"),
    ], notice=notice)


def explanation_video(
    explanation: Explanation, predictor: Predictor, path: str | Path, *, side: int = 320, replace: bool = False
) -> VideoFile:
    """Write every frame of the video with its heat, blended between the frames that the network saw."""
    text = f"{explanation.label} {explanation.score:.2f}"
    with VideoFile(path, fps=explanation.fps or 25.0, replace=replace) as video:
        for frame, heat in zip(_all_frames(explanation, predictor), _all_heat(explanation), strict=True):
            video.write(with_label(enlarged(with_heat(frame, heat), side), text))
    return video


def _all_frames(explanation: Explanation, predictor: Predictor) -> Iterator[UInt8Array]:
    """Yield every frame of the file as the network would see it."""
    for frame in open_video(explanation.source).read(range(explanation.num_frames)):
        clips = predictor.frames_to_inputs([frame])                    # (V, C, 1, H, W)
        yield np.ascontiguousarray(_centre_views(clips, predictor)[0, :, 0].permute(1, 2, 0).numpy())


def _all_heat(explanation: Explanation) -> Iterator[npt.NDArray[np.float32]]:
    """Yield the heat (H, W) of every frame of the file, blended in time."""
    seen, places = np.unique(explanation.frame_inds, return_index=True)
    for index in range(explanation.num_frames):
        after = int(np.searchsorted(seen, index))
        if after == 0 or after == len(seen):
            yield explanation.heat[places[min(after, len(seen) - 1)]]
            continue
        share = float(index - seen[after - 1]) / float(seen[after] - seen[after - 1])
        yield cv2.addWeighted(explanation.heat[places[after - 1]], 1 - share,
                              explanation.heat[places[after]], share, 0).astype(np.float32)
