"""Write a recognizer as ONNX, torch.export or TorchScript: pixels in, scores out, without this package.

Every format takes ``clips`` (B, V, C, T, H, W) uint8 RGB, with any B, and gives ``scores`` (B, K); the normalization
is inside. What else the user of the file must know is stored in it, see :func:`metadata_of`.
"""

import contextlib
import importlib.util
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from tinyaction.data.augment import view_order
from tinyaction.data.pipelines import short_side_pixels
from tinyaction.data.timed import FRAMES_PER_SECOND
from tinyaction.files import whole_file
from tinyaction.inference.predictor import Predictor
from tinyaction.models import Recognizer
from tinyaction.version import __version__

SUFFIXES = {"onnx": ".onnx", "torch-export": ".pt2", "torchscript": ".torchscript"}
NEEDED = {"onnx": ("onnx", "onnxscript", "onnxruntime")}  # packages of the extra ``export``
TOLERANCE = 1e-4  # largest difference of a probability
INPUT, OUTPUT = "clips", "scores"

Run = Callable[[torch.Tensor], torch.Tensor]


class ScoringModel(nn.Module):
    """Clips (B, V, C, T, H, W) uint8 to the scores of videos (B, K): a recognizer with its averaging."""

    def __init__(self, recognizer: Recognizer) -> None:
        super().__init__()
        self.recognizer = recognizer

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        logits = self.recognizer.compute_logits(clips)                 # (B, V, K)
        return self.recognizer.cls_head.video_scores(logits)           # (B, K)


def export_model(
    predictor: Predictor, path: str | Path, *, format: str, clips: Sequence[torch.Tensor]
) -> float:
    """Write a predictor's model and return the largest difference of a score between the file and the original.

    The file is written beside its place, opened as its user would open it, compared on ``clips`` one at a time and in
    one batch of at least three, and only then renamed.

    Args:
        format: "onnx", "torch-export" or "torchscript".
        clips: what the network is given for some videos, (V, C, T, H, W) uint8 each, all of one shape; the exported
            model takes this shape.

    Raises:
        ValueError: the format is not known or its packages are missing, the network cannot be exported to it, or the
            scores differ by more than :data:`TOLERANCE`; nothing is written then.
    """
    check_format(format)
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent}: no such folder to write {path.name} into")
    metadata = metadata_of(predictor, clips[0])
    with whole_file(path, suffix=path.suffix) as part:
        with quiet_exporters(), _scoring_model(predictor) as model:
            try:
                WRITERS[format](model, part, clips[0], metadata)
                run = OPENERS[format](part)
                difference = largest_difference(model, run, clips)
            except OSError:                                            # such as a full disk
                raise
            except Exception as error:  # of torch's exporters and onnxruntime, each in classes of its own
                raise ValueError(f"{predictor.checkpoint.model['name']} cannot be exported as {format}: "
                                 f"{_first_line(error)}") from None
        if not difference <= TOLERANCE:
            raise ValueError(f"{path}: not written: its scores differ by up to {difference:.1e} from the original's; "
                             f"the largest accepted is {TOLERANCE:.1e}")
    return difference


@contextlib.contextmanager
def _scoring_model(predictor: Predictor) -> Iterator[ScoringModel]:
    """The predictor's model on the CPU, all views at once: a loop over ``max_views`` would fix the batch size."""
    model, max_views = predictor.model, predictor.model.max_views
    model.max_views = 0
    try:
        yield ScoringModel(model).cpu().eval()
    finally:
        model.max_views = max_views
        model.to(predictor.device)


def check_format(format: str) -> None:
    """Raise ValueError where the format is not known or its packages are not installed."""
    if format not in SUFFIXES:
        raise ValueError(f"format {format!r} is not known; it must be one of {', '.join(SUFFIXES)}")
    missing = [name for name in NEEDED.get(format, ()) if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(f'format {format} needs {", ".join(missing)}; pip install "tinyaction[export]"')


def metadata_of(predictor: Predictor, clip: torch.Tensor) -> dict[str, str]:
    """What the user of an exported file must know, as text: classes, shapes, how the pixels are made, versions."""
    checkpoint, pipeline = predictor.checkpoint, predictor.eval_arguments
    V, C, T, H, W = clip.shape
    num_crops = pipeline.get("num_crops", 1)
    num_clips = V // num_crops
    values = {
        "class_names": checkpoint.class_names,
        "input": f"{INPUT}: uint8 RGB 0..255, (B, V, C, T, H, W) = (any, {V}, {C}, {T}, {H}, {W})",
        "output": f"{OUTPUT}: float32 (B, {len(checkpoint.class_names)}), in the order of class_names"
                  + ("; a class holds where its score is at least its threshold" if checkpoint.thresholds else ""),
        "frames": f"{num_clips} clips of {T} frames " + (
            f"{interval} apart at {FRAMES_PER_SECOND} frames a second, the clips spread evenly over the video"
            if (interval := pipeline.get("frame_interval")) else "spread evenly over the whole video"),
        "pixels": PIXELS[num_crops].format(
            size=W, short_side=pipeline.get("short_side") or short_side_pixels(pipeline["size"]),
            how="bilinear with antialiasing" if pipeline.get("antialias") else "bilinear"),
        "views": [view._asdict() for view in view_order(num_clips, num_crops)],
        "shape": [V, C, T, H, W],
        "model": checkpoint.model,
        "eval_pipeline": pipeline,
        "stand_in": checkpoint.stand_in,
        **({"thresholds": checkpoint.thresholds} if checkpoint.thresholds else {}),
        "tinyaction": __version__,
    }
    return {name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            for name, value in values.items()}


PIXELS = {  # number of crops -> what is done to a frame
    1: "short side resized to {short_side}, {how}, then the centre square of {size}",
    3: "short side resized to {size}, {how}, then three squares of {size} along the long side, see views",
    10: "short side resized to {short_side}, {how}, then five squares of {size}, each also mirrored, see views",
}


@torch.no_grad()
def largest_difference(model: nn.Module, run: Run, clips: Sequence[torch.Tensor]) -> float:
    """Largest absolute difference of scores between ``model`` and ``run``: each clip alone, and at least 3 in a batch.

    The model is exported from a batch of two, so sizes 1 and 3 show that any size works.
    """
    several = [clips[i % len(clips)] for i in range(max(3, len(clips)))]
    batches = [torch.stack(several), *(clip[None] for clip in clips)]
    differences = [float((model(batch) - run(batch)).abs().max()) for batch in batches]
    return float(np.max(differences))                                  # NaN stays NaN, which no tolerance accepts


def _write_onnx(model: nn.Module, path: Path, clip: torch.Tensor, metadata: dict[str, str]) -> None:
    program = torch.onnx.export(model, (_two(clip),), dynamo=True, input_names=[INPUT], output_names=[OUTPUT],
                                dynamic_shapes={"clips": {0: torch.export.Dim("B", min=1)}}, verbose=False)
    assert program is not None
    program.model.metadata_props.update(metadata)
    program.save(str(path), external_data=False)


def _open_onnx(path: Path) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda clips: torch.from_numpy(session.run([OUTPUT], {INPUT: clips.numpy()})[0])


def _write_torch_export(model: nn.Module, path: Path, clip: torch.Tensor, metadata: dict[str, str]) -> None:
    program = torch.export.export(model, (_two(clip),), dynamic_shapes={"clips": {0: torch.export.Dim("B", min=1)}})
    torch.export.save(program, path, extra_files=dict(metadata))


def _open_torch_export(path: Path) -> Run:
    run: Run = torch.export.load(path).module()
    return run


def _write_torchscript(model: nn.Module, path: Path, clip: torch.Tensor, metadata: dict[str, str]) -> None:
    with torch.no_grad():
        traced = torch.jit.trace(model, (_two(clip),), check_trace=False)  # type: ignore[no-untyped-call]
    torch.jit.save(traced, str(path), _extra_files=dict(metadata))


def _open_torchscript(path: Path) -> Run:
    run: Run = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    return run


WRITERS = {"onnx": _write_onnx, "torch-export": _write_torch_export, "torchscript": _write_torchscript}
OPENERS = {"onnx": _open_onnx, "torch-export": _open_torch_export, "torchscript": _open_torchscript}


def _two(clip: torch.Tensor) -> torch.Tensor:
    """A batch of two: with one, a tracer may take the number for a constant."""
    return torch.stack((clip, clip.flip(1)))


@contextlib.contextmanager
def quiet_exporters() -> Iterator[None]:
    """Silence the exporters' prints and warnings about themselves; what is wrong with a file the comparison finds."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def generated_clips(predictor: Predictor, *, num_clips: int = 2) -> list[torch.Tensor]:
    """Inputs made of seeded noise, for where no real video is at hand."""
    rng = np.random.RandomState(0)
    side = short_side_pixels(predictor.eval_arguments["size"])
    return [predictor.inputs_of(rng.randint(0, 256, (16, side, side, 3)).astype(np.uint8)) for _ in range(num_clips)]
