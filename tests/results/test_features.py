"""Features are computed once, kept whole, and never taken for those of another network or video."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from toys import write_clip, write_set

from tinyaction import Recognizer, VideoList, create_model, eval_pipeline, find_data
from tinyaction.models.pooling import cell_means
from tinyaction.results.features import FeatureCache, Reading, extract_features, network_digest, video_digest

CPU = torch.device("cpu")
PIPELINE = eval_pipeline(clip_len=4, size=32, num_clips=2)


@pytest.fixture
def videos(tmp_path) -> VideoList:
    return find_data(write_set(tmp_path / "bars", num_train=3, num_val=1)).train


def network(seed: int = 0) -> Recognizer:
    torch.manual_seed(seed)
    return create_model("conv2d", 2).eval()


def extract(videos: VideoList, folder: Path | None, *, model: Recognizer | None = None, **arguments):
    cache = FeatureCache(folder)
    return extract_features(model or network(), videos, PIPELINE, cache, device=CPU, **arguments), cache


def test_features_are_the_quarters_of_the_maps_to_float16(videos, tmp_path):
    found, _ = extract(videos, tmp_path / "cache")
    assert found.features.shape == (3, 2, 4, 128, 2, 2) and found.features.dtype == torch.float16
    inputs = PIPELINE({"filename": videos[1][0], "label": 0})["inputs"][None]
    with torch.inference_mode():
        expected = cell_means(network()(inputs, mode="tensor"))
    torch.testing.assert_close(found.features[1].float(), expected, rtol=1e-3, atol=1e-4)
    assert expected.std() > 0.01


def test_what_is_kept_is_not_computed_again_and_is_the_same_to_the_bit(videos, tmp_path):
    seen = []
    fresh, _ = extract(videos, tmp_path / "cache", on_video=lambda done, total: seen.append((done, total)))
    kept, cache = extract(videos, tmp_path / "cache")
    assert (fresh.num_computed, kept.num_computed, seen, cache.notes) == (3, 0, [(1, 3), (2, 3), (3, 3)], [])
    assert torch.equal(fresh.features, kept.features)
    without, _ = extract(videos, None)
    assert torch.equal(fresh.features, without.features) and without.num_computed == 3


def test_a_run_that_was_stopped_goes_on_where_it_was(videos, tmp_path):
    def stop(done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(videos, tmp_path / "cache", on_video=stop)
    assert extract(videos, tmp_path / "cache")[0].num_computed == 1


def test_mirrored_views_are_kept_apart(videos, tmp_path):
    plain, _ = extract(videos, tmp_path / "cache")
    both, _ = extract(videos, tmp_path / "cache", mirrored=True)
    assert both.num_computed == 3 and extract(videos, tmp_path / "cache", mirrored=True)[0].num_computed == 0
    assert torch.equal(both.features[:, :2], plain.features)
    pixels = PIPELINE({"filename": videos[0][0], "label": 0})["inputs"][None].flip(-1)
    with torch.inference_mode():
        expected = cell_means(network()(pixels, mode="tensor"))
    torch.testing.assert_close(both.features[0, 2:].float(), expected, rtol=1e-3, atol=1e-4)
    assert not torch.equal(plain.features, both.features[:, 2:])


def test_a_clip_that_cannot_be_mirrored_any_more_is_left_out_whole(videos, tmp_path, monkeypatch):
    """Its plain views were kept when it could be read: they must not stand beside another clip's mirrored ones."""
    monkeypatch.setattr("tinyaction.results.features.video_digest", lambda path: Path(path).stem)
    whole, _ = extract(videos, tmp_path / "cache", mirrored=True)
    next((tmp_path / "cache").glob("clip 1*mirrored.npz")).unlink()
    Path(videos[1][0]).write_bytes(b"no video")
    found, _ = extract(videos, tmp_path / "cache", mirrored=True, reading=Reading(on_error="skip", max_skipped=0.4))
    assert found.indices == [0, 2] and torch.equal(found.features, whole.features[[0, 2]])
    assert extract(videos, tmp_path / "cache")[0].indices == [0, 1, 2]


def test_features_that_were_copied_from_another_network_are_named_and_computed_again(videos, tmp_path):
    extract(videos, tmp_path / "other", model=network(1))
    fresh, _ = extract(videos, tmp_path / "cache")
    for path in (tmp_path / "other").iterdir():
        (tmp_path / "cache" / path.name).write_bytes(path.read_bytes())
    again, cache = extract(videos, tmp_path / "cache")
    assert again.num_computed == 3 and torch.equal(again.features, fresh.features)
    assert "clip 0" in cache.notes[0] and cache.notes[0].endswith("of another network (other), computed again")


def test_each_network_and_pipeline_has_a_folder_of_its_own(tmp_path):
    digest = network_digest(network(), PIPELINE)
    assert digest == network_digest(network(), PIPELINE)
    other_statistics, other_mean = network(), create_model("conv2d", 2, mean=(1, 2, 3), std=(1, 1, 1))
    other_mean.load_state_dict(network().state_dict())
    other_statistics.backbone.conv1[1].running_mean[3] += 1e-3
    digests = {digest, network_digest(network(1), PIPELINE), network_digest(other_statistics, PIPELINE),
               network_digest(other_mean, PIPELINE), network_digest(network(), eval_pipeline(clip_len=4, size=40))}
    assert len(digests) == 5
    same_backbone = network()
    torch.nn.init.zeros_(same_backbone.cls_head.fc.weight)              # the head has no part in it
    assert network_digest(same_backbone, PIPELINE) == digest
    folder = FeatureCache.beside(tmp_path / "clips", "conv2d-4x32", network(), PIPELINE).folder
    assert folder == tmp_path / "clips-features" / f"conv2d-4x32-{digest}"


def test_a_video_that_was_replaced_is_another_video(tmp_path):
    first = write_clip(tmp_path / "a.mp4", 0, 0)
    before = video_digest(str(first))
    os.utime(first, ns=(1, 1))
    assert video_digest(str(first)) != before
    with open(first, "r+b") as file:
        file.write(b"x")
    os.utime(first, ns=(1, 1))
    third = video_digest(str(first))
    assert len({before, third}) == 2
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "1.png").write_bytes(b"1")
    folder = video_digest(str(tmp_path / "frames"))
    (tmp_path / "frames" / "2.png").write_bytes(b"2")
    assert video_digest(str(tmp_path / "frames")) != folder


def test_damaged_features_are_named_and_computed_again(videos, tmp_path):
    fresh, _ = extract(videos, tmp_path / "cache")
    cut, flipped, foreign = sorted((tmp_path / "cache").glob("*.npz"))
    cut.write_bytes(cut.read_bytes()[:1000])
    content = bytearray(flipped.read_bytes())
    content[len(content) // 2] ^= 1
    flipped.write_bytes(content)
    np.savez(foreign, features=np.zeros((3, 4)))
    again, cache = extract(videos, tmp_path / "cache")
    assert again.num_computed == 3 and torch.equal(again.features, fresh.features)
    assert [note.split(":")[0] for note in sorted(cache.notes)] == [str(cut), str(flipped), str(foreign)]
    assert extract(videos, tmp_path / "cache")[0].num_computed == 0


def test_a_disk_that_takes_nothing_is_one_sentence_and_nothing_is_lost(videos, tmp_path):
    (tmp_path / "file").write_text("")                                  # no folder can be made below a file
    found, cache = extract(videos, tmp_path / "file" / "cache")
    assert len(found.features) == 3
    assert len(cache.notes) == 1 and "features are not kept (Not a directory)" in cache.notes[0]


def test_features_that_are_not_finite_name_the_video(videos, tmp_path):
    model = network()
    model.backbone.conv[0].bias.data[0] = torch.nan
    with pytest.raises(ValueError, match=r"clip 0\.mp4: its features are NaN or infinite; the weights of the network"):
        extract(videos, tmp_path / "cache", model=model)


def test_large_features_are_kept_in_float32(videos, tmp_path):
    model = network()
    model.backbone.conv[1].bias.data[0] = 1e6
    assert extract(videos, tmp_path / "cache", model=model)[0].features.dtype == torch.float32


def test_a_bad_video_is_an_error_or_left_out(videos, tmp_path):
    Path(videos[1][0]).write_bytes(b"no video")
    with pytest.raises(ValueError, match=r"clip 1\.mp4"):
        extract(videos, tmp_path / "cache")
    reading = Reading(on_error="skip", max_skipped=0.4)
    for _ in range(2):                                                  # also where only the bad one is missing
        found, _ = extract(videos, tmp_path / "cache", reading=reading)
        assert found.indices == [0, 2] and [Path(bad.filename).name for bad in found.bad] == ["clip 1.mp4"]


def test_segments_of_a_video_have_features_of_their_own(tmp_path):
    write_clip(tmp_path / "long.mp4", 0, 0, num_frames=30)              # at 10 frames a second
    (tmp_path / "s.csv").write_text("path,start,end,label,split\nlong.mp4,0,1,a,train\nlong.mp4,1,2,b,train\n"
                                    "long.mp4,2,3,a,val\n")
    everything = find_data(tmp_path).merged().train
    assert [everything.item_name(index).partition("#")[2] for index in range(3)] == ["t=0,1", "t=1,2", "t=2,3"]
    found, _ = extract(everything, tmp_path / "cache")
    assert found.num_computed == 3 and not torch.equal(found.features[0], found.features[1])
    again, _ = extract(everything.subset([1, 0]), tmp_path / "cache")
    assert again.num_computed == 0 and torch.equal(again.features, found.features[[1, 0]])
