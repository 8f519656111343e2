"""Clips of the same recording: moved in time, cropped, mirrored, re-encoded.

    describe_frames   keypoints of a few frames
    find_pairs        the pairs of clips that show the same place through the same camera
    group_names       a group for each clip, from the pairs

Two frames match where keypoints (SIFT, Lowe 2004) agree on one shift, scale and turn: a crop, a mirrored copy or
another codec keeps that, and so does another moment before a camera that stands. Clips of a camera that moves match as
long as they share a piece of the background. A vector of each frame says which are worth comparing (VLAD, Jegou et al.
2010), so that keypoints are compared for :data:`NUM_NEAREST` pairs a clip, however many clips there are.
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
MOST_KEYPOINTS = 800  # of a frame
CONTRAST = 0.015  # of a keypoint at least, of 1; a background out of focus has no stronger ones
RATIO = 0.75  # Lowe's test: the nearest keypoint is so much nearer than the second
LEAST_INLIERS = 7  # places that agree; frames of other recordings have 6 at most
LEAST_AREA = 0.005  # share of the picture over which they spread
MARK_AREA = 0.02  # a caption or the mark of a station is smaller, and is found at one place of the picture
MARK_SHIFT = 4.0  # pixels by which its place may differ
MOST_SCALE, MOST_TURN = 3.0, 15.0  # of one frame against the other; degrees
NUM_NEAREST = 30  # clips with which a clip is compared
NUM_FRAME_PAIRS = 12  # frames of two clips that are compared, plain and mirrored
NUM_WORDS = 64  # of the vocabulary of VLAD
FRAME_STEP = 2  # of the frames of a clip, every second one finds the nearest clips
DESCRIPTOR_UNIT = 1 / 512  # of the numbers that are kept as bytes


@dataclass(frozen=True)
class Keypoints:
    """Of a frame: places (P, 2) in pixels, descriptors (P, 128) uint8, and the frame's (width, height)."""

    places: Float32Array
    descriptors: UInt8Array
    size: tuple[int, int]

    @property
    def vectors(self) -> Float32Array:
        """(P, 128), of length 1 but for rounding."""
        return self.descriptors * np.float32(DESCRIPTOR_UNIT)

    def mirrored(self) -> "Keypoints":
        """Those of the frame mirrored left to right, without looking at it again.

        A descriptor has 4 x 4 cells around its keypoint, turned with it, of 8 directions: in a mirror the cells change
        places across the keypoint's direction, and angles their sign.
        """
        cells = self.descriptors.reshape(-1, 4, 4, 8)[:, ::-1]
        places = np.stack([self.size[0] - 1 - self.places[:, 0], self.places[:, 1]], axis=1)
        return Keypoints(places, cells[..., [0, 7, 6, 5, 4, 3, 2, 1]].reshape(-1, 128), self.size)


@dataclass(frozen=True)
class SamePair:
    """Two clips, by their places in the list, of one recording; ``num_inliers`` keypoints agree."""

    first: int
    second: int
    is_mirrored: bool
    num_inliers: int


def describe_frames(frames: Sequence[UInt8Array]) -> list[Keypoints]:
    """Keypoints of frames (H, W, 3) of one clip, in the order of time."""
    return [keypoints_of(resized(np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), np.uint8), LONG_SIDE))
            for frame in frames]


def keypoints_of(frame: UInt8Array) -> Keypoints:
    """SIFT of a grey frame (H, W), the descriptors as their square roots (Arandjelovic and Zisserman 2012)."""
    create: Any = cv2.SIFT_create  # type: ignore[attr-defined]  # the stubs lack it
    found, descriptors = create(nfeatures=MOST_KEYPOINTS, contrastThreshold=CONTRAST).detectAndCompute(
        np.ascontiguousarray(frame), None)
    size = (frame.shape[1], frame.shape[0])
    if descriptors is None or not len(descriptors):
        return Keypoints(np.zeros((0, 2), np.float32), np.zeros((0, 128), np.uint8), size)
    roots = np.sqrt(descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-9)) / DESCRIPTOR_UNIT
    return Keypoints(np.array([point.pt for point in found], np.float32), roots.round().clip(0, 255).astype(np.uint8),
                     size)


def count_inliers(first: Keypoints, second: Keypoints) -> int:
    """Places of two frames that agree on one shift, scale and turn; 0 where they are few or close together."""
    if min(len(first.places), len(second.places)) < LEAST_INLIERS:
        return 0
    rows = np.arange(len(first.places))
    similarity = first.vectors @ second.vectors.T                      # (P, Q) cosines
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
    here, there = here[agreeing], there[agreeing]
    num_places = len(np.unique(there.round(), axis=0))                 # several keypoints of one place count once
    area = min(cv2.contourArea(cv2.convexHull(places)) / (frame.size[0] * frame.size[1])
               for places, frame in ((here, first), (there, second)))
    if num_places < LEAST_INLIERS or area < LEAST_AREA:
        return 0
    return 0 if area < MARK_AREA and _is_at_one_place(here, first, there, second) else num_places


def _is_at_one_place(here: Float32Array, first: Keypoints, there: Float32Array, second: Keypoints) -> bool:
    """Whether places lie as far from a corner, or the middle, in both frames, as what is laid over them does."""
    grown = np.subtract(second.size, first.size)
    return any(bool(np.median(np.abs(there - here - grown * anchor)) < MARK_SHIFT)
               for anchor in ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (0.5, 0.5)))


def _is_plausible(matrix: npt.NDArray[np.float64]) -> bool:
    """Whether an affine map (2, 3) is what a crop or another size does, and not an accident."""
    scale, turn = np.hypot(matrix[0, 0], matrix[1, 0]), np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0]))
    return bool(1 / MOST_SCALE < scale < MOST_SCALE and abs(turn) < MOST_TURN)


def find_pairs(
    clips: Sequence[Sequence[Keypoints] | None], *, on_clip: Callable[[int, int], None] | None = None
) -> list[SamePair]:
    """The pairs of clips that are of one recording; None stands for a clip that cannot be read.

    Each clip is compared with the :data:`NUM_NEAREST` clips whose frames have the nearest vectors.
    """
    known = [index for index, clip in enumerate(clips) if clip is not None]
    readable = [clip for clip in clips if clip is not None]
    if len(readable) < 2 or not any(len(frame.places) for clip in readable for frame in clip):
        return []
    words = vocabulary(readable)
    plain, mirrored = ([clip_vectors(clip, words, is_mirrored=kind) for clip in readable] for kind in (False, True))
    some = [np.stack([vectors[::FRAME_STEP] for vectors in kind]) for kind in (plain, mirrored)]     # (N, S, D) each
    compared: set[tuple[int, int]] = set()
    found = []
    for a, first in enumerate(readable):
        similarity = np.max([(part @ some[0][a].T).max(axis=(1, 2)) for part in some], axis=0)           # (N,)
        similarity[a] = -np.inf
        for b in np.argsort(-similarity, kind="stable")[:NUM_NEAREST].tolist():
            pair = (min(a, b), max(a, b))
            if b == a or pair in compared:
                continue
            compared.add(pair)
            num_inliers, is_mirrored = _compare(first, readable[b], plain[a], (plain[b], mirrored[b]))
            if num_inliers:
                found.append(SamePair(known[pair[0]], known[pair[1]], is_mirrored, num_inliers))
        if on_clip is not None:
            on_clip(a + 1, len(readable))
    return sorted(found, key=lambda pair: (pair.first, pair.second))


def _compare(
    first: Sequence[Keypoints], second: Sequence[Keypoints], vectors: Float32Array, others: Sequence[Float32Array]
) -> tuple[int, bool]:
    """(places that agree, whether one is mirrored) of the frames with the nearest vectors; others: plain, mirrored."""
    for is_mirrored, of_second in zip((False, True), others, strict=True):
        nearest = np.argsort(-(vectors @ of_second.T), axis=None, kind="stable")  # of (T, T)
        for place in nearest[:NUM_FRAME_PAIRS].tolist():
            frame = second[place % len(second)]
            num_inliers = count_inliers(first[place // len(second)], frame.mirrored() if is_mirrored else frame)
            if num_inliers:
                return num_inliers, is_mirrored
    return 0, False


def clip_vectors(clip: Sequence[Keypoints], words: Float32Array, *, is_mirrored: bool) -> Float32Array:
    """(T, words * 128), a vector of each frame."""
    return np.stack([vlad(frame.mirrored() if is_mirrored else frame, words) for frame in clip])


def vocabulary(clips: Sequence[Sequence[Keypoints]]) -> Float32Array:
    """(:data:`NUM_WORDS`, 128): centres of the descriptors of all clips, from a fixed draw of them."""
    few = clips[:: max(1, len(clips) // 500)]                          # a million clips are no better
    every = np.concatenate([frame.descriptors for clip in few for frame in clip])
    chosen = every[np.random.default_rng(0).permutation(len(every))[:20_000]] * np.float32(DESCRIPTOR_UNIT)
    cv2.setRNGSeed(0)
    _, _, centres = cv2.kmeans(chosen, min(NUM_WORDS, len(chosen)), np.zeros(0, np.int32),
                               (cv2.TERM_CRITERIA_MAX_ITER, 20, 0.0), 1, cv2.KMEANS_PP_CENTERS)
    return np.asarray(centres, np.float32)


def vlad(frame: Keypoints, words: Float32Array) -> Float32Array:
    """(words * 128,) of length 1: how the descriptors of a frame lie around the words, as signed square roots."""
    total = np.zeros_like(words)
    if len(frame.places):
        vectors = frame.vectors
        word = (vectors @ words.T - 0.5 * (words**2).sum(axis=1)).argmax(axis=1)
        np.add.at(total, word, vectors - words[word])
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
