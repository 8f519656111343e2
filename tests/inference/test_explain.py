"""The heat lies where the class is: on a network whose features are colours, it can be said beforehand."""

import cv2
import numpy as np
import pytest
import torch
from torch import nn
from toys import save_toy, write_clip

from tinyaction import Predictor, Recognizer, TemporalAverageHead, open_video
from tinyaction.cli.explain import main as explain_command
from tinyaction.data.augment import view_order
from tinyaction.inference.explain import class_heat, explain, explanation_video
from tinyaction.inference.overlay import draw_timeline, with_heat, with_label
from tinyaction.inference.prediction import Prediction, Window
from tinyaction.results.sheets import LINE, MARGIN
from tinyaction.video.writer import write_video


def colour_network() -> Recognizer:
    """Class 0 is red, class 1 is blue, seen in squares of 8 pixels."""
    backbone = nn.AvgPool2d(8)
    backbone.takes_clips = False
    model = Recognizer(backbone, TemporalAverageHead(2, 3), nn.Identity()).eval()
    with torch.no_grad():
        model.cls_head.fc.weight.copy_(torch.tensor([[1.0, 0, 0], [0, 0, 1.0]]))
    return model


def test_the_heat_of_a_class_lies_where_and_when_it_is_seen():
    clips = torch.zeros(1, 3, 4, 32, 32)
    clips[0, 0, 1, :16, :16] = 1                                       # red, upper left, in frame 1
    clips[0, 2, 3, 16:, 16:] = 1                                       # blue, lower right, in frame 3
    model = colour_network()
    red, blue = class_heat(model, clips, 0)[0], class_heat(model, clips, 1)[0]  # (T, H, W) each
    assert red[1, :8, :8].min() == red.max() == 1 and blue[3, 24:, 24:].min() == blue.max() == 1
    assert red[[0, 2, 3]].max() == 0 and blue[:3].max() == 0
    assert red[1, 24:, 24:].max() == 0 and blue[3, :8, :8].max() == 0
    assert class_heat(model, torch.zeros(1, 3, 4, 32, 32), 0).max() == 0  # nothing to see: no heat, and no NaN


def test_evidence_against_a_class_is_no_heat():
    model = colour_network()
    with torch.no_grad():
        model.cls_head.fc.weight[0, 2] = -1.0                          # blue speaks against class 0
    clips = torch.zeros(1, 3, 1, 32, 32)
    clips[0, 0, 0, :, :16], clips[0, 2, 0, :, 16:] = 1, 1
    heat = class_heat(model, clips, 0)[0, 0]
    assert heat[:, :8].min() == 1 and heat[:, 24:].max() == 0


@pytest.mark.parametrize("name", ["conv2d", "tsm-conv2d", "conv3d"])
def test_explain_shows_what_the_network_saw(tmp_path, name):
    video = write_clip(tmp_path / "clip.mp4", 1, 3, num_frames=12)
    predictor = Predictor(save_toy(tmp_path / "model.pt", name), device="cpu")
    explanation = explain(predictor, video)
    assert (explanation.label, explanation.score) == predictor(video).top(1)[0]
    assert explanation.frames.shape == (8, 32, 32, 3) and explanation.heat.shape == (8, 32, 32)  # 2 clips of 4
    assert explanation.heat.min() >= 0 and explanation.heat.max() == pytest.approx(1)
    assert (np.diff(explanation.frame_inds) >= 0).all()
    raw = open_video(video).get_batch(explanation.frame_inds.tolist())
    assert (explanation.frames == np.moveaxis(predictor.frames_to_inputs(list(raw))[0].numpy(), 0, -1)).all()
    other = next(name for name in predictor.class_names if name != explanation.label)
    assert explain(predictor, video, class_name=other).score == pytest.approx(1 - explanation.score)


@pytest.mark.parametrize("num_crops", [3, 10])
def test_with_several_crops_the_centre_is_explained(tmp_path, num_crops):
    """Not the right end, not a mirrored corner, and not frames of another clip."""
    frames = np.random.RandomState(0).randint(0, 256, (12, 40, 80, 3)).astype(np.uint8)
    write_video(tmp_path / "wide.avi", frames, fps=10, codec="ffv1")
    predictor = Predictor(save_toy(tmp_path / "model.pt", num_crops=num_crops), device="cpu")
    explanation = explain(predictor, tmp_path / "wide.avi")
    raw = open_video(tmp_path / "wide.avi").get_batch(explanation.frame_inds.tolist())
    side = 32 if num_crops == 3 else 36
    small = [cv2.resize(frame, (2 * side, side)) for frame in raw]
    left, top = small[0].shape[1] // 2 - 16, side // 2 - 16
    assert len(explanation.frames) == 8
    for found, frame in zip(explanation.frames, small, strict=True):
        assert (found == frame[top : top + 32, left : left + 32]).all()
    film = explanation_video(explanation, predictor, tmp_path / "why.mp4", side=32)
    assert film.num_frames == 12


def test_views_stand_crop_by_crop():
    assert [tuple(view) for view in view_order(2, 3)] == [
        (0, "first end"), (1, "first end"), (0, "last end"), (1, "last end"), (0, "centre"), (1, "centre")]
    assert [view.crop for view in view_order(1, 10)][-2:] == ["centre", "centre mirrored"]
    assert view_order(2, 1) == [(0, "centre"), (1, "centre")]


def test_a_folder_is_one_sentence_before_anything_is_loaded(tmp_path, capsys):
    write_clip(tmp_path / "clips" / "a.mp4", 0, 0)
    words = [str(tmp_path / "clips"), "--checkpoint", "none.pt", "--out", str(tmp_path / "why.png")]
    assert "clips: a folder or a pattern; explain takes one video file" in _error(explain_command, words, capsys)


def test_an_output_that_exists_is_left_alone(tmp_path, capsys):
    """Also where the video beside the picture would be the source."""
    video = write_clip(tmp_path / "clip.mp4", 0, 3, num_frames=12)
    before = video.read_bytes()
    words = [str(video), "--checkpoint", str(save_toy(tmp_path / "model.pt")), "--device", "cpu", "--out"]
    assert "which this command also reads or writes" in _error(
        explain_command, [*words, str(tmp_path / "clip.png")], capsys)
    (tmp_path / "mine.png").write_bytes(b"mine")
    assert "was not written by tinyaction" in _error(explain_command, [*words, str(tmp_path / "mine.png")], capsys)
    assert video.read_bytes() == before and (tmp_path / "mine.png").read_bytes() == b"mine"
    for flags in ([], ["--force"]):
        assert explain_command([*words, str(tmp_path / "why.png"), "--no-video", *flags]) == 0


def test_the_command_leaves_a_picture_and_a_video_of_every_frame(tmp_path, capsys):
    video = write_clip(tmp_path / "clip.mp4", 0, 3, num_frames=12)
    words = [str(video), "--checkpoint", str(save_toy(tmp_path / "model.pt")), "--device", "cpu"]
    assert explain_command([*words, "--out", str(tmp_path / "why.png"), "--num-frames", "1"]) == 0
    assert (tmp_path / "why.png").read_bytes()[:4] == b"\x89PNG"
    written = open_video(tmp_path / "why.mp4")
    assert len(written) == 12 and written.get_batch([0]).shape == (1, 320, 320, 3)
    assert "class 'swim' is not known" in _error(explain_command, [*words, "--class", "swim"], capsys)
    assert "must end in .png" in _error(explain_command, [*words, "--out", "why.jpg"], capsys)


def test_a_network_without_a_map_is_one_sentence():
    model = colour_network()
    with pytest.raises(ValueError, match="ends in one vector per clip and has no map of places"):
        class_heat(model, torch.zeros(1, 3, 2, 8, 8), 0)


def test_drawing_leaves_the_frame_and_its_cold_places_as_they_are():
    frame = np.random.RandomState(0).randint(0, 256, (96, 120, 3)).astype(np.uint8)
    before = frame.copy()
    heat = np.zeros((96, 120))
    heat[:10, :10] = 1
    hot, labelled = with_heat(frame, heat), with_label(frame, "a class whose name is far too long for the frame 0.93")
    assert (frame == before).all()
    assert (hot[10:, 10:] == frame[10:, 10:]).all() and (hot[:10, :10] != frame[:10, :10]).mean() > 0.9
    assert (labelled[:-16] == frame[:-16]).all() and labelled[-16:].max() > 200 and labelled.shape == frame.shape


def scores_of(num_classes: int, label: int) -> list[float]:
    return [0.9 if number == label else 0.01 for number in range(num_classes)]


def test_a_timeline_draws_windows_at_their_times():
    """The last window is moved back to end with the video; 4 to 6 s was not seen by any."""
    names = ["run", "jump"]
    windows = [Window(0, 2, Prediction("a", names, [0.9, 0.1])), Window(2, 4, Prediction("a", names, [0.9, 0.1])),
               Window(6, 8, Prediction("a", names, [0.1, 0.9])), Window(6.5, 8.5, Prediction("a", names, [0.1, 0.9]))]
    picture = draw_timeline("a", windows, width=1040)
    left, right = 190, 1040 - 36
    seconds = (np.arange(right - left) + 0.5) / (right - left) * 8.5
    row = picture[MARGIN + LINE + 2 * 30 - 8 + 30 + 5, left:right].astype(int)  # of "jump", below that of "run"
    is_paper, is_strong = (row == 255).all(axis=1), (row.max(axis=1) - row.min(axis=1)) > 100
    assert (is_paper == ((seconds > 4) & (seconds < 6))).all()
    assert (is_strong == (seconds >= 6)).all()


@pytest.mark.parametrize("num_classes", [2, 60])
def test_a_timeline_shows_the_segments_in_their_colours(num_classes):
    names = [f"class {number}" for number in range(num_classes)]
    windows = [Window(start, start + 1, Prediction("clip.mp4", names, scores_of(num_classes, int(start >= 4))))
               for start in range(10)]
    picture = draw_timeline("clip.mp4", windows)
    band = picture[40]                                                 # within the segments
    assert tuple(band[300]) != tuple(band[800]) and (band[800] == band[900]).all()
    assert picture.shape[0] < 450 and picture.shape[1:] == (1000, 3)


def _error(command, words, capsys) -> str:
    capsys.readouterr()
    assert command(words) == 2
    return capsys.readouterr().err
