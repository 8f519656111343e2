"""Augmentations and several crops: one draw a video, boxes within the frame, MMAction2's numbers."""

import json
import random
from hashlib import sha256

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

import tinyaction as ta
from tinyaction.data.augment import (
    TorchvisionAugment,
    VideoMultiScaleCrop,
    VideoTenCrop,
    VideoThreeCrop,
    flip_label_map,
)
from tinyaction.data.sampling import dense_indices, interval_indices
from tinyaction.data.transforms import DenseSample, IntervalSample, VideoFlip


class MMActionDraws:
    """MMAction2 draws places from Python's ``random`` where ours come from the one generator of the item."""

    def randint(self, low, high):
        return random.randint(low, high - 1)


def video(num_frames=4, height=8, width=12, **more):
    """Frames whose pixels are their coordinates: channel 0 the row, 1 the column, 2 the frame."""
    rows, columns = np.mgrid[:height, :width]
    frames = [np.stack([rows, columns, np.full_like(rows, t)], axis=2).astype(np.uint8) for t in range(num_frames)]
    return {"imgs": frames, "img_shape": (height, width), "num_clips": 1, "clip_len": num_frames,
            "rng": np.random.RandomState(0), **more}


def test_torchvision_transforms_have_one_draw_for_all_frames_and_leave_torchs_state_alone():
    same = video(filename="a.mp4")
    same["imgs"] = [same["imgs"][0].copy() for _ in range(4)]
    state = torch.random.get_rng_state()
    out = TorchvisionAugment(v2.ColorJitter(0.4, 0.4, 0.4, 0.1))(same)["imgs"]
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(np.array_equal(frame, out[0]) for frame in out)
    assert not np.array_equal(out[0], video()["imgs"][0])


def test_torchvision_transforms_do_not_reseed_gpus(monkeypatch):
    """torch.manual_seed would: dropout on the GPU of a run without workers would repeat itself in every batch."""
    def refuse(seed):
        raise AssertionError("the generators of CUDA were seeded")

    monkeypatch.setattr("torch.cuda.manual_seed_all", refuse)
    TorchvisionAugment(v2.ColorJitter(0.4, 0.4, 0.4, 0.1))(video())


def test_torchvision_transforms_depend_on_the_items_generator_alone():
    def augmented(seed):
        torch.manual_seed(torch.seed() % 1000)  # whatever state torch is in
        results = video(height=32, width=32, rng=np.random.RandomState(seed))
        return np.stack(TorchvisionAugment(v2.RandAugment(num_ops=2, magnitude=9))(results)["imgs"])

    assert np.array_equal(augmented(1), augmented(1))
    assert any(not np.array_equal(augmented(1), augmented(seed)) for seed in (2, 3, 4))


def test_torchvision_transforms_must_leave_uint8():
    with pytest.raises(ValueError, match="gives torch.float32 frames; pixels stay uint8"):
        TorchvisionAugment(v2.ToDtype(torch.float32))(video())


def test_three_crops_are_both_ends_and_the_middle():
    wide = VideoThreeCrop(8)(video(num_frames=2, height=8, width=12))
    assert wide["num_clips"] == 3 and wide["img_shape"] == (8, 8)
    assert [int(frame[0, 0, 1]) for frame in wide["imgs"]] == [0, 0, 4, 4, 2, 2]  # left, right, middle
    assert [int(frame[0, 0, 2]) for frame in wide["imgs"]] == [0, 1, 0, 1, 0, 1]
    tall = VideoThreeCrop(8)(video(num_frames=1, height=14, width=8))
    assert [int(frame[0, 0, 0]) for frame in tall["imgs"]] == [0, 6, 3]


def test_ten_crops_are_corners_and_centre_and_their_mirror_images():
    out = VideoTenCrop(4)(video(num_frames=1, height=8, width=12))
    first_pixels = [tuple(frame[0, 0, :2].tolist()) for frame in out["imgs"]]
    #              upper left      upper right      lower left      lower right      centre
    assert first_pixels == [(0, 0), (0, 3), (0, 8), (0, 11), (4, 0), (4, 3), (4, 8), (4, 11), (2, 4), (2, 7)]
    assert out["num_clips"] == 10


@pytest.mark.parametrize(("crop", "words"), [
    (VideoThreeCrop(9), "a.mp4: three crops of 9 pixels need frames with a short side of 9, they are 12x8"),
    (VideoTenCrop(9), "a.mp4: a crop of 9 pixels does not fit into a frame of 12x8"),
])
def test_crops_that_do_not_fit(crop, words):
    with pytest.raises(ValueError, match=words):
        crop(video(filename="a.mp4"))


@pytest.mark.parametrize("num_places", [5, 13])
def test_multi_scale_boxes_lie_within_the_frame_and_reach_its_edges(num_places):
    crop = VideoMultiScaleCrop(13, scales=(1, 0.75), num_places=num_places)  # sides 16 and 12, and 12 is made 13
    rng = np.random.RandomState(0)
    boxes = {crop.draw_box(16, 24, rng) for _ in range(500)}
    assert all(0 <= x <= 24 - w and 0 <= y <= 16 - h for x, y, w, h in boxes)
    assert {(w, h) for _, _, w, h in boxes} == {(16, 16), (16, 13), (13, 16), (13, 13)}
    assert {x for x, _, w, _ in boxes if w == 16} == ({0, 4, 8} if num_places == 5 else {0, 2, 4, 6, 8})


def test_mirroring_changes_the_label_where_it_must():
    flip = VideoFlip(1.0, label_map={0: 2, 2: 0})
    assert [flip(video(label=label))["label"] for label in (0, 1, 2)] == [2, 1, 0]
    assert [VideoFlip(0.0, label_map={0: 2, 2: 0})(video(label=label))["label"] for label in (0, 1, 2)] == [0, 1, 2]


def test_flip_pairs_are_read_from_text():
    names = ["left", "right", "up l", "up r", "stay"]
    assert flip_label_map("left=right, up l=up r", names) == {0: 1, 1: 0, 2: 3, 3: 2}
    assert flip_label_map("", ["a", "b"]) == {}


@pytest.mark.parametrize(("text", "words"), [
    ("left-right", "--flip-pairs has 'left-right': it must be name=name; the classes are left, right"),
    ("left=down", "--flip-pairs has 'left=down': 'down' is no class; the classes are left, right"),
])
def test_flip_pairs_that_are_none(text, words):
    with pytest.raises(ValueError, match=words):
        flip_label_map(text, ["left", "right"])


# ---- equal to MMAction2 --------------------------------------------------------------------------------------------


def test_sampling_equals_mmaction2(shared):
    """Every case of SampleFrames and DenseSampleFrames, training and test, draw for draw."""
    compared = 0
    for case in json.loads((shared / "reference/f_sampling.json").read_text()):
        config = dict(case["cfg"])
        kind, test_mode = config.pop("type"), config.pop("test_mode", False)
        if kind not in ("SampleFrames", "DenseSampleFrames"):
            continue
        np.random.seed(case["seed"])
        rng = None if test_mode else np.random
        if kind == "SampleFrames":
            out_of_bound = config.pop("out_of_bound_opt", "loop")
            indices = interval_indices(case["total"], config.pop("clip_len"), config.pop("num_clips"), rng,
                                       fps=case["fps"] or 0.0, out_of_bound=out_of_bound, **config)
        else:
            indices = dense_indices(case["total"], config["clip_len"], config["num_clips"], rng,
                                    frame_interval=config["frame_interval"])
        assert indices.reshape(-1).tolist() == case["inds"], (case["cfg"], case["total"])
        compared += 1
    assert compared == 152


@pytest.mark.parametrize(("name", "crop"), [("ThreeCrop256", VideoThreeCrop(256)), ("TenCrop224", VideoTenCrop(224))])
def test_crops_equal_mmaction2(name, crop, shared):
    expected = json.loads((shared / "reference/f_spatial.json").read_text())
    results = decoded(shared, expected["demo/frame_inds"])
    out = crop(results)
    assert sha256(np.stack(out["imgs"]).tobytes()).hexdigest() == expected[f"demo/{name}"]["sha256"]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_multi_scale_crop_equals_mmaction2(seed, shared):
    expected = json.loads((shared / "reference/f_spatial.json").read_text())[f"demo/MultiScaleCrop/seed{seed}"]
    random.seed(seed)
    left, top, width, height = VideoMultiScaleCrop(224).draw_box(256, 340, MMActionDraws())
    assert [left, top, left + width, top + height] == expected["crop_bbox"]


def test_three_crops_of_three_clips_are_packed_as_mmaction2_does(shared):
    """demo/slow3x3: 8 frames, 8 apart, 3 clips, 3 crops of 256 pixels."""
    expected = json.loads((shared / "reference/f_spatial.json").read_text())["demo/slow3x3/packed"]
    pipeline = ta.Compose([
        ta.VideoInit(), IntervalSample(8, 8, 3, test_mode=True), ta.VideoDecode(), ta.VideoResize(256),
        VideoThreeCrop(256), ta.VideoFormat(), ta.VideoPack(),
    ])
    inputs = pipeline({"filename": str(shared / "clips/odd/demo.mp4"), "label": 0})["inputs"]
    assert list(inputs.shape) == expected["shape"]
    assert sha256(inputs.numpy().tobytes()).hexdigest() == expected["sha256"]


def decoded(shared, frame_inds):
    frames = ta.open_video(shared / "clips/odd/demo.mp4").get_batch(frame_inds)
    return {"imgs": list(frames), "img_shape": frames.shape[1:3], "num_clips": 1, "clip_len": len(frame_inds)}


def test_sampling_transforms_are_seeded_by_the_item():
    def indices(transform, seed):
        return transform({"total_frames": 300, "rng": np.random.RandomState(seed)})["frame_inds"].tolist()

    for transform in (IntervalSample(8, 4, 2), DenseSample(1, 1, 8)):
        assert indices(transform, 1) == indices(transform, 1) != indices(transform, 2)
    assert indices(IntervalSample(4, 2, 1, test_mode=True), 0) == [146, 148, 150, 152]
