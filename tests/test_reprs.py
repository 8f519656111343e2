"""Objects say in a line or two what they are; a clip is a picture in a notebook."""

import cv2
import numpy as np
import pytest
import torch

import tinyaction as ta
from tinyaction.results.run import Run
from tinyaction.results.sheets import GAP, LINE


def test_a_sample_says_what_is_known_of_it() -> None:
    sample = ta.DataSample(torch.tensor([1]), (224, 224), 1, 16, "clip.mp4")
    assert repr(sample) == "DataSample(label=[1], img_shape=(224, 224), num_clips=1, clip_len=16, filename='clip.mp4')"
    sample.pred_score, sample.pred_label = torch.tensor([0.25, 0.75]), torch.tensor(1)
    assert repr(sample).endswith("filename='clip.mp4', pred_score=[0.25, 0.75], pred_label=1)")


def test_a_sample_needs_only_what_is_known() -> None:
    assert repr(ta.DataSample()) == "DataSample()"
    sample = ta.DataSample(label=5)
    assert sample.label is not None and torch.equal(sample.label, torch.tensor([5])) and sample.img_shape is None
    assert ta.DataSample(label=np.int64(5)) == sample
    loss = ta.create_model("conv2d", 6)(torch.zeros(1, 1, 3, 2, 16, 16), [sample], mode="loss")["loss_cls"]
    assert loss.isfinite()
    with pytest.raises(TypeError, match="'float' object"):
        ta.DataSample(label=5.0)


def test_a_dataset_and_its_loader() -> None:
    videos = ta.VideoList(["a", "b", "c"], [0, 2, 2], source="list.txt")
    dataset = ta.VideoDataset(videos, ta.Compose([ta.VideoCrop(c_size=224)]), class_names=["x", "y", "z"])
    assert repr(dataset) == ("VideoDataset(3 videos of 3 classes from list.txt, train mode)\n"
                             "Compose([\n    VideoCrop(c_size=224),\n])")
    loader = ta.build_dataloader(dataset, batch_size=2, num_workers=1)
    assert repr(loader) == "VideoLoader(2 batches of up to 2 of 3 videos, 1 workers)"


def test_an_evaluation_is_one_line() -> None:
    result = ta.Evaluation(0.5, np.array([[0.9, 0.1], [0.8, 0.2]]), np.array([0, 1]), ["a", "b"], 0.0, 0.0)
    assert repr(result) == "Evaluation(2 videos, 2 classes, loss 0.5000, top1 0.5000, mean_class 0.5000)"


def test_a_run_is_one_line(tmp_path) -> None:
    run = Run(tmp_path, {"model": "conv2d", "class_names": ["a", "b"]}, [
        {"epoch": 1, "val_top1": 0.5}, {"epoch": 2, "val_top1": 0.75}], [])
    assert repr(run) == f"Run({tmp_path}: conv2d on 2 classes, 2 epochs, best 2 with accuracy 0.7500)"


def test_a_prediction_is_one_line() -> None:
    prediction = ta.Prediction("a.mp4", ["run", "sit", "stand", "jump"], [0.1, 0.2, 0.3, 0.4])
    assert repr(prediction) == "Prediction(a.mp4: jump 0.400, stand 0.300, sit 0.200)"


def test_a_clip_is_a_picture() -> None:
    clip = ta.Clip(torch.zeros(1, 3, 16, 20, 20, dtype=torch.uint8), "typing <1>", num_frames=4)
    assert repr(clip) == "Clip(4 frames of inputs (1, 3, 16, 20, 20), typing <1>)"
    picture = cv2.imdecode(np.frombuffer(clip._repr_jpeg_(), dtype=np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None and picture.shape == (LINE + 112, 4 * 112 + 3 * GAP, 3)
    assert picture[LINE + 2 :, :100].max() < 10 and picture[0].min() > 245  # black frames below a white line of text
    with pytest.raises(ValueError, match="needs uint8"):
        ta.Clip(torch.zeros(1, 3, 2, 4, 4))
