"""The clips of a report: training clips as the network sees them, mistakes, right ones, small strips of the table."""

import math
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tinyaction.data.dataset import VideoDataset
from tinyaction.results.neighbors import read_neighbors
from tinyaction.results.plots import isolated, shortened
from tinyaction.results.predictions_table import table_order
from tinyaction.results.run import Run, end_of_name
from tinyaction.results.sheets import Strip, clip_frames, data_uri, draw_strip

NUM_TRAIN_CLIPS = 8
NUM_MISTAKES = 16
NUM_RIGHT = 6
NUM_SMALL_STRIPS = 60  # in the table of predictions: each is a video to decode, and about 8 KB


NOT_AT_HAND = "The videos were not at hand when this page was made; tinyaction report RUN --data FOLDER adds them."


@dataclass
class Sheet:
    """Clips under one heading; ``intro`` is a sentence about them, ``lost`` the videos that could not be read."""

    name: str
    title: str
    intro: str
    num_crops: int = 1  # of each clip
    strips: list[Strip] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    def add(self, dataset: VideoDataset, caption: str, filename: str, index: int | None, *, epoch: int = 0,
            note: str = "") -> None:
        """Read a video through the dataset's pipeline and add its strip; a video that cannot be read is named."""
        if index is None:
            self.lost.append(f"{filename}: not among the {len(dataset)} videos of {dataset.videos.source}")
            return
        try:
            inputs = dataset[epoch, index]["inputs"]                   # (V, C, T, H, W)
        except (ValueError, OSError) as error:  # VideoError is a ValueError; the message begins with the file's name
            self.lost.append(str(error))
            return
        frames = clip_frames(inputs, num_crops=self.num_crops)
        notes = ["/".join(Path(filename).parts[-2:]), note]
        self.strips.append(Strip(frames, caption, "; ".join(filter(None, notes))))


@dataclass(frozen=True)
class FoundVideos:
    """A dataset whose videos are found by their path, else by the names of folder and file if only one fits."""

    dataset: VideoDataset

    def find(self, filename: str) -> int | None:
        index = self._by_path.get(filename)
        return self._by_end.get(end_of_name(filename)) if index is None else index

    def group(self, filename: str) -> str:
        """The group of a video, "" where none is known."""
        index, groups = self.find(filename), self.dataset.videos.groups
        return "" if index is None or groups is None else groups[index]

    @cached_property
    def _by_path(self) -> dict[str, int]:
        return {self.dataset.filename(index): index for index in range(len(self.dataset))}

    @cached_property
    def _by_end(self) -> dict[str, int]:
        ends = [end_of_name(self.dataset.filename(index)) for index in range(len(self.dataset))]
        counts = Counter(ends)
        return {end: index for index, end in enumerate(ends) if counts[end] == 1}


def mistakes_sheet(run: Run, val_set: FoundVideos | None) -> Sheet:
    wrong = sorted((one for one in run.predictions if not one.is_right), key=lambda one: -one.score)
    kind = "held-out " if run.folds else "" if run.is_evaluation else "validation "
    intro = f"Wrong: {len(wrong)} of {len(run.predictions)} {kind}videos. "
    if len(wrong) > NUM_MISTAKES:
        intro += f"These {NUM_MISTAKES} have the highest scores. "
    if wrong:
        intro += "Look for a wrong label, an action between the frames, a background that two classes share."
    sheet = Sheet("mistakes", "Most confident mistakes", intro, run.config.get("num_crops", 1))
    neighbors = read_neighbors(run.folder / "neighbors.csv")
    if val_set is None:
        sheet.lost = [NOT_AT_HAND] if wrong else []
        return sheet
    for one in wrong[:NUM_MISTAKES]:
        near = ", ".join(f"{found.class_name} {found.similarity:.2f} ({Path(found.filename).name})"
                         for found in neighbors.get(one.filename, []))
        true, predicted = (isolated(shortened(name, 48)) for name in run.names_of(one))
        score = "" if math.isnan(one.label_score) else f" {one.label_score:.2f}"  # of no label
        caption = f"predicted {predicted} {one.score:.2f}, true {true}{score}"
        sheet.add(val_set.dataset, caption, one.filename, val_set.find(one.filename),
                  note=f"nearest training clips: {near}" if near else "")
    return sheet


def right_sheet(run: Run, val_set: FoundVideos | None) -> Sheet:
    right = sorted((one for one in run.predictions if one.is_right), key=lambda one: one.score)
    sheet = Sheet("right", "Right, but least sure", "The videos that it gets right with the lowest scores.",
                  run.config.get("num_crops", 1))
    if val_set is None:
        sheet.lost = [NOT_AT_HAND] if right else []
        return sheet
    for one in right[:NUM_RIGHT]:
        name = isolated(shortened(run.names_of(one)[0], 48))
        sheet.add(val_set.dataset, f"{name} {one.score:.2f}", one.filename, val_set.find(one.filename))
    return sheet


def train_sheet(run: Run, train_set: VideoDataset | None) -> Sheet:
    """Training videos of as many classes as there is room for, in the random draw of the last epoch."""
    epoch = max(0, int(run.history[-1]["epoch"]) - 1)
    sheet = Sheet("train_clips", "Training clips as the network sees them",
                  "Sampled, cropped and mirrored as in the last epoch. Look here first where training does not work: "
                  "can you tell the classes apart on these frames?")
    if train_set is None:
        sheet.intro = NOT_AT_HAND
        return sheet
    for index in spread_over_classes(train_set.videos.labels, NUM_TRAIN_CLIPS):
        filename = train_set.filename(index)
        if filename in run.bad_files:  # it may have ended a worker process
            sheet.lost.append(f"{filename}: skipped in training, see bad_files.txt")
            continue
        name = isolated(shortened(train_set.videos.row(index, run.class_names).label or "no label", 48))
        sheet.add(train_set, name, filename, index, epoch=epoch)
    return sheet


def small_strips(run: Run, val_set: FoundVideos) -> dict[str, str]:
    """A small picture of each of the clips that are most worth a look, by file name."""
    strips: dict[str, str] = {}
    for one in table_order(run.predictions)[:NUM_SMALL_STRIPS]:
        index = val_set.find(one.filename)
        try:
            if index is not None:
                frames = clip_frames(val_set.dataset[index]["inputs"], num_frames=6, side=72,
                                     num_crops=run.config.get("num_crops", 1))
                strips[one.filename] = data_uri(draw_strip(frames))
        except (ValueError, OSError):  # the sheet of mistakes names what cannot be read; the table links the file
            continue
    return strips


def spread_over_classes(labels: npt.NDArray[np.int64], num_videos: int) -> list[int]:
    """Take the first video of each class, then the second of each, and so on; return them in the order of classes."""
    order = np.argsort(labels, kind="stable")
    rank = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        of_class = order[labels[order] == label]
        rank[of_class] = np.arange(len(of_class))
    chosen = np.lexsort((labels, rank))[:num_videos]
    return [int(index) for index in chosen[np.lexsort((rank[chosen], labels[chosen]))]]
