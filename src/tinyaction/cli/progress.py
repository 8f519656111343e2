"""Progress on the terminal: a bar of tqdm where it is installed, one rewritten line where not, nothing in a file."""

import sys
from typing import Any

from tinyaction.engine import Progress

try:
    from tqdm import tqdm
except ImportError:
    tqdm = None


class ProgressLine:
    """A callback for the loop. Where the output is no terminal it writes nothing: the epoch's own line is enough."""

    def __init__(self) -> None:
        self._on = sys.stderr.isatty()
        self._bar: Any = None

    def __call__(self, progress: Progress) -> None:
        if not self._on:
            return
        text = f"loss {progress.loss:.3f} top1 {progress.top1:.3f} {progress.videos_per_second:.1f} clips/s"
        if tqdm is None:
            line = (f"{progress.kind:<5} {progress.batch}/{progress.num_batches} {text} "
                    f"{progress.seconds_left:.0f} s left")
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
