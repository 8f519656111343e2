"""Figures of timelines: hand-made cases with the numbers of the definitions, and other packages."""

import math

import numpy as np
import pytest

from tinyaction.results.timeline_metrics import (
    Segment,
    agreement_seconds,
    average_precision,
    background_hours,
    boundary_errors,
    edit_score,
    f1_at,
    false_events,
    mean_average_precision,
    score_above_false_events,
    seconds_of_actions,
    timeline_metrics,
)


def video(*segments) -> list[Segment]:
    return [Segment(*segment) for segment in segments]


TRUE = video((1, 3, "run"), (5, 9, "jump"))


def test_agreement_counts_time_with_the_same_labels_background_included():
    assert agreement_seconds(TRUE, TRUE, 10) == 10
    assert agreement_seconds([], TRUE, 10) == 4                        # 0-1, 3-5, 9-10
    assert agreement_seconds(video((1, 3, "jump"), (5, 8, "jump")), TRUE, 10) == 4 + 3
    both = video((1, 3, "run"), (2, 4, "jump"))
    assert agreement_seconds(video((1, 3, "run")), both, 5) == 5 - 2   # at 2-4 a label is missing
    assert agreement_seconds(video((1, 99, "run")), video((1, 5, "run")), 5) == 5  # beyond the end nothing counts


@pytest.mark.parametrize("told, real, score", [
    ("", "", 1), ("a", "", 0), ("", "a", 0), ("ab", "ab", 1), ("aba", "aa", 1 - 1 / 3), ("ba", "ab", 0),
    ("kitten", "sitting", 1 - 3 / 7), ("abab", "cd", 0),
])
def test_edit_score_is_one_less_the_share_of_changes(told, real, score):
    segments = [[Segment(2 * place, 2 * place + 1, label) for place, label in enumerate(text)]
                for text in (told, real)]
    assert edit_score(*segments) == pytest.approx(score)
    assert edit_score(segments[0][::-1], segments[1]) == pytest.approx(score)  # sorted by time


def test_f1_at_the_border_of_an_overlap():
    told = [video((0, 3, "run"))]                                      # with 1-3: 2 of 3 seconds
    assert f1_at(told, [video((1, 3, "run"))], 2 / 3) == 1
    assert f1_at(told, [video((1, 3, "run"))], 0.67) == 0
    assert f1_at(told, [video((1, 3, "jump"))], 0.1) == 0
    assert f1_at([[]], [TRUE], 0.1) == 0 and f1_at([TRUE], [[]], 0.1) == 0 and f1_at([[]], [[]], 0.1) == 1


def test_f1_counts_an_action_once_over_all_videos_together():
    twice = video((1, 2.2, "run"), (2.2, 3, "run"), (5, 9, "jump"))    # one of two halves counts
    assert f1_at([twice], [TRUE], 0.25) == pytest.approx(2 * 2 / (3 + 2))
    assert f1_at([twice, []], [TRUE, TRUE], 0.25) == pytest.approx(2 * 2 / (3 + 4))
    swapped = [Segment(one.start_seconds, one.end_seconds, "jump" if one.label == "run" else "run") for one in TRUE]
    assert f1_at([TRUE, swapped], [TRUE, swapped], 0.5) == 1 and f1_at([swapped, TRUE], [TRUE, swapped], 0.5) == 0


def test_boundary_errors_are_those_of_found_actions():
    told = video((1.5, 3.1, "run"), (4.9, 6, "run"), (5, 8, "jump"))
    assert boundary_errors([told], [TRUE]) == pytest.approx([0.5, 0.1, 0, 1])
    assert boundary_errors([[]], [TRUE]) == []


def test_average_precision_of_a_ranking():
    """Hits 1 0 1 of two true ones: precision 1 at recall 1/2, 2/3 at recall 1."""
    told = video((1, 3, "run", 0.9), (6, 7, "run", 0.8), (10, 12, "run", 0.7))
    real = video((1, 3, "run"), (10, 12, "run"))
    assert average_precision([told], [real], "run", 0.5) == pytest.approx((1 + 2 / 3) / 2)
    last = video((1, 3, "run", 0.1), (6, 7, "run", 0.8), (10, 12, "run", 0.7))  # 0 1 1: 2/3 at both
    assert average_precision([last], [real], "run", 0.5) == pytest.approx(2 / 3)
    assert average_precision([[]], [real], "run", 0.5) == 0


def test_a_true_segment_goes_to_the_surest_and_the_next_takes_another_that_fits():
    real = video((0, 4, "run"), (4, 8, "run"))
    told = video((0, 4, "run", 0.9), (0, 6, "run", 0.8))  # overlaps of the second: 4/6, 2/8
    assert average_precision([told], [real], "run", 0.25) == 1
    assert average_precision([told], [real], "run", 0.3) == pytest.approx(1 / 2)
    elsewhere = [video((0, 4, "run", 0.9)), []]
    assert average_precision(elsewhere, [[], real], "run", 0.3) == 0   # of another video


def test_map_is_the_mean_over_classes_that_are_true():
    told = [video((1, 3, "run", 1), (0, 1, "swim", 1))]
    assert mean_average_precision(told, [TRUE], 0.5) == pytest.approx(1 / 2)
    assert math.isnan(mean_average_precision(told, [[]], 0.5))


def test_all_figures_of_a_perfect_and_of_a_shifted_timeline():
    perfect = timeline_metrics([TRUE], [TRUE], [10])
    assert set(perfect.as_dict().values()) == {1.0, 0.0} and perfect.boundary_error_seconds == 0
    shifted = [Segment(one.start_seconds + 0.5, one.end_seconds + 0.5, one.label) for one in TRUE]
    found = timeline_metrics([shifted], [TRUE], [10]).as_dict()
    assert found["boundary_error_seconds"] == 0.5 and found["frame_accuracy"] == pytest.approx(0.8)
    assert found["f1_50"] == 1 and found["map_0.6"] == 1 and found["map_0.7"] == pytest.approx(0.5)  # 1.5/2.5, 3.5/4.5
    assert perfect.lines()[0].split() == ["frame", "accuracy", "1.000"]
    with pytest.raises(ValueError, match="1 predicted videos, 2 true ones"):
        timeline_metrics([TRUE], [TRUE, TRUE], [10])


def test_false_events_are_mostly_background():
    told = video((0, 0.5, "run"), (0.5, 1.6, "run"), (4.4, 5.5, "run"), (8.4, 9.5, "jump"))  # inside: 0 .6 .5 .6
    assert [one.start_seconds for one in false_events([told], [TRUE])] == [0, 4.4]
    several = video((2, 4, "jump"), (1, 3, "run"), (2, 3, "run"), (6, 7, "run"))
    assert seconds_of_actions(video((0, 10, ""), (2.5, 6.5, ""), (4, 6, ""), (9, 12, "")), several).tolist() == [
        4, 2, 0, 0]
    assert background_hours([TRUE, []], [10, 3600]) == (4 + 3600) / 3600
    assert timeline_metrics([told], [TRUE], [10]).false_events_per_hour == pytest.approx(2 / (4 / 3600))
    assert math.isnan(timeline_metrics([TRUE], [TRUE + video((0, 10, "swim"))], [10]).false_events_per_hour)


@pytest.mark.parametrize("per_hour, score", [(0.99, 0.9), (1, 0.8), (2, 0.6), (3, 0), (30, 0)])
def test_the_lowest_score_that_keeps_to_so_many_false_events(per_hour, score):
    told = video((0, 0.5, "run", 0.6), (3.2, 4, "run", 0.9), (4.2, 4.8, "run", 0.8), (1, 3, "run", 0.95))
    found = score_above_false_events([told], [TRUE], [3600 + 6], per_hour=per_hour)  # an hour of background
    assert found == score
    assert len([one for one in false_events([told], [TRUE]) if one.score > found]) <= per_hour


def random_segments(seed: int) -> list[Segment]:
    """40 segments at random times of a minute, many of which overlap, of three labels."""
    rng = np.random.default_rng(seed)
    return [Segment(start, start + rng.uniform(0.1, 4), str(rng.choice(["a", "b", "c"])))
            for start in rng.uniform(0, 56, 40).tolist()]


@pytest.mark.parametrize("seed", range(3))
def test_sums_over_time_are_those_of_plain_loops(seed):
    told, true = random_segments(seed), random_segments(seed + 10)[::2]
    times = sorted({0.0, 60.0, *(time for one in told + true for time in (one.start_seconds, one.end_seconds))})
    pieces = [(start, end, *({one.label for one in video if one.start_seconds <= start and end <= one.end_seconds}
                             for video in (told, true))) for start, end in zip(times, times[1:], strict=False)]
    assert agreement_seconds(told, true, 60) == pytest.approx(
        sum(end - start for start, end, said, real in pieces if said == real))
    inside = [sum(end - start for start, end, _, real in pieces
                  if real and one.start_seconds <= start and end <= one.end_seconds) for one in told]
    assert seconds_of_actions(told, true).tolist() == pytest.approx(inside)
    assert background_hours([true], [60]) == pytest.approx(
        sum(end - start for start, end, _, real in pieces if not real) / 3600)
    expected = [one for one, seconds in zip(told, inside, strict=True)
                if seconds < (one.end_seconds - one.start_seconds) / 2]
    assert false_events([told], [true]) == expected and 0 < len(expected) < 40


def random_timelines(seed: int) -> tuple[list[Segment], list[Segment]]:
    """Actions of 3 seconds, told up to 2 seconds off, left out, doubled elsewhere, with another label."""
    rng = np.random.default_rng(seed)
    true = [Segment(10.0 * place, 10.0 * place + 3, str(rng.choice(["a", "b"]))) for place in range(20)]
    told = []
    for one in true:
        if rng.random() < 0.8:
            start = one.start_seconds + round(rng.uniform(-2, 2), 3)
            told.append(Segment(start, start + 3, one.label if rng.random() < 0.8 else "b", float(rng.random())))
        if rng.random() < 0.3:
            told.append(Segment(one.start_seconds + 5, one.start_seconds + 8, "a", float(rng.random())))
    return told, true


@pytest.mark.filterwarnings("ignore")  # of pkg_resources and others that sed_eval imports
@pytest.mark.parametrize("seed", range(5))
def test_f1_is_that_of_sed_eval(seed):
    """Of two stretches of 3 seconds an overlap of 50 % is a shift of 1 second: sed_eval's collar for both ends."""
    sed_eval = pytest.importorskip("sed_eval", reason="compares with sed_eval, which is not installed")
    dcase_util = pytest.importorskip("dcase_util", reason="compares with sed_eval, which is not installed")
    told, true = random_timelines(seed)
    counted = sed_eval.sound_event.EventBasedMetrics(["a", "b"], t_collar=1.0, percentage_of_length=0.0)
    lists = [dcase_util.containers.MetaDataContainer([
        {"filename": "v", "onset": one.start_seconds, "offset": one.end_seconds, "event_label": one.label}
        for one in segments]) for segments in (true, told)]
    counted.evaluate(*lists)
    theirs = counted.results_overall_metrics()["f_measure"]["f_measure"]
    assert 0.3 < theirs < 0.9
    assert f1_at([told], [true], 0.5) == pytest.approx(theirs)


@pytest.mark.parametrize("seed", range(5))
def test_average_precision_is_the_area_under_sklearns_precision_made_monotone(seed):
    metrics = pytest.importorskip("sklearn.metrics", reason="compares with scikit-learn, which is not installed")
    told, true = random_timelines(seed)
    real = [one for one in true if one.label == "a"]
    ranked = [one for one in told if one.label == "a"]
    hits = [any(abs(one.start_seconds - other.start_seconds) <= 1 for other in real) for one in ranked]
    precision, recall, _ = metrics.precision_recall_curve(hits, [one.score for one in ranked])
    recall = recall * sum(hits) / len(real)                            # of all true ones, not of the found ones
    envelope = np.maximum.accumulate(precision[:-1])                   # ascending recall from the right
    area = float(np.sum((recall[:-1] - recall[1:]) * envelope))
    assert 0 < area < 1
    assert average_precision([told], [true], "a", 0.5) == pytest.approx(area)
