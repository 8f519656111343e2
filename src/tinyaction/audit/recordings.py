"""Clips of the same recording: moved in time, cropped, mirrored, re-encoded.

    describe_frames   keypoints of a few frames, as they are and mirrored
    find_pairs        the pairs of clips that show the same place through the same camera
    group_names       a group for each clip, from the pairs

Two frames match where keypoints (SIFT, Lowe 2004) agree on one shift, scale and turn: a crop, a mirrored copy or
another codec keeps that, and so does another moment before a camera that stands. Clips of a camera that moves match as
long as they share a piece of the background. A vector of each frame says which are worth comparing (VLAD, Jegou et al.
2010).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from tinyaction.results.sheets import resized
from tinyaction.video import UInt8Array

Float32Array = npt.NDArray[np.float32]

LONG_SIDE = 400  # pixels of the frames that are compared
MOST_KEYPOINTS = 500  # of a frame
RATIO = 0.75  # Lowe's test: the nearest keypoint is so much nearer than the second
LEAST_INLIERS = 7  # places that agree; frames of other recordings have 4 at most
LEAST_AREA = 0.02  # share of the picture over which they spread: more than a caption or the mark of a station
MOST_SCALE, MOST_TURN = 3.0, 15.0  # of one frame against the other; degrees
NUM_NEAREST = 20  # clips with which a clip is compared
NUM_FRAME_PAIRS = 6  # frames of two clips that are compared, plain and mirrored
NUM_WORDS = 16  # of the vocabulary of VLAD


@dataclass(frozen=True)
class Keypoints:
    """Of a frame: places (P, 2) in pixels, descriptors (P, 128) of length 1, and the frame's (width, height)."""

    places: Float32Array
    descriptors: Float32Array
    size: tuple[int, int]


@dataclass(frozen=True)
class ClipKeypoints:
    frames: list[Keypoints]
    mirrored: list[Keypoints]


@dataclass(frozen=True)
class SamePair:
    """Two clips, by their places in the list, of one recording; ``num_inliers`` keypoints agree."""

    first: int
    second: int
    is_mirrored: bool
    num_inliers: int


def describe_frames(frames: Sequence[UInt8Array]) -> ClipKeypoints:
    """Keypoints of frames (H, W, 3) of one clip, in the order of time."""
    grey = [_grey(frame) for frame in frames]
    return ClipKeypoints([keypoints_of(frame) for frame in grey], [keypoints_of(frame[:, ::-1]) for frame in grey])


def _grey(frame: UInt8Array) -> UInt8Array:
    return resized(np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), np.uint8), LONG_SIDE)


def keypoints_of(frame: UInt8Array) -> Keypoints:
    """SIFT of a grey frame (H, W), the descriptors as their square roots (Arandjelovic and Zisserman 2012)."""
    create: Any = cv2.SIFT_create  # type: ignore[attr-defined]  # the stubs lack it
    found, descriptors = create(nfeatures=MOST_KEYPOINTS).detectAndCompute(np.ascontiguousarray(frame), None)
    size = (frame.shape[1], frame.shape[0])
    if descriptors is None or not len(descriptors):
        return Keypoints(np.zeros((0, 2), np.float32), np.zeros((0, 128), np.float32), size)
    roots = np.sqrt(descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-9))
    return Keypoints(np.array([point.pt for point in found], np.float32), roots.astype(np.float32), size)


def count_inliers(first: Keypoints, second: Keypoints) -> int:
    """Places of two frames that agree on one shift, scale and turn; 0 where they are few or close together."""
    if min(len(first.places), len(second.places)) < LEAST_INLIERS:
        return 0
    rows = np.arange(len(first.places))
    similarity = first.descriptors @ second.descriptors.T              # (P, Q) cosines
    nearest = similarity.argmax(axis=1)
    best = similarity[rows, nearest]
    similarity[rows, nearest] = -1
    distance, runner_up = np.sqrt(np.maximum(2 - 2 * np.stack([best, similarity.max(axis=1)]), 0))
    is_match = distance < RATIO * runner_up
    if is_match.sum() < LEAST_INLIERS:
        return 0
    here, there = first.places[is_match], second.places[nearest[is_match]]
    matrix, inliers = cv2.estimateAffinePartial2D(here, there, ransacReprojThreshold=3.0)
    if matrix is None or not _is_plausible(matrix):
        return 0
    agreeing = inliers.ravel().astype(bool)
    num_places = len(np.unique(there[agreeing].round(), axis=0))       # several keypoints of one place count once
    area = min(cv2.contourArea(cv2.convexHull(places[agreeing])) / (frame.size[0] * frame.size[1])
               for places, frame in ((here, first), (there, second)))
    return num_places if num_places >= LEAST_INLIERS and area >= LEAST_AREA else 0


def _is_plausible(matrix: npt.NDArray[np.float64]) -> bool:
    """Whether an affine map (2, 3) is what a crop or another size does, and not an accident."""
    scale, turn = np.hypot(matrix[0, 0], matrix[1, 0]), np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0]))
    return bool(1 / MOST_SCALE < scale < MOST_SCALE and abs(turn) < MOST_TURN)


def find_pairs(
    clips: Sequence[ClipKeypoints | None], *, on_clip: Callable[[int, int], None] | None = None
) -> list[SamePair]:
    """The pairs of clips that are of one recording; None stands for a clip that cannot be read.

    Each clip is compared with the :data:`NUM_NEAREST` clips whose frames have the nearest vectors.
    """
    known = [index for index, clip in enumerate(clips) if clip is not None]
    readable = [clip for clip in clips if clip is not None]
    if len(readable) < 2 or not any(len(frame.descriptors) for clip in readable for frame in clip.frames):
        return []
    words = vocabulary(readable)
    plain = np.stack([[vlad(frame, words) for frame in clip.frames] for clip in readable])         # (N, T, D)
    both = np.stack([plain, np.stack([[vlad(frame, words) for frame in clip.mirrored] for clip in readable])])
    compared: set[tuple[int, int]] = set()
    found = []
    for a, first in enumerate(readable):
        similarity = np.einsum("td,mnsd->nmts", plain[a], both)        # (N, 2, T, T)
        similarity[a] = -np.inf
        nearest = np.argsort(-similarity.max(axis=(1, 2, 3)), kind="stable")[:NUM_NEAREST]
        for b in nearest.tolist():
            pair = (min(a, b), max(a, b))
            if b == a or pair in compared:
                continue
            compared.add(pair)
            num_inliers, is_mirrored = _compare(first, readable[b], similarity[b])
            if num_inliers:
                found.append(SamePair(known[pair[0]], known[pair[1]], is_mirrored, num_inliers))
        if on_clip is not None:
            on_clip(a + 1, len(readable))
    return sorted(found, key=lambda pair: (pair.first, pair.second))


def _compare(first: ClipKeypoints, second: ClipKeypoints, similarity: Float32Array) -> tuple[int, bool]:
    """(places that agree, whether one is mirrored) of the frames with the nearest vectors; similarity (2, T, T)."""
    for is_mirrored, frames in ((False, second.frames), (True, second.mirrored)):
        for place in np.argsort(-similarity[int(is_mirrored)], axis=None, kind="stable")[:NUM_FRAME_PAIRS].tolist():
            num_inliers = count_inliers(first.frames[place // len(frames)], frames[place % len(frames)])
            if num_inliers:
                return num_inliers, is_mirrored
    return 0, False


def vocabulary(clips: Sequence[ClipKeypoints]) -> Float32Array:
    """(:data:`NUM_WORDS`, 128): centres of the descriptors of all clips, from a fixed draw of them."""
    every = np.concatenate([frame.descriptors for clip in clips for frame in clip.frames])
    chosen = every[np.random.default_rng(0).permutation(len(every))[:20_000]]
    cv2.setRNGSeed(0)
    _, _, centres = cv2.kmeans(chosen, min(NUM_WORDS, len(chosen)), np.zeros(0, np.int32),
                               (cv2.TERM_CRITERIA_MAX_ITER, 20, 0.0), 1, cv2.KMEANS_PP_CENTERS)
    return np.asarray(centres, np.float32)


def vlad(frame: Keypoints, words: Float32Array) -> Float32Array:
    """(words * 128,) of length 1: how the descriptors of a frame lie around the words, as signed square roots."""
    total = np.zeros_like(words)
    if len(frame.descriptors):
        word = (frame.descriptors @ words.T - 0.5 * (words**2).sum(axis=1)).argmax(axis=1)
        np.add.at(total, word, frame.descriptors - words[word])
    roots = np.sign(total) * np.sqrt(np.abs(total))
    return np.asarray(roots / max(float(np.linalg.norm(roots)), 1e-9), np.float32).ravel()


def group_names(num_clips: int, pairs: Sequence[SamePair]) -> list[str]:
    """A group for each clip: those that pairs connect share one, "recording-1", "recording-2" ... in list order."""
    parent = list(range(num_clips))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    for pair in pairs:
        a, b = sorted((root(pair.first), root(pair.second)))
        parent[b] = a
    numbers: dict[int, int] = {}
    return [f"recording-{numbers.setdefault(root(index), len(numbers) + 1)}" for index in range(num_clips)]
