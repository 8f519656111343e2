"""The commands: each module parses, assembles and calls. ``tinyaction NAME ...`` is ``python scripts/NAME.py ...``."""

import argparse
import functools
import importlib
import io
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn, Protocol, TextIO

from tinyaction.device import default_num_workers
from tinyaction.text import printable, wrapped

COMMANDS = {
    "prepare": "download or generate videos",
    "train": "train a recognizer on a folder of videos",
    "check": "find damaged, missing and doubled videos, and faults in lists",
    "audit": "doubtful labels, leaks, shortcuts, odd clips",
    "evaluate": "accuracy of a checkpoint on a folder of videos",
    "report": "make the page of a run again",
    "compare": "runs beside each other, and whether their difference is chance",
    "predict": "classes and scores of files, folders, long videos, cameras",
    "explain": "where in the frames a network found its class",
    "embed": "a feature vector a video, by any network",
    "neighbors": "the labelled clips that are most like a video",
    "suggest": "the videos that are worth labelling next",
    "export": "a checkpoint as ONNX, torch.export or TorchScript, checked",
    "models": "the recognizers there are: parameters, input, GFLOPs, weights",
    "store": "decode videos once, to frames that read faster",
    "join": "put together the parts of check, store, embed or predict",
    "bench": "clips a second, stage by stage",
}


def say(text: str, *, file: TextIO | None = None) -> None:
    """Print sentences; on a terminal in lines that fit it."""
    stream = sys.stdout if file is None else file
    text = printable(text)
    print(wrapped(text, max(80, shutil.get_terminal_size().columns)) if stream.isatty() else text, file=stream,
          flush=True)


class Parser(argparse.ArgumentParser):
    """A wrong flag is one sentence, like every other error, and not twenty lines of usage."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message}; see {self.prog} --help")


def check_at_least(least: int, arguments: argparse.Namespace, *names: str) -> None:
    """Raise ValueError for the first of these flags, as they are named in Python, that is below ``least``."""
    for name in names:
        value = getattr(arguments, name)
        if value is not None and value < least:
            raise ValueError(f"--{name.replace('_', '-')} is {value}; it must be at least {least}")


def add_list_flags(parser: argparse.ArgumentParser) -> None:
    """Flags by which every command reads a list as training does; :func:`list_flags` hands them on."""
    parser.add_argument("--allow-outside", action="store_true", help="lists may name videos elsewhere")
    parser.add_argument("--multi-label", action="store_true", help="a video may have several labels, as in a CSV with "
                        "wave;walk, which needs no flag")


def list_flags(arguments: argparse.Namespace) -> dict[str, Any]:
    return {"allow_outside": arguments.allow_outside, "multi_label": arguments.multi_label}


def num_workers_of(given: int) -> int:
    """What --num-workers asks for: -1 is one per core."""
    if given < -1:
        raise ValueError(f"--num-workers is {given}; it must be at least -1")
    return default_num_workers() if given == -1 else given


class Main(Protocol):
    """A command: takes flags (default those of the process), returns the exit code."""

    def __call__(self, argv: Sequence[str] | None = None) -> int: ...


def main(argv: Sequence[str] | None = None) -> int:
    """The console command ``tinyaction``."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: tinyaction COMMAND ...   (COMMAND --help for its flags)\n")
        for name, text in COMMANDS.items():
            print(f"  {name:<10}{text}")
        return 0 if arguments else 2
    if arguments[0] == "--version":
        from tinyaction.version import __version__

        print(__version__)
        return 0
    name = arguments[0]
    if name not in COMMANDS:
        say(f"error: {name!r} is no command of tinyaction; it must be one of {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    command: Main = importlib.import_module(f"tinyaction.cli.{name}").main
    return command(arguments[1:])


def errors_to_exit_code(command: Callable[[Sequence[str] | None], int]) -> Main:
    """Turn errors of users and files into one sentence on stderr and exit code 2, and Ctrl-C into 130."""

    @functools.wraps(command)
    def wrapped(argv: Sequence[str] | None = None) -> int:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # a letter that the terminal cannot show becomes its code
                stream.reconfigure(errors="backslashreplace")
        stopped_by: list[int] = []
        try:
            with _ending_as_by_ctrl_c(stopped_by):
                return command(argv)
        except BrokenPipeError:  # the reader of our output has gone, as in "... | head"
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 141
        except (ValueError, OSError) as error:
            say(f"error: {_sentence(error)}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            with suppress(OSError):  # of a terminal that is gone
                print("interrupted", file=sys.stderr)
            return 128 + (stopped_by[0] if stopped_by else signal.SIGINT)

    return wrapped


@contextmanager
def _ending_as_by_ctrl_c(stopped_by: list[int]) -> Iterator[None]:
    """Let SIGTERM and SIGHUP (a closed terminal) end the block as Ctrl-C does, so that nothing half made is left.

    The number of the signal goes to ``stopped_by``. A signal that is ignored, as by nohup, stays so.
    """
    def stop(signum: int, frame: FrameType | None) -> None:
        stopped_by.append(signum)
        raise KeyboardInterrupt

    signals = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    in_main_thread = threading.current_thread() is threading.main_thread()
    mine = [one for one in signals if in_main_thread and signal.getsignal(one) == signal.SIG_DFL]
    try:
        for one in mine:
            signal.signal(one, stop)
        yield
    finally:
        for one in mine:
            signal.signal(one, signal.SIG_DFL)


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror[0].lower()}{error.strerror[1:]}"
    return str(error)
