"""Properties that hold for every input of a kind, searched by hypothesis."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyaction.data.annotations import read_list
from tinyaction.data.sampling import segment_indices, uniform_indices
from tinyaction.data.transforms import VideoCrop, VideoRandomResizedCrop, VideoResize

settings.register_profile("quick", deadline=None, max_examples=60, derandomize=True)
settings.load_profile("quick")
SIZES = st.integers(1, 300)


# ---- samplers ------------------------------------------------------------------------------------------------------


def check_indices(indices, num_frames, clip_len, num_clips):
    assert indices.shape == (num_clips, clip_len)
    assert indices.dtype == np.int64
    assert indices.min() >= 0
    assert indices.max() < num_frames
    assert (np.diff(indices, axis=1) >= 0).all()


@pytest.mark.parametrize("sample", [segment_indices, uniform_indices])
@pytest.mark.parametrize("clip_len", [1, 7, 16])
def test_indices_for_every_length_from_1_to_500(sample, clip_len):
    for num_frames in range(1, 501):
        check_indices(sample(num_frames, clip_len, 2, np.random.RandomState(num_frames)), num_frames, clip_len, 2)


@given(num_frames=st.integers(1, 500), clip_len=st.integers(1, 64), num_clips=st.integers(1, 5),
       seed=st.integers(0, 2**32 - 1))
def test_indices_stay_in_the_video_and_do_not_go_back(num_frames, clip_len, num_clips, seed):
    for sample in (segment_indices, uniform_indices):
        check_indices(sample(num_frames, clip_len, num_clips, np.random.RandomState(seed)), num_frames, clip_len,
                      num_clips)
    check_indices(uniform_indices(num_frames, clip_len, num_clips, None), num_frames, clip_len, num_clips)


# ---- crops and resizes ---------------------------------------------------------------------------------------------


def picture(height: int, width: int) -> dict:
    """Pixels that say their row and column."""
    rows, columns = np.indices((height, width))
    frame = np.stack([rows % 256, columns % 256, (rows // 256) * 16 + columns // 256], axis=2).astype(np.uint8)
    return {"imgs": [frame], "img_shape": (height, width), "filename": "clip.mp4"}


@given(height=SIZES, width=SIZES, size=SIZES)
def test_a_crop_is_the_centre_or_an_error(height, width, size):
    if size > min(height, width):
        with pytest.raises(ValueError, match=f"a crop of {size} pixels does not fit into a frame of {width}x{height}"):
            VideoCrop(size)(picture(height, width))
        return
    frame = VideoCrop(size)(picture(height, width))["imgs"][0]
    assert frame.shape == (size, size, 3)
    top, left = (int(frame[0, 0, 0]) + 256 * (int(frame[0, 0, 2]) // 16),
                 int(frame[0, 0, 1]) + 256 * (int(frame[0, 0, 2]) % 16))
    for first, whole in ((top, height), (left, width)):
        assert abs(first - (whole - size - first)) <= 1  # as much on both sides


@given(height=SIZES, width=SIZES, side=SIZES)
def test_a_resize_has_the_size_that_it_says(height, width, side):
    resize = VideoResize(side)
    results = resize(picture(height, width))
    new_width, new_height = resize.size_for(height, width)
    assert results["imgs"][0].shape == (new_height, new_width, 3)
    assert results["img_shape"] == (new_height, new_width)
    assert min(new_width, new_height) == side
    longer = max(height, width) * side / min(height, width)
    assert abs(max(new_width, new_height) - longer) <= 0.5 + 1e-6 * longer


@given(height=SIZES, width=SIZES, target_width=SIZES, target_height=SIZES)
def test_an_exact_resize(height, width, target_width, target_height):
    frame = VideoResize((target_width, target_height))(picture(height, width))["imgs"][0]
    assert frame.shape == (target_height, target_width, 3)


@given(height=SIZES, width=SIZES, size=st.integers(1, 64), seed=st.integers(0, 2**32 - 1),
       low=st.floats(0.01, 1.0))
def test_a_random_box_lies_within_the_frame(height, width, size, seed, low):
    crop = VideoRandomResizedCrop(size, area=(low, 1.0))
    left, top, box_width, box_height = crop.draw_box(height, width, np.random.RandomState(seed))
    assert 0 <= left <= left + box_width <= width
    assert 0 <= top <= top + box_height <= height
    assert box_width >= 1
    assert box_height >= 1
    frame = crop({**picture(height, width), "rng": np.random.RandomState(seed)})["imgs"][0]
    assert frame.shape == (size, size, 3)


# ---- lists ---------------------------------------------------------------------------------------------------------

WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp", "Zs"], exclude_characters="\\"),
                min_size=1, max_size=12)               # backslashes are refused where no such file is
NAMES = st.lists(WORDS, min_size=1, max_size=3).map(" ".join).filter(lambda name: not name.startswith("\ufeff"))
LINES = st.lists(st.tuples(NAMES, st.integers(0, 999)), min_size=1, max_size=8)


@given(lines=LINES, ending=st.sampled_from(["\n", "\r\n"]), mark=st.booleans(), gap=st.sampled_from([" ", "\t", "  "]))
def test_a_list_is_read_as_it_was_written(lines, ending, mark, gap, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "list.txt"
    text = "".join(f"{name}{gap}{label}{ending}" for name, label in lines)
    path.write_bytes((b"\xef\xbb\xbf" if mark else b"") + text.encode())
    videos = read_list(path)
    assert [videos[i] for i in range(len(videos))] == lines


@given(content=st.binary(max_size=200))
def test_any_bytes_are_a_list_or_an_error_with_its_line(content, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "bytes.txt"
    path.write_bytes(content)
    try:
        assert len(read_list(path)) > 0
    except ValueError as error:
        assert str(error).startswith(f"{path}, line ") or str(error).startswith(f"{path}: the list is empty")
