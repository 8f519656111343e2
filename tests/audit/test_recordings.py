"""The same place under a crop, a mirror, another size and noise; and other places."""

import cv2
import numpy as np
import pytest
from toys import clip_of, place

from tinyaction.audit.recordings import (
    SamePair,
    count_inliers,
    describe_frames,
    find_pairs,
    group_names,
    keypoints_of,
)

CHANGES = {
    "as it is": lambda picture: picture,
    "cropped": lambda picture: picture[20:200, 40:300],
    "mirrored": lambda picture: picture[:, ::-1],
    "smaller": lambda picture: cv2.resize(picture, (200, 150), interpolation=cv2.INTER_AREA),
    "cropped and mirrored": lambda picture: picture[30:, 60:][:, ::-1],
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_clip_of_the_same_place_is_found_and_no_other(change):
    changed = np.ascontiguousarray(CHANGES[change](place(0)))
    clips = [describe_frames(clip_of(picture, seed=seed)) for seed, picture in
             enumerate([place(0), place(1), changed, place(2)])]
    pair, = find_pairs(clips)
    assert (pair.first, pair.second, pair.is_mirrored) == (0, 2, "mirrored" in change)
    assert pair.num_inliers >= 7


def test_clips_that_cannot_be_read_and_plain_ones_match_nothing():
    plain = describe_frames([np.full((240, 320, 3), 90, np.uint8)] * 3)
    assert find_pairs([None, plain, plain, describe_frames(clip_of(place(0)))]) == []
    assert find_pairs([None, plain]) == [] and find_pairs([]) == []


def test_a_small_mark_in_one_corner_is_not_a_place():
    mark = place(9)[:30, :40]
    pictures = []
    for seed in (0, 1):
        picture = place(seed)
        picture[5:35, 5:45] = mark
        pictures.append(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY))
    assert count_inliers(*map(keypoints_of, pictures)) == 0


def test_mirrored_keypoints_are_those_of_the_mirrored_frame():
    noise = np.random.default_rng(0).integers(0, 255, (30, 40)).astype(np.uint8)
    frame = cv2.resize(noise, (321, 240), interpolation=cv2.INTER_CUBIC)
    ours, seen = keypoints_of(frame).mirrored(), keypoints_of(np.ascontiguousarray(frame[:, ::-1]))
    distance = np.linalg.norm(ours.places[:, None] - seen.places[None], axis=2)
    cosines = [float(ours.vectors[here] @ seen.vectors[there]) for here, there in enumerate(distance.argmin(axis=1))
               if distance[here, there] < 1]
    assert len(cosines) > 0.8 * len(ours.places) and np.median(cosines) > 0.98


def test_groups_are_what_pairs_connect():
    pairs = [SamePair(0, 2, False, 9), SamePair(2, 4, True, 9)]
    assert group_names(5, pairs) == ["recording-1", "recording-2", "recording-1", "recording-3", "recording-1"]
