"""Objects say what they are, in one line and as HTML, and the HTML is escaped."""

import cv2
import numpy as np
import pytest
import torch

import tinyaction as ta
from tinyaction.notebook import table
from tinyaction.results.sheets import GAP, LINE


def test_cells_are_escaped() -> None:
    assert "<td style=\"text-align:left\">&lt;b&gt;</td>" in table("a & b", [("<b>",)])
    assert "<b>a &amp; b</b>" in table("a & b", [("<b>",)])


def test_a_sample_says_what_is_known_of_it() -> None:
    sample = ta.DataSample(torch.tensor([1]), (224, 224), 1, 16, "clip.mp4")
    assert repr(sample) == "DataSample(label=[1], img_shape=(224, 224), num_clips=1, clip_len=16, filename='clip.mp4')"
    sample.pred_score, sample.pred_label = torch.tensor([0.25, 0.75]), torch.tensor(1)
    assert repr(sample).endswith("filename='clip.mp4', pred_score=[0.25, 0.75], pred_label=1)")
    assert "pred_score" in sample._repr_html_() and "[0.25, 0.75]" in sample._repr_html_()


def test_a_pipeline_says_what_each_step_does() -> None:
    pipeline = ta.Compose([ta.VideoInit(), ta.VideoCrop(c_size=224), lambda results: results])
    html = pipeline._repr_html_()
    assert "VideoCrop(c_size=224)" in html
    assert "Cut the square of c_size pixels from the centre of every frame." in html
    assert "Compose, 3 steps" in html


def test_a_dataset_counts_its_classes() -> None:
    videos = ta.VideoList(["a", "b", "c"], [0, 2, 2], source="list.txt")
    dataset = ta.VideoDataset(videos, ta.eval_pipeline(clip_len=8, size=112), class_names=["typing", "none", "a < b"])
    html = dataset._repr_html_()
    cells = [row.replace('<td style="text-align:left">', "|").replace("</td>", "") for row in html.split("<tr>")]
    assert [cell.split("</tr>")[0] for cell in cells[2:5]] == ["|0|typing|1", "|1|none|0", "|2|a &lt; b|2"]
    assert "UniformSample(clip_len=8" in html
    many = ta.VideoDataset(ta.VideoList(map(str, range(60)), range(60)), lambda results: results)
    assert "40 more classes" in many._repr_html_()


def test_a_recognizer_counts_its_parameters() -> None:
    model = ta.create_model("conv2d", 2)
    for parameter in model.backbone.parameters():
        parameter.requires_grad = False
    num_backbone = sum(parameter.numel() for parameter in model.backbone.parameters())
    html = model._repr_html_().replace('<td style="text-align:left">', "|").replace("</td>", "")
    assert f"|backbone|ConvBackbone|{num_backbone:,}|0" in html
    assert f"|cls_head|TemporalAverageHead|{2 * 128 + 2}|{2 * 128 + 2}" in html


def test_an_evaluation_is_one_line() -> None:
    result = ta.Evaluation(0.5, np.array([[0.9, 0.1], [0.8, 0.2]]), np.array([0, 1]), ["a", "b"], 0.0, 0.0)
    assert repr(result) == "Evaluation(2 videos, 2 classes, loss 0.5000, top1 0.5000, mean_class 0.5000)"


def test_a_clip_is_a_picture() -> None:
    clip = ta.Clip(torch.zeros(1, 3, 16, 20, 20, dtype=torch.uint8), "typing <1>", num_frames=4)
    assert repr(clip) == "Clip(4 frames of inputs (1, 3, 16, 20, 20), typing <1>)"
    picture = cv2.imdecode(np.frombuffer(clip._repr_jpeg_(), dtype=np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None and picture.shape == (LINE + 112, 4 * 112 + 3 * GAP, 3)
    assert picture[LINE + 2 :, :100].max() < 10 and picture[0].min() > 245  # black frames below a white line of text
    with pytest.raises(ValueError, match="needs uint8"):
        ta.Clip(torch.zeros(1, 3, 2, 4, 4))
