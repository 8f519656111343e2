"""From scores to events: literal tables, and properties that hold for any scores."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyaction.inference.triggers import Event, Trigger, TriggerState, parse_trigger


def events_of(trigger: Trigger, scores, step: float = 1.0) -> list[tuple[str, float, float, float]]:
    state = TriggerState(trigger)
    found = [state.feed(number * step, score) for number, score in enumerate(scores)]
    return [(one.kind, one.seconds, one.start_seconds, one.score) for one in found if one]


@pytest.mark.parametrize(("trigger", "scores", "expected"), [
    (Trigger("fall", 0.8, 1, 0.64), [0.2, 0.9, 0.95, 0.9, 0.7, 0.6], [("begin", 2, 1, 0.95), ("end", 5, 1, 0.95)]),
    (Trigger("fall", 0.8, 2, 0.64), [0.9, 0.9, 0.8, 0.9, 0.9], []),                    # 0.8 is not above 0.8
    (Trigger("fall", 0.8, 0, 0.64), [0.9], [("begin", 0, 0, 0.9)]),
    (Trigger("fall", 0.8, 0, 0.5, 0), [0.9, 0.5, 0.79, 0.81, 0.49, 0.9],               # it wavers: one event
     [("begin", 0, 0, 0.9), ("end", 4, 0, 0.9), ("begin", 5, 5, 0.9)]),
    (Trigger("fall", 0.8, 0, 0.8, 3), [0.9, 0.1, 0.9, 0.9, 0.9, 0.9],                  # quiet from 1 to 4
     [("begin", 0, 0, 0.9), ("end", 1, 0, 0.9), ("begin", 4, 2, 0.9)]),
    (Trigger("fall", 0.8, 0, 0.8, 0), [float("nan"), 0.9, 0.9], [("begin", 1, 1, 0.9)]),
])
def test_scores_become_events(trigger, scores, expected):
    assert events_of(trigger, scores) == expected


def test_a_gap_ends_an_event_and_the_time_before_it_does_not_count():
    state = TriggerState(Trigger("fall", 0.5, 2, 0.4, 0))
    assert [state.feed(0, 0.9), state.feed(1, 0.9), state.interrupt(1.5)] == [None, None, None]
    assert [state.feed(2, 0.9), state.feed(3, 0.9)] == [None, None]
    assert state.feed(4, 0.9) == Event("begin", "fall", 4, 2, 0.9)
    assert state.interrupt(5) == Event("end", "fall", 5, 2, 0.9)
    assert state.interrupt(6) is None


SCORES = st.lists(st.floats(0, 1), max_size=60)


@given(SCORES, st.floats(0, 1), st.floats(0, 1), st.integers(0, 5), st.integers(0, 5))
def test_of_any_scores_events_take_turns_hold_and_cool_down(scores, level, share, hold, cool_down):
    trigger = Trigger("fall", level, hold, share * level, cool_down)
    found = events_of(trigger, scores)
    assert [kind for kind, *_ in found] == [("begin", "end")[number % 2] for number in range(len(found))]
    ended = -1e9
    for kind, seconds, start, highest in found:
        assert highest == max(scores[int(start) : int(seconds) + (kind == "begin")])
        if kind == "begin":
            assert min(scores[int(start) : int(seconds) + 1]) > level
            assert seconds - start >= hold and seconds - ended >= cool_down
        else:
            assert scores[int(seconds)] < trigger.release
            ended = seconds


@given(SCORES, st.integers(0, 5))
def test_a_begin_is_never_later_than_its_hold_where_the_trigger_is_not_quiet(scores, hold):
    state = TriggerState(Trigger("fall", 0.5, hold, 0.0, 0))           # never ends
    above = 0
    for number, score in enumerate(scores):
        above = above + 1 if score > 0.5 else 0
        event = state.feed(number, score)
        if above == hold + 1:
            assert event is not None
            return
        assert event is None


@pytest.mark.parametrize(("text", "expected"), [
    ("fall>0.8", Trigger("fall", 0.8, 0, 0.64)),
    ("fall>0.8 for 1s", Trigger("fall", 0.8, 1, 0.64)),
    ("  turn left > .5 for 2.5 s until < 0.3 ", Trigger("turn left", 0.5, 2.5, 0.3)),
    ("a>b>1", Trigger("a>b", 1.0, 0, 0.8)),
    ("fall>0.5 until<0.5", Trigger("fall", 0.5, 0, 0.5)),
    ("wait for me>0 for 3", Trigger("wait for me", 0.0, 3, 0.0)),
])
def test_triggers_are_read(text, expected):
    found = parse_trigger(text)
    assert (found.label, found.level, found.hold_seconds) == (expected.label, expected.level, expected.hold_seconds)
    assert found.release == pytest.approx(expected.release)


@pytest.mark.parametrize(("text", "place", "reason"), [
    ("fall", 4, "a '>' and a score are missing"),
    ("", 0, "a '>' and a score are missing"),
    (">0.8", 0, "a class is missing before '>'"),
    ("fall>", 5, "a score between 0 and 1 must stand here"),
    ("fall> high", 6, "a score between 0 and 1 must stand here"),
    ("fall>80", 5, "80 is not a score between 0 and 1"),
    ("fall>-1", 5, "a score between 0 and 1 must stand here"),
    ("fall>0.8 1s", 9, "this cannot be read"),
    ("fall>0.8 for", 12, "seconds must stand here"),
    ("fall>0.8 for 1 minute", 15, "this cannot be read"),
    ("fall>0.8 for 1s until 0.5", 22, "a '<' is missing after 'until'"),
    ("fall>0.8 until<0.9", 15, "cannot end at a higher score than 0.8"),
    ("fall>0.8; rm -rf", 8, "this cannot be read"),
    ("fell>0.8", 0, "no class of the model; did you mean 'fall'?"),
    (" xyz>0.8", 1, "no class of the model; the model knows fall, run"),
])
def test_what_cannot_be_read_shows_the_place(text, place, reason):
    with pytest.raises(ValueError) as caught:
        parse_trigger(text, class_names=["fall", "run"])
    first, shown, caret = str(caught.value).split("\n")
    assert first.startswith("--on cannot be read: ") and reason in first
    assert shown == f"  {text}" and caret == f"  {' ' * place}^"


@given(st.text(max_size=30))
def test_any_text_is_a_trigger_or_one_error(text):
    try:
        parse_trigger(text)
    except ValueError as error:
        assert str(error).startswith("--on cannot be read: ")
