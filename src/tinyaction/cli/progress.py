"""Progress of training on stderr: a bar of tqdm, without it a line that is written over, in a file a line at times.

Other commands count on one line of stdout.
"""

import errno
import os
import stat
import sys
import time
from collections.abc import Callable
from typing import Any, ParamSpec

from tinyaction.cli import say
from tinyaction.results.progress import Progress

try:
    from tqdm import tqdm
except ImportError:
    tqdm = None


SECONDS_BETWEEN_LINES = 30  # in a file; short epochs have only their own line there


class ProgressLine:
    """A callback for the loop: where an epoch is, its loss, accuracy, clips a second and seconds left."""

    def __init__(self, *, now: Callable[[], float] = time.monotonic) -> None:
        self._on = sys.stderr.isatty()
        self._bar: Any = None
        self._now = now
        self._last_line = now()

    def __call__(self, progress: Progress) -> None:
        text = f"loss {progress.loss:.3f} top1 {progress.top1:.3f} {progress.videos_per_second:.1f} clips/s"
        line = f"{progress.kind:<5} {progress.batch}/{progress.num_batches} {text} {progress.seconds_left:.0f} s left"
        if not self._on:
            if self._now() - self._last_line >= SECONDS_BETWEEN_LINES:
                self._last_line = self._now()
                print(line, file=sys.stderr, flush=True)
            return
        if tqdm is None:
            sys.stderr.write("\r" + line[:79].ljust(79))
            sys.stderr.flush()
        else:
            if self._bar is None:
                self._bar = tqdm(total=progress.num_batches, desc=progress.kind, leave=False, dynamic_ncols=True,
                                 bar_format="{desc:<5} {n_fmt}/{total_fmt} |{bar}| {postfix[0]} {remaining} left",
                                 postfix=[text])
            self._bar.postfix[0] = text
            self._bar.update()
        if progress.batch == progress.num_batches:
            self.close()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        elif self._on:
            sys.stderr.write("\r" + " " * 79 + "\r")
            sys.stderr.flush()


Arguments = ParamSpec("Arguments")


def unless_hung_up(write: Callable[Arguments, object]) -> Callable[Arguments, None]:
    """Wrap a function that writes to the terminal: where that is gone (a closed ssh session), it writes nowhere."""

    def wrapped(*arguments: Arguments.args, **keywords: Arguments.kwargs) -> None:
        try:
            write(*arguments, **keywords)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            nowhere = os.open(os.devnull, os.O_WRONLY)
            for descriptor in (1, 2):
                if stat.S_ISCHR(os.fstat(descriptor).st_mode):
                    os.dup2(nowhere, descriptor)
            os.close(nowhere)

    return wrapped


class CountLine:
    """Counts on one line of a terminal that is written over; where the output is a file, a line on stderr at times."""

    def __init__(self) -> None:
        self._on = sys.stdout.isatty()
        self._text = ""
        self._begin = self._last_line = time.monotonic()

    def __call__(self, unit: str, num_done: int, num_all: int | None) -> None:
        """unit: "bytes", shown in MB, or a word in the plural. num_all: None where it is not known."""
        scale, digits, unit = (1e6, 1, "MB") if unit == "bytes" else (1, 0, unit)
        of_all = "" if num_all is None else f" of {num_all / scale:.{digits}f}"
        text = f"{num_done / scale:.{digits}f}{of_all} {unit}"
        now = time.monotonic()
        if num_all is not None and 0 < num_done and now > self._begin:
            seconds = now - self._begin
            seconds_left = seconds / num_done * (num_all - num_done)
            text += f", {num_done / scale / seconds:.1f} a second, {seconds_left:.0f} s left"
        if not self._on and now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            print(text, file=sys.stderr, flush=True)
        if self._on and text != self._text:
            self.clear()
            sys.stdout.write(text)
            sys.stdout.flush()
            self._text = text

    def clear(self) -> None:
        if self._text:
            sys.stdout.write("\r" + " " * len(self._text) + "\r")
            self._text = ""

    def print(self, sentence: str) -> None:
        """A line that stays."""
        self.clear()
        say(sentence)
