"""From lists to batches: the same batches whatever the number of workers, and nobody else's random state touched."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from toys import write_clip, write_set

from tinyaction.data.annotations import VideoList, find_data
from tinyaction.data.dataset import VideoDataset, build_dataloader, collate
from tinyaction.data.loader import EpochSampler
from tinyaction.data.pipelines import eval_pipeline, train_pipeline
from tinyaction.data.transforms import Compose, VideoDecode, VideoInit
from tinyaction.sample import DataSample

# torch warns of three workers on a machine of two cores
MANY_WORKERS = pytest.mark.filterwarnings("ignore:This DataLoader will create")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_set(tmp_path_factory.mktemp("bars"), num_train=7, num_val=2)


def train_set(folder: Path, *, seed: int = 0, test_mode: bool = False) -> VideoDataset:
    return VideoDataset("bars_train_list.txt", train_pipeline(clip_len=4, size=16, num_clips=2), data_root=folder,
                        data_prefix="train", seed=seed, test_mode=test_mode)


def epoch_of(loader, epoch: int) -> tuple[torch.Tensor, list[str]]:
    """All pixels and names of an epoch, in its order."""
    loader.set_epoch(epoch)
    batches = list(loader)
    names = [Path(sample.filename).name for batch in batches for sample in batch["data_samples"]]
    return torch.cat([batch["inputs"] for batch in batches]), names


def draws_of(results: dict) -> dict:
    """A pipeline without a video: eight random numbers in the place of the pixels."""
    inputs = torch.from_numpy(results["rng"].randint(0, 256, 8).astype(np.uint8))
    return {"inputs": inputs, "data_samples": DataSample(torch.tensor([results["label"]]), (1, 1), 1, 1,
                                                         results["filename"])}


def number_set(**arguments) -> VideoDataset:
    return VideoDataset(VideoList([f"{i}" for i in range(10)], [0] * 10), draws_of, **arguments)


# ---- the same batches ----------------------------------------------------------------------------------------------


@MANY_WORKERS
def test_same_seed_same_batches_with_0_1_and_3_workers(folder):
    """Over two epochs, with every random step of the preset; the epochs differ in order and in pixels."""
    epochs = {}
    for num_workers in (0, 1, 3):
        loader = build_dataloader(train_set(folder), batch_size=3, shuffle=True, num_workers=num_workers)
        epochs[num_workers] = [epoch_of(loader, epoch) for epoch in (0, 1)]
    for num_workers in (1, 3):
        for (inputs, names), (expected_inputs, expected_names) in zip(epochs[num_workers], epochs[0], strict=True):
            assert names == expected_names
            assert torch.equal(inputs, expected_inputs)
    (inputs0, names0), (inputs1, names1) = epochs[0]
    assert sorted(names0) == sorted(names1) == [f"clip {i}.mp4" for i in range(7)]
    assert names0 != names1
    order0, order1 = np.argsort(names0), np.argsort(names1)
    for a, b in zip(inputs0[order0], inputs1[order1], strict=True):
        assert not torch.equal(a, b)  # the same video, drawn anew


def test_epochs_may_come_in_any_order_and_be_left_in_the_middle():
    """What resuming needs: an epoch depends on its number, not on what was read before."""
    for num_workers in (0, 1):
        loader = build_dataloader(number_set(), batch_size=2, shuffle=True, num_workers=num_workers)
        third = epoch_of(loader, 3)
        loader.set_epoch(2)
        next(iter(loader))
        again = epoch_of(loader, 3)
        assert torch.equal(third[0], again[0])
        assert third[1] == again[1]


def test_seed_epoch_and_index_each_change_the_draws():
    dataset = number_set(seed=5)
    keys = [(epoch, index) for epoch in range(4) for index in range(10)]
    draws = [tuple(dataset[key]["inputs"].tolist()) for key in keys]
    draws += [tuple(number_set(seed=6)[key]["inputs"].tolist()) for key in keys]
    assert len(set(draws)) == 2 * 4 * 10
    assert draws[:40] == [tuple(number_set(seed=5)[key]["inputs"].tolist()) for key in keys]


def test_the_draws_are_those_of_one_generator_for_seed_epoch_and_index():
    expected = np.random.RandomState([5, 2, 3]).randint(0, 256, 8)
    assert number_set(seed=5)[2, 3]["inputs"].tolist() == expected.tolist()


def test_an_index_alone_is_epoch_0():
    dataset = number_set()
    assert torch.equal(dataset[3]["inputs"], dataset[0, 3]["inputs"])
    assert not torch.equal(dataset[3]["inputs"], dataset[1, 3]["inputs"])
    assert torch.equal(dataset[-1]["inputs"], dataset[9]["inputs"])
    for index in (10, -11):
        with pytest.raises(IndexError, match=f"item {index} of 10"):
            dataset[index]


def test_in_test_mode_each_epoch_draws_the_same():
    dataset = number_set(test_mode=True)
    assert torch.equal(dataset[0, 3]["inputs"], dataset[7, 3]["inputs"])
    assert not torch.equal(dataset[0, 3]["inputs"], dataset[0, 4]["inputs"])


# ---- which videos --------------------------------------------------------------------------------------------------


def names_of(dataset: VideoDataset) -> list[tuple[str, int]]:
    return [(Path(name).name, label) for name, label in (dataset.videos[i] for i in range(len(dataset)))]


def test_a_table_and_class_folders_are_read_one_split_at_a_time(tmp_path):
    for name, number in (("run", 5), ("sit", 10)):
        (tmp_path / "clips" / name).mkdir(parents=True)
        for i in range(number):
            (tmp_path / "clips" / name / f"{i}.mp4").touch()
    before = sorted(tmp_path.rglob("*"))
    train, val = (VideoDataset(tmp_path / "clips", draws_of, split=split) for split in ("train", "val"))
    assert (len(train), len(val)) == (12, 3) and train.class_names == ["run", "sit"]
    assert sorted(names_of(train) + names_of(val)) == sorted(
        [(f"{i}.mp4", 0) for i in range(5)] + [(f"{i}.mp4", 1) for i in range(10)])
    assert sorted(tmp_path.rglob("*")) == before
    assert names_of(VideoDataset("clips", draws_of, data_root=tmp_path, test_mode=True)) == names_of(val)
    data = find_data(tmp_path / "clips")  # writes split.csv
    table = VideoDataset(str(tmp_path / "clips" / "split.csv"), draws_of)
    assert [names_of(table), table.class_names] == [names_of(train), data.class_names]
    assert table[0]["data_samples"].filename == str(tmp_path / "clips" / "run" / names_of(train)[0][0])
    with pytest.raises(ValueError, match=r"class_names are sit, run \(2\), those of .*clips are run, sit \(2\)"):
        VideoDataset(tmp_path / "clips", draws_of, class_names=["sit", "run"])
    with pytest.raises(ValueError, match="split is 'test'; it must be 'train' or 'val'"):
        VideoDataset(tmp_path / "clips", draws_of, split="test")


def test_the_prefix_may_have_the_form_of_the_guide(folder):
    given = VideoDataset("bars_train_list.txt", draws_of, data_root=folder, data_prefix=dict(video="train"))
    assert given.filename(0) == str(folder / "train" / "clip 0.mp4")
    with pytest.raises(ValueError, match=r"data_prefix is \{'img': 'train'\}; it must be a folder, or dict\(video="):
        VideoDataset("bars_train_list.txt", draws_of, data_root=folder, data_prefix=dict(img="train"))


# ---- pipelines that cannot work ------------------------------------------------------------------------------------


def forget(results: dict) -> None:
    results["imgs"] = []


def look_for_a_typo(results: dict) -> dict:
    return results["typo"]


@pytest.mark.parametrize("steps, sentence", [
    ([VideoDecode()], r"VideoDecode\(.*\) needs 'video_reader', .* add VideoInit before it"),
    ([VideoInit(), VideoDecode()], r"VideoDecode\(.*\) needs 'frame_inds', .* add UniformSample or another sampler"),
    ([VideoInit(), forget], r"<function forget at .*> returned NoneType; a transform must return the dict"),
    ([look_for_a_typo], r"<function look_for_a_typo at .*> looked for 'typo'; the dict has filename, label, rng"),
])
@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_wrong_pipeline_is_one_sentence_in_every_process(steps, sentence, num_workers, folder):
    dataset = VideoDataset("bars_train_list.txt", Compose(steps), data_root=folder, data_prefix="train")
    with pytest.raises(ValueError, match=rf"^[^\n]*{sentence}[^\n]*$"):
        next(iter(build_dataloader(dataset, batch_size=2, num_workers=num_workers)))


def test_the_order_of_an_epoch():
    sampler = EpochSampler(50, shuffle=True, seed=1)
    assert len(sampler) == 50
    first = list(sampler)
    sampler.epoch = 1
    second = list(sampler)
    assert sorted(index for _, index in first) == list(range(50))
    assert [index for _, index in first] != [index for _, index in second]
    assert {epoch for epoch, _ in second} == {1}
    assert list(EpochSampler(3, shuffle=False, seed=1)) == [(0, 0), (0, 1), (0, 2)]
    assert list(EpochSampler(50, shuffle=True, seed=2)) != first


@pytest.mark.parametrize("num_workers", [0, 1])
def test_nobody_elses_random_state_is_touched(folder, num_workers):
    """torch's own loader draws a seed for its workers from the global state in each epoch; this one must not."""
    loader = build_dataloader(train_set(folder), batch_size=4, shuffle=True, num_workers=num_workers)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    for epoch in (0, 1):
        epoch_of(loader, epoch)
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])


def test_defect_1_training_frames_differ_between_epochs_after_a_validation(folder):
    """The guide's test mode reseeds numpy's global state, so every epoch after the first saw the same frames."""
    train = build_dataloader(train_set(folder), batch_size=7)
    val = build_dataloader(
        VideoDataset("bars_val_list.txt", eval_pipeline(clip_len=4, size=16), data_root=folder, data_prefix="val",
                     test_mode=True), batch_size=2)
    epochs = []
    for epoch in range(3):
        epochs.append(epoch_of(train, epoch)[0])
        epoch_of(val, epoch)
    assert not torch.equal(epochs[0], epochs[1])
    assert not torch.equal(epochs[1], epochs[2])


# ---- batches -------------------------------------------------------------------------------------------------------


def test_a_batch(folder):
    loader = build_dataloader(train_set(folder), batch_size=3)
    sizes = []
    for batch in loader:
        B = len(batch["data_samples"])
        assert batch["inputs"].shape == (B, 2, 3, 4, 16, 16)
        assert batch["inputs"].dtype == torch.uint8
        sizes.append(B)
    assert sizes == [3, 3, 1]  # nothing is left out
    assert len(loader) == 3
    sample = batch["data_samples"][0]
    assert sample.label.tolist() == [0]
    assert sample.label.dtype == torch.int64
    assert (sample.img_shape, sample.num_clips, sample.clip_len) == ((16, 16), 2, 4)
    assert sample.filename == str(folder / "train" / "clip 6.mp4")


def test_collate_keeps_the_order_and_the_values():
    items = [{"inputs": torch.full((1, 3, 1, 2, 2), i), "data_samples": DataSample(torch.tensor([i]), (2, 2), 1, 1)}
             for i in (4, 2, 7)]
    batch = collate(items)
    assert batch["inputs"].shape == (3, 1, 3, 1, 2, 2)
    assert batch["inputs"][:, 0, 0, 0, 0, 0].tolist() == [4, 2, 7]
    assert [sample.label.item() for sample in batch["data_samples"]] == [4, 2, 7]


def test_videos_of_different_shapes_are_named():
    items = [{"inputs": torch.zeros(1, 3, 1, 2, width), "data_samples": DataSample(None, (2, width), 1, 1, name)}
             for name, width in (("a.mp4", 2), ("b.mp4", 3))]
    with pytest.raises(ValueError, match=r"a\.mp4 has \(1, 3, 1, 2, 2\) and b\.mp4 has \(1, 3, 1, 2, 3\); end the"):
        collate(items)


# ---- what can go wrong ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_broken_video_is_one_sentence_with_its_name(folder, num_workers):
    broken = folder / "broken.mp4"
    broken.write_bytes(b"no video at all")
    videos = VideoList([str(folder / "train" / "clip 0.mp4"), str(broken)], [0, 0])
    loader = build_dataloader(VideoDataset(videos, eval_pipeline(clip_len=2, size=16)), batch_size=1,
                              num_workers=num_workers)
    with pytest.raises(ValueError) as caught:
        list(loader)
    assert str(caught.value).startswith(f"{broken}: ")
    assert "\n" not in str(caught.value)
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_loader_works_on_after_an_error(folder, num_workers):
    """With workers that stay, an epoch that ended early must not leave its batches to the next one."""
    late = folder / "late.mp4"
    late.unlink(missing_ok=True)
    videos = VideoList([str(late), *(str(folder / "train" / f"clip {i}.mp4") for i in range(4))], [0] * 5)
    loader = build_dataloader(VideoDataset(videos, eval_pipeline(clip_len=2, size=16)), batch_size=1,
                              num_workers=num_workers)
    with pytest.raises(ValueError, match=r"late\.mp4: no such file"):
        list(loader)
    write_clip(late, 0, seed=0)
    assert epoch_of(loader, 0)[1] == ["late.mp4", "clip 0.mp4", "clip 1.mp4", "clip 2.mp4", "clip 3.mp4"]


def test_the_list_is_looked_for_in_the_data_root(tmp_path, monkeypatch):
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "list.txt").write_text("a.mp4 0\n")
    dataset = VideoDataset("list.txt", draws_of, data_root=tmp_path / "root", data_prefix="train")
    assert dataset.videos[0] == (str(tmp_path / "root" / "train" / "a.mp4"), 0)
    monkeypatch.chdir(tmp_path)
    assert VideoDataset("root/list.txt", draws_of, data_root="root").videos[0] == (str(Path("root", "a.mp4")), 0)
    with pytest.raises(FileNotFoundError, match=r"root.none\.txt"):
        VideoDataset("none.txt", draws_of, data_root=tmp_path / "root")


def test_defect_5_a_label_is_held_against_the_class_names(tmp_path):
    (tmp_path / "list.txt").write_text("a.mp4 0\nb.mp4 2\n")
    with pytest.raises(ValueError, match=r"list\.txt, line 2: the label 2 is out of range; there are 2 classes"):
        VideoDataset(tmp_path / "list.txt", draws_of, class_names=["run", "sit"])


def test_a_batch_has_at_least_one_video(folder):
    with pytest.raises(ValueError, match="batch_size is 0; it must be at least 1"):
        build_dataloader(train_set(folder), batch_size=0)


def test_repr_says_what_it_is(folder):
    text = repr(train_set(folder))
    source = folder / "bars_train_list.txt"
    assert text.startswith(f"VideoDataset(7 videos of 2 classes from {source}, train mode)\nCompose([")
    assert "UniformSample(clip_len=4, num_clips=2, test_mode=False)" in text
