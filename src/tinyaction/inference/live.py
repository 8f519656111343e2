"""Predict a stream frame by frame: :class:`LivePredictor`.

Every sampled frame goes through the network once; the score comes from the newest features.

    network                          what is kept between frames        score of the newest clip_len frames
    on single frames (tsn-*)         one feature vector a frame         equals that of a clip of these frames
    with the temporal shift (tsm-*)  two feature maps a shift           each frame has its true neighbours on both
                                                                        sides, also at the ends of the clip, where
                                                                        a clip that is cut out has zeros
    on clips (3D, transformers)      the last clip_len frames           that clip, computed anew each time

The temporal shift reads one frame ahead. So each shift holds a frame until the next one has reached it, and the score
is late by as many frames as the network has shifts: 1 for tsm-conv2d, 8 for tsm-resnet18, 10 for tsm-mobilenet_v2.
Nothing is approximated: the features are those of one long clip of all frames. (The online model of Lin et al. 2019
shifts forwards only; it has no latency, but it is another network and has to be trained as such.)
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import torch
from torch import nn

from tinyaction.data.dataset import Batch, collate
from tinyaction.inference.cameras import Moment
from tinyaction.inference.prediction import Prediction
from tinyaction.inference.sources import check_frame
from tinyaction.models.checkpoint import Checkpoint
from tinyaction.models.pooling import cell_means
from tinyaction.models.recognizer import Recognizer
from tinyaction.models.temporal_shift import TemporalShift
from tinyaction.models.unknown import Unknown
from tinyaction.sample import DataSample
from tinyaction.video import UInt8Array


class FramePredictor(Protocol):
    """What :class:`LivePredictor` needs of a predictor; :class:`tinyaction.inference.predictor.Predictor` is one."""

    model: Recognizer
    device: torch.device
    checkpoint: Checkpoint
    class_names: list[str]
    unknown: Unknown | None

    def frames_to_inputs(self, frames: Sequence[UInt8Array]) -> torch.Tensor: ...
    def predict_batch(self, batch: Batch) -> list[Prediction]: ...


class LivePredictor:
    """Scores of the last ``window_seconds`` of a stream, at a steady rate.

        live = predictor.live(fps=30, window_seconds=2.0)
        for frame in frames:                      # (H, W, 3) uint8 RGB
            prediction = live.push(frame)         # a Prediction clip_len times per window, None in between

    Args:
        predictor: its network, pipeline and classes; ``num_clips`` plays no part here.
        fps: frames per second that will be pushed; None where each is pushed with its time.
        window_seconds: time that one score covers; ``clip_len`` frames, evenly spread over it, are sampled. Choose
            about the length of the training clips.

    Attributes:
        latency_frames: sampled frames by which the score is late.
        step_seconds: from one sampled frame to the next.
    """

    def __init__(self, predictor: FramePredictor, *, fps: float | None = None, window_seconds: float = 2.0) -> None:
        for name, value in (("fps", fps), ("window_seconds", window_seconds)):
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"{name} is {value}; it must be above 0")
        self.predictor = predictor
        self.model = predictor.model
        self.clip_len: int = predictor.checkpoint.eval_pipeline["clip_len"]
        self.fps = fps
        self.step_seconds = window_seconds / self.clip_len
        self.num_pushed = 0
        self._due_seconds = -float("inf")
        self._shape: tuple[int, ...] | None = None
        backbone = self.model.backbone
        usual = getattr(backbone, "shift", None)
        self._shift = DelayedShift(usual) if isinstance(usual, TemporalShift) else None
        self._by_frame = self._shift is not None or not backbone.takes_clips
        # Features (V, 1, F) of single frames, or, for networks on clips, their pixels (V, C, 1, H, W).
        self._newest: deque[torch.Tensor] = deque(maxlen=self.clip_len)

    @property
    def latency_frames(self) -> int:
        return 0 if self._shift is None else len(self._shift.places)

    def push(self, frame: UInt8Array, *, seconds: float | None = None) -> Prediction | None:
        """Push the next frame (H, W, 3) uint8 RGB. Returns the new score, or None where none is due yet.

        ``seconds`` is when it was shown; default by its number and ``fps``. Raises ValueError where the frame is of
        another kind or size than those before, or its time is not known.
        """
        check_frame(frame, self.num_pushed, self._shape)
        self._shape = frame.shape
        if seconds is None:
            if self.fps is None:
                raise ValueError("this live predictor has no fps; push each frame with its seconds")
            seconds = self.num_pushed / self.fps
        self.num_pushed += 1
        if not self._is_due(seconds):
            return None
        inputs = self.predictor.frames_to_inputs([frame])              # (V, C, 1, H, W)
        if self._by_frame:
            features = self._features(inputs)
            if features is None:
                return None
            self._newest.append(features)
        else:
            self._newest.append(inputs)
        return self._score() if len(self._newest) == self.clip_len else None

    def _is_due(self, seconds: float) -> bool:
        """Whether the frame at a time is sampled: one a step, and each where they come more slowly than that."""
        if seconds < self._due_seconds - 1e-6:
            return False
        self._due_seconds = max(self._due_seconds + self.step_seconds, seconds)
        if self._due_seconds <= seconds:                               # the first one, or some were missed
            self._due_seconds = seconds + self.step_seconds
        return True

    def _features(self, inputs: torch.Tensor) -> torch.Tensor | None:
        """Features (V, 1, F, 2, 2) of the frame that has just passed the last shift; None before the first one has."""
        backbone, own_shift = self.model.backbone, self._shift
        try:
            if own_shift is not None:
                usual_shift, backbone.shift = backbone.shift, own_shift
                own_shift.begin()
            with torch.inference_mode():
                maps = self.model(inputs[None].to(self.predictor.device), mode="tensor")  # (V, 1, F, h, w)
                return cell_means(maps)                                # (V, 1, F, 2, 2): all that a head asks
        except NextFrameNeededError:
            return None
        finally:
            if own_shift is not None:
                backbone.shift = usual_shift

    def _score(self) -> Prediction:
        if not self._by_frame:
            inputs = torch.cat(list(self._newest), dim=2)              # (V, C, T, H, W)
            sample = DataSample(None, (inputs.shape[3], inputs.shape[4]), inputs.shape[0], self.clip_len, "live")
            return self.predictor.predict_batch(collate([{"inputs": inputs, "data_samples": sample}]))[0]
        with torch.inference_mode():
            clip = torch.cat(list(self._newest), dim=1)                # (V, T, F, 2, 2)
            logits = self.model.cls_head(clip)[None]                   # (1, V, K)
            scores = self.model.cls_head.video_scores(logits)[0]       # (K,)
            unknown = self.predictor.unknown
            pooled = self.model.cls_head.pool(clip).mean(dim=0, keepdim=True)  # (1, F')
            is_unknown = unknown is not None and unknown.is_unknown(pooled)[0]
        return Prediction("live", self.predictor.class_names, scores.cpu().double().tolist(), is_unknown,
                          thresholds=self.predictor.checkpoint.thresholds)


def predict_moments(
    predictor: FramePredictor, moments: Iterable[Moment], *, window_seconds: float
) -> Iterator[tuple[Moment, Prediction | None]]:
    """Predict what a camera sees: yield each moment, with the score of the newest window where one is due.

    No window goes over a gap. A stream that goes on with frames of another size has a gap before them.
    """
    live: LivePredictor | None = None
    shape: tuple[int, ...] = ()
    for moment in moments:
        if moment.frame is None:
            live = None
            yield moment, None
            continue
        if live is not None and moment.frame.shape != shape:
            live = None
            yield Moment(moment.seconds, None), None
        if live is None:
            live, shape = LivePredictor(predictor, window_seconds=window_seconds), moment.frame.shape
        yield moment, live.push(moment.frame, seconds=moment.seconds)


class NextFrameNeededError(Exception):
    """A shift holds this frame until the next one reaches it; the layers before the shift are done."""


class DelayedShift(nn.Module):
    """A :class:`TemporalShift` for frames that come one at a time.

    For each place where the network calls it, it holds the last frame (whose layers after the shift are not computed
    yet) and a part of the frame before. When frame t comes, frame t-1 goes on: with channels of frame t, of frame t-2,
    and its own. The network adds the shift's *input* to the branch that reads its output, so the input is overwritten
    with frame t-1 too.
    """

    def __init__(self, usual: TemporalShift) -> None:
        super().__init__()
        self.fold_div = usual.fold_div
        self.places: list[tuple[torch.Tensor, torch.Tensor]] = []  # (frame t-1, a part of frame t-2), each (V, ...)
        self._place = 0

    def begin(self) -> None:
        """A new frame enters the network."""
        self._place = 0

    def forward(self, frames: torch.Tensor, num_frames: int) -> torch.Tensor:
        assert num_frames == 1, "one frame at a time"
        fold = frames.shape[1] // self.fold_div
        place, self._place = self._place, self._place + 1
        if place == len(self.places):                                  # the first frame that comes here
            self.places.append((frames.clone(), torch.zeros_like(frames[:, fold:2 * fold])))
            raise NextFrameNeededError
        waiting, from_last = self.places[place]                        # (V, C, h, w), (V, fold, h, w)
        shifted = torch.cat((frames[:, :fold], from_last, waiting[:, 2 * fold:]), dim=1)
        self.places[place] = (frames.clone(), waiting[:, fold:2 * fold])
        frames.copy_(waiting)
        return shifted
