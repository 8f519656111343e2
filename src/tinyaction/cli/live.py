"""Watch a camera, a stream, a pipe, or with --on a file: what ``tinyaction predict`` does with them."""

import argparse
import shutil
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Protocol

from tinyaction.cli import check_at_least, say
from tinyaction.files import check_output
from tinyaction.inference.cameras import is_stream, moments_of, shown_name
from tinyaction.inference.commands import FIELDS, CommandRunner, parse_command
from tinyaction.inference.events import BEFORE_SECONDS, EventClips
from tinyaction.inference.live import predict_moments
from tinyaction.inference.prediction import Prediction
from tinyaction.inference.predictor import Predictor
from tinyaction.inference.triggers import COOL_DOWN_SECONDS, Event, TriggerState, parse_trigger
from tinyaction.models.unknown import UNKNOWN
from tinyaction.results.timeline_picture import clock

WINDOW_SECONDS = 2.0


class LiveOutput(Protocol):
    """Where scores and events go; ``tinyaction.cli.predict.Output`` is one."""

    def begin_windows(self, source: str) -> None: ...
    def add(self, prediction: Prediction, start: float | None = None, end: float | None = None) -> None: ...
    def add_event(self, row: dict[str, Any], line: str) -> None: ...


def add_live_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("events of a camera, a stream or a video")
    group.add_argument("--on", action="append", metavar="TRIGGER", help="tell events in place of scores, as "
                       "'fall>0.8 for 1s'; several --on watch for several")
    group.add_argument("--run", metavar="COMMAND", help="run at the begin of each event, such as "
                       "'notify {label} {time}'; also {score} {seconds} {source} {clip}")
    group.add_argument("--save-events", metavar="DIR", help="save a video of the moment before and after each event")
    group.add_argument("--cool-down", type=float, metavar="SECONDS",
                       help=f"after an event before the next one of its trigger (default {COOL_DOWN_SECONDS:g})")
    group.add_argument("--seconds", type=float, help="stop watching after this time; default Ctrl-C")


def check_live_flags(arguments: argparse.Namespace) -> None:
    """Raise ValueError for flags that cannot be read or do not go together."""
    check_at_least(0, arguments, "cool_down")
    for name in ("run", "save_events", "cool_down"):
        if getattr(arguments, name) is not None and not arguments.on:
            raise ValueError(f"--{name.replace('_', '-')} is for events; say with --on what one is, such as "
                             "--on 'fall>0.8 for 1s'")
    for text in arguments.on or []:
        parse_trigger(text)
    if arguments.run is not None:
        arguments.run = parse_command(arguments.run)
    if arguments.save_events is not None:
        check_output(arguments.save_events, flag="--save-events", inputs=arguments.sources, is_folder=True)


class Watcher:
    """Predicts sources as they play and tells their events: lines, commands, clips."""

    def __init__(self, predictor: Predictor, arguments: argparse.Namespace, output: LiveOutput) -> None:
        self.predictor, self.arguments, self.output = predictor, arguments, output
        cool_down = COOL_DOWN_SECONDS if arguments.cool_down is None else arguments.cool_down
        names = [*predictor.class_names, *([UNKNOWN] if predictor.unknown else [])]
        self.triggers = [parse_trigger(text, class_names=names, cool_down_seconds=cool_down)
                         for text in arguments.on or []]
        self.clips: EventClips | None = None
        self.commands: CommandRunner | None = None
        if arguments.save_events is not None:
            longest = max(trigger.hold_seconds for trigger in self.triggers)
            self.clips = EventClips(arguments.save_events, kept_seconds=BEFORE_SECONDS + longest + 1, on_line=note)
        if arguments.run is not None:
            self.commands = CommandRunner(arguments.run, on_line=note)
            if shutil.which(arguments.run[0]) is None:
                note(f"--run {arguments.run[0]}: there is no such program here; events are told without it")

    def watch(self, source: str) -> None:
        """Watch a source to its end, or for ``--seconds``."""
        window_seconds = self.arguments.window or WINDOW_SECONDS
        name, seconds = shown_name(source), 0.0
        states = [TriggerState(trigger) for trigger in self.triggers]
        moments = moments_of(source, on_line=note)
        self.output.begin_windows(name)
        for moment, prediction in predict_moments(self.predictor, moments, window_seconds=window_seconds):
            seconds = moment.seconds
            if moment.frame is None:
                self.interrupt(states, source, seconds)
            elif self.clips is not None:
                self.clips.add(seconds, moment.frame)
            if prediction is not None:
                self.output.add(prediction, max(0.0, seconds - window_seconds), seconds)
                scores = trigger_scores(prediction)
                self.tell([state.feed(seconds, scores[state.trigger.label]) for state in states], source)
            if self.arguments.seconds is not None and seconds >= self.arguments.seconds:
                break
        self.interrupt(states, source, seconds)

    def interrupt(self, states: Sequence[TriggerState], source: str, seconds: float) -> None:
        self.tell([state.interrupt(seconds) for state in states], source)
        if self.clips is not None:
            self.clips.interrupt()

    def tell(self, events: Sequence[Event | None], source: str) -> None:
        for event in events:
            if event is None:
                continue
            time = (datetime.now().astimezone().isoformat(timespec="seconds") if is_stream(source)
                    else clock(event.seconds))
            row = {"event": event.kind, "class": event.label, "score": round(event.score, 6), "time": time,
                   "seconds": round(event.seconds, 3), "start_seconds": round(event.start_seconds, 3),
                   "source": shown_name(source)}
            if event.kind == "begin" and self.clips is not None:
                row["clip"] = str(self.clips.begin(event.label, time, seconds=event.seconds,
                                                   start_seconds=event.start_seconds))
            self.output.add_event(row, f"{time:<10}  {event.kind:<5}  {event.score:.3f}  {event.label}")
            if event.kind == "begin" and self.commands is not None:
                values = {"label": event.label, "clip": ""} | row
                self.commands.run({name: str(values[name]) for name in FIELDS})

    def close(self) -> None:
        """Finish the clips and the commands that run."""
        for part in (self.clips, self.commands):
            if part is not None:
                part.close()


def trigger_scores(prediction: Prediction) -> dict[str, float]:
    """Scores by class; where it is none of them those are 0 and that of "unknown" is 1."""
    scores = {UNKNOWN: float(prediction.is_unknown)}
    return scores | {name: 0.0 if prediction.is_unknown else score
                     for name, score in zip(prediction.class_names, prediction.scores, strict=True)}


def note(text: str) -> None:
    say(f"note: {text}", file=sys.stderr)
