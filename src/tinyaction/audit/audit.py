"""What is doubtful about a data set, in one pass: :func:`audit_data`.

    look at every file        size, length, light, bars, sound, keypoints       no network
    pairs of one recording    between training and validation: leaks            no network
    what simpler models get   metadata; with features one frame, no order
    labels                    out-of-fold probabilities of a probe              needs features
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tinyaction.audit.clips import ClipFacts, look_at
from tinyaction.audit.labels import LabelDoubt, doubtful_labels, doubtful_sets
from tinyaction.audit.recordings import SamePair, find_pairs, group_names
from tinyaction.data.annotations import DataFolder, VideoList, find_data
from tinyaction.device import choose_device
from tinyaction.models import check_input
from tinyaction.prepare.pool import Lost, map_in_processes
from tinyaction.results.metrics import wilson_interval
from tinyaction.results.shortcuts import Shortcut, shortcut_sentences
from tinyaction.training.build import OnCount, OnLine, build_model, data_flags, find_run_data, prepare_folder
from tinyaction.training.config import RunConfig
from tinyaction.training.folds import divide
from tinyaction.training.probe import ProbeData
from tinyaction.training.probe_run import clip_features, probe_data
from tinyaction.training.shortcuts import majority, of_facts, out_of_fold
from tinyaction.video import VideoError

MOST_FOLDS = 5
LEAST_WIDTH = 0.1  # of a validation's 95 % interval from which more clips are asked for


@dataclass
class Audit:
    """All that was found; clips are places in ``videos``, the training list and then the validation list."""

    folder: Path
    class_names: list[str]
    videos: VideoList
    num_train: int  # clips of ``videos`` that are of training; the rest is validation
    facts: list[ClipFacts | None]  # None where a clip cannot be read
    unreadable: dict[str, str]  # path -> why
    pairs: list[SamePair]
    groups: list[str]  # of each clip: its recording, as far as the pairs tell, or the group that the list names
    shortcuts: list[Shortcut] = field(default_factory=list)
    doubts: list[LabelDoubt] = field(default_factory=list)  # clips that look more like another class, the surest first
    scores: npt.NDArray[np.float64] | None = None  # (N, K) of each clip that can be read, by a probe of the others
    never_right: list[int] = field(default_factory=list)  # clips to whose label a probe gives less than 0.1
    notes: list[str] = field(default_factory=list)  # of the data, and what could not be done

    @property
    def leaks(self) -> list[SamePair]:
        """Pairs of one recording with one clip in training and one in validation."""
        return [pair for pair in self.pairs if (pair.first < self.num_train) != (pair.second < self.num_train)]

    @property
    def oddities(self) -> list[tuple[int, str]]:
        return [(index, text) for index, facts in enumerate(self.facts) if facts for text in facts.oddities()]

    def path(self, index: int) -> str:
        return self.videos.item_name(index)

    def sentences(self) -> list[str]:
        """What a person should know, the gravest first."""
        found = []
        if self.leaks:
            clips = {pair.second if pair.first < self.num_train else pair.first for pair in self.leaks}
            found.append(f"{len(clips)} of {len(self.videos) - self.num_train} validation clips are of the same "
                         "recording or place as a training clip: their accuracy flatters; audit --write-groups CSV "
                         "writes groups, by which prepare split --by group --data CSV splits")
        found += shortcut_sentences(self.shortcuts, network="the probe") if self.shortcuts else []
        if self.doubts:
            num_confident = sum(doubt.is_confident for doubt in self.doubts)
            sets = self.videos.label_sets
            found.append(f"{len(self.doubts)} of {len(self.videos) if sets is None else sets.size} labels are "
                         "doubtful: a probe of the other clips " + (
                             "takes these for another class" if sets is None else "says the opposite of these")
                         + f", {num_confident} of them as surely as that class's own")
        if self.unreadable:
            found.append(f"{len(self.unreadable)} clips cannot be read; tinyaction check says more")
        if self.oddities:
            found.append(f"{len({index for index, _ in self.oddities})} clips are odd: dark, still, with bars or with "
                         "sound that outlasts the picture")
        num_val = len(self.videos) - self.num_train
        low, high = wilson_interval(round(0.9 * num_val), num_val) if num_val else (0.0, 0.0)
        if high - low > LEAST_WIDTH and self.videos.label_sets is None:
            found.append(f"an accuracy of 0.90 on {num_val} validation clips may be {low:.2f} to {high:.2f}; "
                         f"{clips_for_width(LEAST_WIDTH)} clips would bring that to {LEAST_WIDTH:.2f}, --folds uses "
                         "all of them")
        return found

    def paths_to_look_at(self) -> list[str]:
        """Every clip that something was said about, the gravest first, each once."""
        places = [*(doubt.index for doubt in self.doubts),
                  *(index for pair in self.leaks for index in (pair.second, pair.first)),
                  *self.never_right, *(index for index, _ in self.oddities)]
        return list(dict.fromkeys([*map(self.path, places), *self.unreadable]))


def clips_for_width(width: float, accuracy: float = 0.9) -> int:
    """Clips of which the 95 % interval of an accuracy is no wider than ``width``."""
    num_clips = 10
    while True:
        low, high = wilson_interval(round(accuracy * num_clips), num_clips)
        if high - low <= width:
            return num_clips
        num_clips += 10


def audit_data(
    config: RunConfig, *, looked_at: Iterable[tuple[str, ClipFacts | str]] | None = None,
    on_line: OnLine | None = None, on_count: OnCount | None = None,
) -> Audit:
    """Look at a data set and say what is doubtful. Features need ``config.weights``; without them the rest is done.

    ``looked_at``: what :func:`look_at_files` gave, where that was done before.

    Raises ValueError or OSError: a list, a flag or the weights are wrong; the message names it.
    """
    count = on_count or (lambda unit, done, total: None)
    data = audit_folder(config, on_line=on_line, on_count=on_count)
    videos = data.train.joined(data.val) if data.is_split and len(data.val) else data.train
    num_train = len(data.train)
    paths = list(dict.fromkeys(videos.paths()))
    found: dict[str, ClipFacts | str] = {}
    for path, one in look_at_files(paths, config) if looked_at is None else looked_at:
        found[path] = one
        count("clips looked at", len(found), len(paths))
    of_clips = [found[path] for path in videos.paths()]
    facts = [None if isinstance(one, str) else one for one in of_clips]
    unreadable = {path: why for path in paths if isinstance(why := found[path], str)}
    pairs = find_pairs([None if one is None else one.keypoints for one in facts],
                       on_clip=lambda done, total: count("clips compared", done, total))
    known = None if videos.groups is None else list(videos.groups)
    groups = known or group_names(len(videos), pairs)
    assert data.folder is not None
    audit = Audit(data.folder, data.class_names, videos, num_train, facts, unreadable, pairs, groups,
                  notes=[*data.notes])
    readable = [index for index, one in enumerate(facts) if one is not None]
    try:
        try:
            folds = folds_of(videos, groups, readable, data)
        except ValueError as error:
            if known:
                raise
            folds = folds_of(videos, [str(index) for index in range(len(videos))], readable, data)
            audit.notes.append("simpler models and doubtful labels are of clips held out one by one, not of whole "
                               f"recordings, so accuracies flatter: {error}")
    except ValueError as error:
        audit.notes.append(f"no simpler models and no doubtful labels: {error}")
        return audit
    if videos.label_sets is None:
        labels = videos.labels[readable]
        metadata = np.array([one.metadata for one in facts if one is not None])
        audit.shortcuts = [majority(labels), *of_facts(metadata, labels, folds)]
    else:
        audit.notes.append("no simpler models: those know one label a clip")
    if config.pretrained:
        add_features(audit, config, data, readable, folds, on_line=on_line or (lambda line: None), on_count=on_count)
    else:
        audit.notes.append("no doubtful labels, and nothing on frames: that needs features of a pretrained network "
                           "(--model and --weights)")
    return audit


def audit_folder(config: RunConfig, *, on_line: OnLine | None = None, on_count: OnCount | None = None) -> DataFolder:
    """The data that is audited. Raises ValueError where audit does not know its kind."""
    check_input(config.model, clip_len=config.clip_len, size=config.size)
    folder = prepare_folder(config, on_line=on_line, on_count=on_count)
    data = _find_clips(folder, config)
    if data.train.starts is not None:
        raise ValueError(f"{data.train.source}: it lists segments, and audit knows whole clips")
    return replace(data, folder=folder)


def _find_clips(folder: Path, config: RunConfig) -> DataFolder:
    """All that is listed; where it cannot be split, all of it as training, and a note says why."""
    try:
        return find_run_data(config, folder, keep_split=False)
    except ValueError as error:
        try:
            data = find_data(folder, val_share=None, any_split=True, keep_split=False, **data_flags(config))
        except ValueError:
            raise error from None
        data.notes.append(f"no validation, so nothing is said of leaks into it: {error}")
        return data


def look_at_files(paths: Sequence[str], config: RunConfig) -> Iterator[tuple[str, ClipFacts | str]]:
    """(path, facts of the clip, or why it cannot be read) in any order; each file is read once, in another process."""
    for path, result in map_in_processes(look_at, paths, num_workers=max(1, config.num_workers),
                                         timeout_seconds=config.video_timeout):
        assert isinstance(result, ClipFacts | Lost | VideoError)
        yield path, result if isinstance(result, ClipFacts) else result.reason


def folds_of(
    videos: VideoList, groups: list[str], readable: list[int], data: DataFolder
) -> list[tuple[list[int], list[int]]]:
    """Folds over the readable clips, by place among them, that keep groups whole: as many as the classes allow."""
    if not readable:
        raise ValueError("no clip can be read")
    labels = videos.labels[readable] if videos.label_sets is None else videos.label_sets[readable]  # (N,) or (N, K)
    if (labels == labels[0]).all():
        raise ValueError("all clips that can be read " + ("are of one class" if labels.ndim == 1 else
                                                          "have the same labels"))
    chosen = videos.subset(readable).with_groups([groups[index] for index in readable])
    holds = labels[:, None] == np.unique(labels) if labels.ndim == 1 else labels[:, labels.any(axis=0)] == 1  # (N, K)
    least = min(len({groups[readable[place]] for place in np.flatnonzero(column)}) for column in holds.T)
    if least < 2:
        raise ValueError("a class has all of its clips in one recording or group, so none can be held out")
    return divide(chosen, data.class_names, min(MOST_FOLDS, least))


def add_features(
    audit: Audit, config: RunConfig, data: DataFolder, readable: list[int], folds: list[tuple[list[int], list[int]]],
    *, on_line: OnLine, on_count: OnCount | None,
) -> None:
    """What features of a frozen network tell: probabilities of clips held out, doubtful labels, simpler models."""
    device = choose_device(config.device)
    model, _ = build_model(config, len(data.class_names))
    clips, = clip_features(config, [audit.videos.subset(readable)], audit.folder, model, device, on_line=on_line,
                           on_count=on_count)
    if len(clips.videos) != len(readable):
        audit.notes.append(f"{len(readable) - len(clips.videos)} clips were skipped by the network, so nothing is "
                           "said of labels and frames")
        return
    probed = probe_data(config, clips, len(data.class_names))
    probed = ProbeData(probed.features, probed.labels, probed.num_classes, [audit.groups[index] for index in readable])
    scores, on_frames = out_of_fold(probed, folds, config.pooling)     # (N, K)
    labels = probed.labels.numpy()
    found = doubtful_labels(scores, labels) if labels.ndim == 1 else doubtful_sets(scores, labels)
    audit.doubts = [replace(doubt, index=readable[doubt.index]) for doubt in found if doubt.margin > 0]
    audit.scores = scores
    audit.shortcuts += on_frames
    if labels.ndim == 2:
        return
    wrong = scores.argmax(axis=1) != labels
    audit.never_right = [readable[place] for place in np.flatnonzero(wrong & (confidence(scores, labels) < 0.1))]


def confidence(scores: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """(N,) probability of the given label."""
    return scores[np.arange(len(labels)), labels]
