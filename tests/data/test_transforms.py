"""The steps of a clip, on frames whose pixels say where they are: (frame, row, column)."""

import weakref
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from toys import telling_frames

import tinyaction as ta
from tinyaction.data.augment import VideoMultiScaleCrop, VideoThreeCrop
from tinyaction.inference.sources import MemoryReader
from tinyaction.video import VideoReader
from tinyaction.video.writer import write_video


class FakeReader(VideoReader):
    """Frames that tell their number in every pixel; remembers what was asked and how many frames lived at once."""

    fps = 25.0

    def __init__(self, num_frames, height=32, width=48):
        self.shape = (height, width, 3)
        self.num_frames = num_frames
        self.asked = []
        self.num_alive = self.most_alive = 0

    def __len__(self):
        return self.num_frames

    def read(self, indices):
        for index in indices:
            self.asked.append(index)
            frame = np.zeros(self.shape, np.uint8)
            frame[:4, :4] = index % 256
            self.num_alive += 1
            self.most_alive = max(self.most_alive, self.num_alive)
            weakref.finalize(frame, self.forget, 1)
            yield frame
            del frame

    def forget(self, num_frames):
        self.num_alive -= num_frames


class FakeRandom:
    """Gives the numbers it was given, whatever is asked, and counts."""

    def __init__(self, *numbers):
        self.numbers = list(numbers)

    def next(self, *range_, size=None):
        return self.numbers.pop(0) if size is None else np.array([self.numbers.pop(0) for _ in range(size)])

    random_sample = randint = uniform = next


def clip_of(height, width, num_frames=4):
    frames = telling_frames(num_frames, height, width)
    return {"imgs": list(frames), "img_shape": (height, width), "num_clips": 1, "clip_len": num_frames}


def corners(frame):
    """(row, column) of the first and of the last pixel, as the pixels themselves say."""
    return tuple(frame[0, 0, 1:].tolist()), tuple(frame[-1, -1, 1:].tolist())


# ---------------------------------------------------------------------------------------------------------------------
# the whole way
# ---------------------------------------------------------------------------------------------------------------------


def test_the_guides_snippet_runs_as_written(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "data/kinetics400_tiny/train"
    folder.mkdir(parents=True)
    write_video(folder / "D32_1gwq35E.mp4", telling_frames(40, 120, 160), fps=25)
    monkeypatch.chdir(tmp_path)

    pipeline = ta.Compose([
        ta.VideoInit(),
        ta.VideoSample(clip_len=16, num_clips=1, test_mode=False),
        ta.VideoDecode(),
        ta.VideoResize(r_size=(256, 256)),
        ta.VideoCrop(c_size=224),
        ta.VideoFormat(),
        ta.VideoPack(),
    ])
    packed = pipeline(dict(filename="data/kinetics400_tiny/train/D32_1gwq35E.mp4", label=0))
    sample = packed["data_samples"]
    print(packed["inputs"].shape, sample.img_shape, sample.num_clips, sample.clip_len, sample.label)

    assert capsys.readouterr().out == "torch.Size([1, 3, 16, 224, 224]) (224, 224) 1 16 tensor([0])\n"


def test_the_pixels_of_a_packed_clip_say_where_they_come_from(telling_clip):
    pipeline = ta.Compose([
        ta.VideoInit(), ta.UniformSample(3, num_clips=2, test_mode=True), ta.VideoDecode(), ta.VideoCrop(16),
        ta.VideoFormat(), ta.VideoPack(),
    ])
    inputs = pipeline({"filename": str(telling_clip(num_frames=25, height=32, width=48))})["inputs"]
    assert inputs.shape == (2, 3, 3, 16, 16) and inputs.dtype == torch.uint8
    assert inputs[:, 0, :, 0, 0].tolist() == [[2, 10, 18], [5, 13, 21]]  # (V, T) frames: 8 apart, 8/3 and 16/3 within
    assert inputs[1, 1, 2, :, 5].tolist() == list(range(8, 24))  # (H,) rows
    assert inputs[1, 2, 2, 5, :].tolist() == list(range(16, 32))  # (W,) columns


def test_a_step_is_any_callable():
    assert ta.Compose([lambda results: results | {"seen": True}])({}) == {"seen": True}


def test_a_pipeline_shows_its_recipe():
    steps = [ta.VideoInit(), ta.VideoSample(16, 5, test_mode=True), ta.UniformSample(8), ta.VideoDecode(),
             ta.VideoResize((340, 256)), ta.VideoCrop(224), ta.VideoRandomResizedCrop(112), ta.VideoFlip(),
             ta.VideoFormat(), ta.VideoPack()]
    assert repr(ta.Compose(steps)) == """Compose([
    VideoInit(reader='pyav'),
    VideoSample(clip_len=16, num_clips=5, test_mode=True),
    UniformSample(clip_len=8, num_clips=1, test_mode=False),
    VideoDecode(),
    VideoResize(r_size=(340, 256)),
    VideoCrop(c_size=224),
    VideoRandomResizedCrop(size=112, area=(0.08, 1.0), aspect=(0.75, 1.3333333333333333)),
    VideoFlip(flip_ratio=0.5, label_map={}),
    VideoFormat(),
    VideoPack(),
])"""


# ---------------------------------------------------------------------------------------------------------------------
# which frames
# ---------------------------------------------------------------------------------------------------------------------


def test_video_init_opens_the_file(telling_clip):
    results = ta.VideoInit()({"filename": telling_clip(num_frames=7)})
    assert results["total_frames"] == len(results["video_reader"]) == 7


def test_video_sample_draws_from_the_items_generator_or_from_numpys():
    sample = ta.VideoSample(clip_len=8, num_clips=2)
    np.random.seed(3)
    by_hand = sample({"total_frames": 300})
    of_the_item = sample({"total_frames": 300, "rng": np.random.RandomState(3)})
    assert by_hand["frame_inds"].tolist() == of_the_item["frame_inds"].tolist()
    assert by_hand["frame_inds"].shape == (16,)
    assert (by_hand["num_clips"], by_hand["clip_len"]) == (2, 8)


@pytest.mark.parametrize("sample_class", [ta.VideoSample, ta.UniformSample])
def test_an_items_generator_leaves_numpys_global_state_alone(sample_class):
    np.random.seed(0)
    expected = np.random.random_sample()
    np.random.seed(0)
    sample_class(8, 2)({"total_frames": 300, "rng": np.random.RandomState(3)})
    assert np.random.random_sample() == expected


@pytest.mark.parametrize("sample_class", [ta.VideoSample, ta.UniformSample])
def test_defect_1_test_mode_leaves_numpys_global_state_alone(sample_class):
    # In the guide the training frames after every validation are those of the epoch before.
    train, val = sample_class(8, 1), sample_class(8, 1, test_mode=True)
    epochs = []
    np.random.seed(0)
    for _ in range(3):
        epochs.append(train({"total_frames": 300})["frame_inds"].tolist())
        val({"total_frames": 300})
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    assert val({"total_frames": 300})["frame_inds"].tolist() == val({"total_frames": 300})["frame_inds"].tolist()


@pytest.mark.parametrize("test_mode", [False, True])
def test_defect_3_a_short_video_repeats_frames(test_mode, telling_clip):
    results = ta.Compose([ta.VideoInit(), ta.VideoSample(8, 2, test_mode=test_mode), ta.VideoDecode()])(
        {"filename": telling_clip(num_frames=3)}
    )
    assert [int(frame[0, 0, 0]) for frame in results["imgs"]] == 2 * [0, 0, 0, 1, 1, 1, 2, 2]


# ---------------------------------------------------------------------------------------------------------------------
# decoding
# ---------------------------------------------------------------------------------------------------------------------


def decode(reader, frame_inds, *following):
    steps = [ta.VideoDecode(), *following]
    return ta.Compose(steps)({"video_reader": reader, "frame_inds": np.array(frame_inds)})


def test_defect_2_each_frame_is_decoded_once_and_in_file_order():
    reader = FakeReader(100)
    frame_inds = [60, 70, 80, 61, 70, 81, 5, 70, 90, 2]
    imgs = list(decode(reader, frame_inds)["imgs"])
    assert reader.asked == [2, 5, 60, 61, 70, 80, 81, 90]
    assert [int(frame[0, 0, 0]) for frame in imgs] == frame_inds
    assert imgs[1] is imgs[4] is imgs[7]


def test_decode_says_what_it_decoded_and_lets_go_of_the_reader():
    results = decode(FakeReader(10, height=32, width=48), [3])
    assert results["img_shape"] == (32, 48)
    assert "video_reader" not in results


def test_defect_7_full_size_frames_are_never_held_all_at_once():
    reader = FakeReader(400, height=1080, width=1920)
    frame_inds = np.random.RandomState(0).permutation(400)[:80]  # 5 clips of 16 frames: 475 MiB in the guide
    imgs = decode(reader, frame_inds, ta.VideoResize(36))["imgs"]
    assert len(imgs) == 80 and imgs[0].shape == (36, 64, 3)
    assert len(reader.asked) == 80
    assert reader.most_alive <= 2  # one, and the next while the first is let go of
    assert reader.num_alive == 0  # no small frame keeps a large one alive


def one_by_one(results):
    """Stands between two steps, so that they cannot be joined."""
    return results


@pytest.mark.parametrize("steps", [
    [ta.VideoResize(16)],
    [ta.VideoResize((20, 30))],
    [ta.VideoResize(32)],  # the frames have that size already
    [ta.VideoResize(24), ta.VideoCrop(20)],
    [ta.VideoResize(24), ta.VideoRandomResizedCrop(16), ta.VideoFlip(0.5, label_map={0: 1})],
    [ta.VideoFlip(0.5), VideoMultiScaleCrop(16)],
    [ta.VideoResize(24), VideoThreeCrop(24)],  # not a frame by itself: it ends what is joined
])
@pytest.mark.parametrize("last", [[], [ta.VideoFormat()], [ta.VideoFormat(), ta.VideoPack()]])
def test_what_is_done_to_each_frame_as_it_is_read_is_what_would_be_done_afterwards(steps, last, telling_clip):
    opening = [ta.VideoInit(), ta.VideoSample(8, 2), ta.VideoDecode()]
    joined = ta.Compose([*opening, *steps, *last])
    apart = ta.Compose([part for step in [*opening, *steps, *last] for part in (step, one_by_one)])
    for seed in range(4):
        found, expected = ({**pipeline({"filename": telling_clip(), "label": 0, "rng": np.random.RandomState(seed)})}
                           for pipeline in (joined, apart))
        assert found.keys() == expected.keys()
        key = "inputs" if "inputs" in found else "imgs"
        assert np.array_equal(found[key], expected[key])
        if key == "imgs":
            assert found["img_shape"] == expected["img_shape"] and found["label"] == expected["label"]
            assert found["rng"].get_state()[2] == expected["rng"].get_state()[2]  # as many draws


def test_a_second_run_of_the_same_dict_leaves_the_first_ones_frames(telling_clip):
    pipeline = ta.Compose([ta.VideoInit(), ta.VideoSample(4, 1), ta.VideoDecode(), ta.VideoFormat(), ta.VideoPack()])
    given = {"filename": telling_clip(), "label": 0, "rng": np.random.RandomState(0)}
    first = pipeline(given)["inputs"]
    kept = first.clone()
    assert not torch.equal(pipeline(given)["inputs"], kept)
    assert torch.equal(first, kept)


class Half(ta.VideoFormat):
    def __call__(self, results):
        results = super().__call__(results)
        results["imgs"] = results["imgs"] // 2
        return results


class Upside(ta.VideoFlip):
    def __call__(self, results):
        results["imgs"] = [frame[::-1] for frame in results["imgs"]]
        return results


class Last(ta.VideoDecode):
    def __call__(self, results):
        results = super().__call__(results)
        results["imgs"] = results["imgs"][-1:] * len(results["imgs"])
        return results


def test_a_step_of_a_derived_class_is_done_as_it_says(telling_clip):
    pipeline = ta.Compose([ta.VideoInit(), ta.VideoSample(4, 1, test_mode=True), Last(), Upside(), Half(),
                           ta.VideoPack()])
    inputs = pipeline({"filename": telling_clip(num_frames=24, height=32, width=48)})["inputs"]  # (1, 3, 4, 32, 48)
    assert np.array_equal(inputs[0, :, 0].permute(1, 2, 0), telling_frames(24, 32, 48)[23, ::-1] // 2)


def test_a_step_that_writes_into_frames_changes_nobody_elses():
    array = telling_frames(6, 8, 8)
    before = array.copy()

    def blacken(results):
        for frame in results["imgs"]:
            frame[:] = 0
        return results

    given = {"video_reader": MemoryReader(array), "frame_inds": np.arange(3)}
    results = ta.Compose([ta.VideoDecode(), blacken])(given)
    assert not np.any(results["imgs"])
    assert np.array_equal(array, before)


@pytest.mark.parametrize("other", [np.zeros((6, 4, 3), np.uint8), np.zeros((4, 6, 3), np.float32)])
def test_frames_of_another_kind_do_not_fit_into_a_clip(other):
    with pytest.raises(ValueError, match=r"a frame of \(\d, \d, 3\) \w+ among frames for \(1, 3, 2, 4, 6\); all are"):
        ta.VideoFormat()({"imgs": [np.zeros((4, 6, 3), np.uint8), other], "num_clips": 1, "clip_len": 2})


def test_the_rate_is_the_files(telling_clip):
    assert ta.VideoInit()({"filename": telling_clip()})["fps"] == 25.0


# ---------------------------------------------------------------------------------------------------------------------
# sizes
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("r_size, height, width, expected", [
    (256, 240, 320, (256, 341)),  # 341.33
    (256, 1080, 1920, (256, 455)),  # 455.1
    (256, 1920, 1080, (455, 256)),
    (3, 4, 10, (3, 8)),  # 7.5 is rounded up
    (256, 256, 340, (256, 340)),
    ((340, 256), 240, 320, (256, 340)),  # (width, height)
    ((64, 64), 240, 320, (64, 64)),
])
def test_resize(r_size, height, width, expected):
    results = ta.VideoResize(r_size)(clip_of(height, width, num_frames=2))
    assert results["img_shape"] == expected
    assert [frame.shape for frame in results["imgs"]] == [(*expected, 3)] * 2


def test_resize_is_bilinear():
    results = clip_of(1, 2, num_frames=1)
    results["imgs"][0][0, :, 2] = [0, 100]
    assert ta.VideoResize((4, 1))(results)["imgs"][0][0, :, 2].tolist() == [0, 25, 75, 100]


def test_resize_changes_a_repeated_frame_once():
    frame = telling_frames(1, 8, 8)[0]
    imgs = ta.VideoResize(4)({"imgs": [frame, frame], "img_shape": (8, 8)})["imgs"]
    assert imgs[0] is imgs[1]


@pytest.mark.parametrize("c_size, height, width, expected", [
    (4, 8, 10, ((2, 3), (5, 6))),
    (3, 8, 10, ((3, 4), (5, 6))),
    (3, 7, 9, ((2, 3), (4, 5))),
    (5, 5, 9, ((0, 2), (4, 6))),
    (1, 1, 1, ((0, 0), (0, 0))),
])
def test_crop_cuts_the_centre(c_size, height, width, expected):
    results = ta.VideoCrop(c_size)(clip_of(height, width))
    assert [corners(frame) for frame in results["imgs"]] == [expected] * 4


@pytest.mark.parametrize("height, width", [(20, 30), (21, 30), (20, 31), (21, 31)])
@pytest.mark.parametrize("c_size", [1, 6, 7, 19, 20])
def test_defect_6_a_crop_has_the_size_asked_for(c_size, height, width):
    results = ta.VideoCrop(c_size)(clip_of(height, width))
    assert results["img_shape"] == (c_size, c_size)
    assert {frame.shape for frame in results["imgs"]} == {(c_size, c_size, 3)}
    (top, left), (bottom, right) = corners(results["imgs"][0])
    assert abs(top - (height - 1 - bottom)) <= 1 and abs(left - (width - 1 - right)) <= 1  # as much on either side


@pytest.mark.parametrize("height, width", [(200, 300), (300, 200)])
def test_defect_6_a_crop_larger_than_the_frame_is_an_error(height, width):
    rule = rf"a\.mp4: a crop of 224 pixels does not fit into a frame of {width}x{height} \(width x height\)"
    with pytest.raises(ValueError, match=rule):
        ta.VideoCrop(224)({"filename": "a.mp4", "imgs": [], "img_shape": (height, width)})


# ---------------------------------------------------------------------------------------------------------------------
# augmentations
# ---------------------------------------------------------------------------------------------------------------------


def test_random_crop_cuts_the_same_box_from_every_frame():
    crop = ta.VideoRandomResizedCrop(4, area=(0.1, 1.0))
    # Ten aspects (as logarithms), ten areas (shares of the frame), then left and top.
    rng = FakeRandom(*[np.log(2)] * 10, *[32 / 320] * 10, 5, 3)
    assert crop.draw_box(16, 20, rng) == (5, 3, 8, 4)  # 8 * 4 = 32 of 320 pixels, twice as wide as high
    assert rng.numbers == []

    rng = FakeRandom(*[0.0] * 10, *[16 / 320] * 10, 5, 3)  # 4x4, so that resizing changes nothing
    results = crop(clip_of(16, 20) | {"rng": rng})
    assert [corners(frame) for frame in results["imgs"]] == [((3, 5), (6, 8))] * 4
    assert results["img_shape"] == (4, 4)


def test_random_crop_takes_the_first_box_that_fits():
    rng = FakeRandom(np.log(4), *[0.0] * 9, 1.0, *[0.05] * 9, 0, 0)  # 36x9 is wider than the frame; then 4x4
    assert ta.VideoRandomResizedCrop(4).draw_box(16, 20, rng) == (0, 0, 4, 4)


@pytest.mark.parametrize("height, width, expected", [(16, 20, (2, 0, 16, 16)), (20, 16, (0, 2, 16, 16))])
def test_random_crop_takes_the_centre_where_nothing_fits(height, width, expected):
    crop = ta.VideoRandomResizedCrop(4, area=(1.0, 1.0), aspect=(9.0, 9.0))
    assert crop.draw_box(height, width, np.random.RandomState(0)) == expected


def test_random_crop_stays_in_the_frame_and_in_its_ranges():
    crop, rng = ta.VideoRandomResizedCrop(4, area=(0.3, 0.6), aspect=(0.5, 2.0)), np.random.RandomState(0)
    boxes = [crop.draw_box(90, 120, rng) for _ in range(500)]
    lefts, tops, widths, heights = np.array(boxes).T
    assert lefts.min() == 0 and tops.min() == 0
    assert (lefts + widths).max() == 120 and (tops + heights).max() == 90  # the last column and row are in reach
    assert 0.29 < (widths * heights / (90 * 120)).min() and (widths * heights / (90 * 120)).max() < 0.61
    assert 0.49 < (widths / heights).min() and (widths / heights).max() < 2.05  # whole pixels


def test_flip_mirrors_every_frame_left_to_right():
    results = ta.VideoFlip(0.5)(clip_of(8, 10) | {"rng": FakeRandom(0.49)})
    assert [corners(frame) for frame in results["imgs"]] == [((0, 9), (7, 0))] * 4
    assert results["flip"] is True


def test_flip_leaves_the_others_as_they_are():
    results = ta.VideoFlip(0.5)(clip_of(8, 10) | {"rng": FakeRandom(0.5)})
    assert [corners(frame) for frame in results["imgs"]] == [((0, 0), (7, 9))] * 4
    assert results["flip"] is False


@pytest.mark.parametrize("flip_ratio, expected", [(0.0, 0), (1.0, 200), (0.25, 50)])
def test_flip_ratio_is_the_share_of_videos(flip_ratio, expected):
    rng = np.random.RandomState(0)
    assert sum(ta.VideoFlip(flip_ratio).draw(rng) for _ in range(200)) == pytest.approx(expected, abs=15 * flip_ratio)


# ---------------------------------------------------------------------------------------------------------------------
# to a tensor
# ---------------------------------------------------------------------------------------------------------------------


def test_format_puts_clips_channels_and_time_first():
    frames = np.arange(6 * 2 * 4 * 3, dtype=np.uint8).reshape(6, 2, 4, 3)  # (V*T, H, W, C)
    imgs = ta.VideoFormat()({"imgs": list(frames), "num_clips": 2, "clip_len": 3})["imgs"]
    assert imgs.shape == (2, 3, 3, 2, 4) and imgs.flags.c_contiguous
    for v, c, t, h, w in np.ndindex(imgs.shape):
        assert imgs[v, c, t, h, w] == frames[3 * v + t, h, w, c]


def test_pack_keeps_what_is_known_of_the_video():
    results = {"imgs": np.zeros((2, 3, 4, 5, 6), np.uint8), "img_shape": (5, 6), "num_clips": 2, "clip_len": 4}
    packed = ta.VideoPack()(results | {"label": 7, "filename": "a b.mp4"})
    assert set(packed) == {"inputs", "data_samples"}
    assert packed["inputs"].dtype == torch.uint8 and packed["inputs"].shape == (2, 3, 4, 5, 6)
    sample = packed["data_samples"]
    assert sample == ta.DataSample(sample.label, (5, 6), num_clips=2, clip_len=4, filename="a b.mp4")
    assert sample.label.tolist() == [7] and sample.label.dtype == torch.int64
    assert ta.VideoPack()(results)["data_samples"].label is None


# ---------------------------------------------------------------------------------------------------------------------
# wrong arguments
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make, rule", [
    (lambda: ta.VideoResize(0), "r_size is 0; it must be a short side or"),
    (lambda: ta.VideoResize((64, -1)), r"r_size is \(64, -1\); it must be"),
    (lambda: ta.VideoResize((1, 2, 3)), r"r_size is \(1, 2, 3\); it must be"),
    (lambda: ta.VideoResize((1,)), r"r_size is \(1,\); it must be"),
    (lambda: ta.VideoCrop(0), "c_size is 0; it must be at least 1 pixel"),
    (lambda: ta.VideoFlip(1.5), "flip_ratio is 1.5; it must be a probability, 0 to 1"),
    (lambda: ta.VideoRandomResizedCrop(0), "size is 0; it must be at least 1 pixel"),
    (lambda: ta.VideoRandomResizedCrop(4, area=(0.5, 0.1)), r"area is \(0.5, 0.1\); it must be \(low, high\)"),
    (lambda: ta.VideoRandomResizedCrop(4, area=(0.5, 1.1)), r"area is \(0.5, 1.1\); it must be \(low, high\)"),
    (lambda: ta.VideoRandomResizedCrop(4, aspect=(0.0, 1.0)), r"aspect is \(0.0, 1.0\); it must be \(low, high\)"),
    (lambda: ta.VideoSample(0, 1)({"total_frames": 9}), "clip_len is 0; it must be at least 1"),
    (lambda: ta.UniformSample(8, 0)({"total_frames": 9}), "num_clips is 0; it must be at least 1"),
])
def test_wrong_arguments_are_named_with_their_value_and_rule(make, rule):
    with pytest.raises(ValueError, match=rule):
        make()


@pytest.mark.parametrize("sample", [ta.VideoSample, ta.UniformSample])
def test_counts_are_checked_when_a_sampler_is_made(sample):
    with pytest.raises(ValueError, match="clip_len is 0; it must be at least 1"):
        sample(0, 1)
    with pytest.raises(ValueError, match="num_clips is -1; it must be at least 1"):
        sample(8, -1)


def test_a_reader_that_is_already_there_is_kept():
    reader = MemoryReader(telling_frames(5, 4, 6))
    results = ta.VideoInit()({"filename": "memory", "video_reader": reader})
    assert results["video_reader"] is reader and results["total_frames"] == 5


# ---- pipelines that cannot work ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Forget:
    def __call__(self, results):
        results["forgotten"] = True


def test_a_missing_transform_is_named():
    with pytest.raises(ValueError, match=r"^VideoDecode\(.*\) needs 'video_reader', which no transform before it has "
                                         r"put in; add VideoInit before it$"):
        ta.Compose([ta.VideoDecode()])({"filename": "a.mp4", "frame_inds": np.arange(2)})


def test_frames_that_were_not_put_together_are_named():
    with pytest.raises(ValueError, match=r"^VideoPack\(\) needs the frames as one array.* add VideoFormat before it$"):
        ta.VideoPack()({"imgs": [np.zeros((2, 2, 3))], "img_shape": (2, 2), "num_clips": 1, "clip_len": 1})


def test_a_transform_that_returns_nothing_is_named():
    with pytest.raises(ValueError, match=r"^Forget\(\) returned NoneType; a transform must return the dict$"):
        ta.Compose([Forget()])({"filename": "a.mp4"})


def test_a_key_that_no_transform_makes_is_named():
    def wrong(results):
        return results["typo"]

    with pytest.raises(ValueError, match=r"wrong at .* looked for 'typo'; the dict has filename, label$"):
        ta.Compose([wrong])({"filename": "a.mp4", "label": 0})
