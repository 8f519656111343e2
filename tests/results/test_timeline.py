"""Timelines of uncut videos: the same whether in one piece or in many, and segments that are runs of steps."""

import numpy as np
import pytest
import torch

from tinyaction.data.pipelines import eval_pipeline
from tinyaction.data.sampling import step_frames
from tinyaction.inference.timeline import write_subtitles
from tinyaction.models import create_model
from tinyaction.models.temporal import TemporalNetwork, TimelineModel, num_step_features
from tinyaction.results import timeline as timeline_module
from tinyaction.results.features import FeatureCache
from tinyaction.results.timeline import StepFeatures, Timeline, runs, scores_over_time
from tinyaction.results.timeline_metrics import Segment


def model(name: str = "conv2d", *, stride: float = 0.1, window: float = 0.1) -> TimelineModel:
    torch.manual_seed(0)
    recognizer = create_model(name, 2)
    network = TemporalNetwork(num_step_features(recognizer), 3, num_reduced=4, num_channels=8, num_layers=3,
                              num_stages=2)
    return TimelineModel(recognizer, network, stride_seconds=stride, window_seconds=window).eval()


def test_steps_have_the_frames_shown_at_and_around_their_middles():
    seconds = np.arange(8) / 4
    assert step_frames(seconds, 2.0, stride_seconds=0.5, window_seconds=1, clip_len=1).tolist() == [[1], [3], [5], [7]]
    assert step_frames(seconds, 2.0, stride_seconds=0.5, window_seconds=1.0, clip_len=2).tolist() == [
        [0, 2], [2, 4], [4, 6], [6, 7]]
    uneven = np.array([0.0, 0.1, 1.5])
    assert step_frames(uneven, 2.0, stride_seconds=0.4, window_seconds=0.4, clip_len=1).tolist() == [
        [1], [1], [1], [1], [2]]
    assert len(step_frames(seconds, 2.01, stride_seconds=0.5, window_seconds=1, clip_len=1)) == 5
    assert step_frames(seconds[:1], 0.04, stride_seconds=0.5, window_seconds=1, clip_len=1).tolist() == [[0]]


@pytest.mark.parametrize("sizes", [[157], [1] * 157, [80, 77], [5, 150, 2]])
def test_scores_do_not_depend_on_pieces_and_chunks(monkeypatch, sizes):
    net = model().temporal
    features = torch.randn(8, 157)
    whole = net.scores(net(features[None])[-1])[0].T.detach()
    monkeypatch.setattr(timeline_module, "CHUNK_STEPS", 7)
    chunks = list(scores_over_time(model(), iter(features.split(sizes, dim=1))))
    assert len(chunks) > 2 and max(map(len, chunks)) <= 7 + net.reach
    torch.testing.assert_close(torch.cat(chunks), whole)


@pytest.mark.parametrize("name, clip_len", [("conv2d", 1), ("conv3d", 4)])
def test_features_do_not_depend_on_pieces_and_are_those_of_the_frames(monkeypatch, tmp_path, telling_clip, name,
                                                                       clip_len):
    clip = str(telling_clip(num_frames=24))                            # 25 frames a second
    steps = StepFeatures(model(name, window=0.1 * clip_len), eval_pipeline(clip_len=clip_len, size=32),
                         torch.device("cpu"))
    reader, duration = steps.open(clip)
    assert duration == pytest.approx(0.96)
    whole = np.concatenate(list(steps.pieces(clip, reader, duration)))
    assert whole.shape[0] == 10 and whole.shape[2:] == (2, 2)
    monkeypatch.setattr(timeline_module, "PIECE_STEPS", 4)
    monkeypatch.setattr(timeline_module, "BATCH_STEPS", 3)
    steps.cache = FeatureCache(tmp_path / "cache")
    for _ in range(2):                                                 # computed, then from the cache
        pieces = list(steps.pieces(clip, reader, duration))
        assert [len(piece) for piece in pieces] == [4, 4, 2]
        np.testing.assert_allclose(np.concatenate(pieces).astype(float), whole.astype(float), atol=1e-3, rtol=1e-3)
    assert len(list((tmp_path / "cache").iterdir())) == 3
    steps.model.recognizer.backbone.requires_grad_(False)
    monkeypatch.setattr(StepFeatures, "_compute", None)                # not called again
    assert len(list(steps.pieces(clip, reader, duration))) == 3


def test_a_video_shorter_than_the_window_is_an_error(telling_clip):
    clip = str(telling_clip(num_frames=10))
    steps = StepFeatures(model(window=0.5), eval_pipeline(clip_len=2, size=32), torch.device("cpu"))
    with pytest.raises(ValueError, match=r"telling.avi: lasts 0.40 s, less than the window of 0.5 s"):
        steps.open(clip)


def test_runs():
    assert runs([0, 1, 1, 0, 1]) == [(1, 3), (4, 5)] and runs([]) == [] and runs([1]) == [(0, 1)]


def test_segments_are_runs_of_the_best_class_without_the_background():
    scores = np.array([[.1, .2, .7], [.8, .1, .1], [.6, .3, .1], [.2, .7, .1], [.1, .2, .7], [.9, .0, .1]])
    told = Timeline("v", ["run", "jump", "background"], scores, 0.5, 2.8, overlaps=False).segments()
    assert told == [Segment(0.5, 1.5, "run", pytest.approx(0.7)), Segment(1.5, 2.0, "jump", pytest.approx(0.7)),
                    Segment(2.5, 2.8, "run", pytest.approx(0.9))]


def test_segments_are_told_above_the_lowest_score():
    scores = np.array([[.8, .2], [.1, .9], [.6, .4]])
    timeline = Timeline("v", ["run", "background"], scores, 1.0, 3.0, overlaps=False)
    assert [one.start_seconds for one in timeline.segments()] == [0, 2]
    timeline.min_score = 0.6
    assert [one.start_seconds for one in timeline.segments()] == [0]


def test_with_overlaps_each_class_has_its_own_segments():
    scores = np.array([[.1, .9], [.8, .6], [.6, .3]])
    told = Timeline("v", ["run", "jump"], scores, 1.0, 3.0, overlaps=True).segments()
    assert told == [Segment(0, 2, "jump", pytest.approx(0.75)), Segment(1, 3, "run", pytest.approx(0.7))]


def test_subtitles(tmp_path):
    segments = [Segment(0.5, 3723.25, "run & <hide>", 0.912), Segment(2, 3, "jump", 1.0)]
    write_subtitles(tmp_path / "a.srt", segments)
    write_subtitles(tmp_path / "a.vtt", segments)
    assert (tmp_path / "a.srt").read_text() == ("1\n00:00:00,500 --> 01:02:03,250\nrun & <hide> 0.91\n\n"
                                               "2\n00:00:02,000 --> 00:00:03,000\njump 1.00\n")
    assert (tmp_path / "a.vtt").read_text() == ("WEBVTT\n\n1\n00:00:00.500 --> 01:02:03.250\n"
                                               "run &amp; &lt;hide&gt; 0.91\n\n"
                                               "2\n00:00:02.000 --> 00:00:03.000\njump 1.00\n")
