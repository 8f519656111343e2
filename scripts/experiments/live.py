"""Live triggers over a generated hour, as fast as it goes: how late events are told, and whether memory grows.

    python scripts/experiments/live.py --minutes 60

Once a minute the picture is bright for 4 s, and else dark, at 25 frames a second; the network is made to tell the two
apart. It shows the machinery, and nothing about recognition. Resident memory is that of the whole process (Linux).
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tinyaction.cli import Parser, errors_to_exit_code
from tinyaction.cli.live import Watcher
from tinyaction.cli.predict import parse_args as predict_args
from tinyaction.inference.prediction import Prediction
from tinyaction.inference.predictor import Predictor
from tinyaction.models.checkpoint import Checkpoint
from tinyaction.models.create import create_model, model_arguments
from tinyaction.video import UInt8Array
from tinyaction.video.writer import write_video

FPS, DARK, BRIGHT = 25, 20, 220
START_SECONDS, LENGTH_SECONDS = 20, 4  # of the event within each minute


@errors_to_exit_code
def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="live.py", description=__doc__, allow_abbrev=False,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--side", type=int, default=64, help="pixels of the generated video (default 64)")
    parser.add_argument("--window", type=float, default=1.0, help="seconds (default 1)")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        run(arguments, Path(folder))
    return 0


def run(arguments: argparse.Namespace, folder: Path) -> None:
    write_video(folder / "hour.mp4", frames(arguments.minutes, arguments.side), fps=FPS, codec="mpeg4")
    make_model(folder / "model.pt")
    flags = predict_args([str(folder / "hour.mp4"), "--checkpoint", str(folder / "model.pt"), "--on",
                          "bright>0.9 for 0.5s", "--window", str(arguments.window), "--save-events",
                          str(folder / "events")])
    output = Output()
    watcher = Watcher(Predictor(folder / "model.pt", device="cpu"), flags, output)
    begin = time.perf_counter()
    watcher.watch(str(folder / "hour.mp4"))
    seconds = time.perf_counter() - begin
    watcher.close()
    minutes = sorted(output.megabytes)
    shown = [minutes[round(share * (len(minutes) - 1))] for share in (0, 0.1, 0.25, 0.5, 0.75, 1)]
    print(f"{arguments.minutes} minutes in {seconds:.0f} s; resident memory "
          + ", ".join(f"{output.megabytes[minute]:.0f} MB at minute {minute}" for minute in shown)
          + f"; most {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")
    late = [event["seconds"] - START_SECONDS - 60 * (event["seconds"] // 60) for event in output.begins]
    late_ends = [event["seconds"] - START_SECONDS - LENGTH_SECONDS - 60 * (event["seconds"] // 60)
                 for event in output.ends]
    print(f"{len(output.begins)} events of {arguments.minutes}, {len(list((folder / 'events').iterdir()))} clips; "
          f"begins told {min(late):.2f} to {max(late):.2f} s after they began, ends {min(late_ends):.2f} to "
          f"{max(late_ends):.2f} s after they ended; window {arguments.window:g} s, hold 0.5 s")


class Output:
    """Keeps events, and the memory at each minute."""

    def __init__(self) -> None:
        self.begins: list[dict[str, Any]] = []
        self.ends: list[dict[str, Any]] = []
        self.megabytes: dict[int, float] = {}  # by minute

    def begin_windows(self, source: str) -> None:
        pass

    def add(self, prediction: Prediction, start: float | None = None, end: float | None = None) -> None:
        minute = int((end or 0) // 60)
        if minute not in self.megabytes:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            self.megabytes[minute] = pages * resource.getpagesize() / 2**20

    def add_event(self, row: dict[str, Any], line: str) -> None:
        (self.begins if row["event"] == "begin" else self.ends).append(row)


def frames(num_minutes: int, side: int) -> Iterator[UInt8Array]:
    noise = np.random.RandomState(0).randint(0, 20, (16, side, side, 3)).astype(np.uint8)
    for number in range(60 * FPS * num_minutes):
        is_bright = 0 <= number / FPS % 60 - START_SECONDS < LENGTH_SECONDS
        yield noise[number % 16] + np.uint8(BRIGHT if is_bright else DARK)


def make_model(path: Path) -> None:
    """A network whose second class is "bright"."""
    torch.manual_seed(0)
    model = create_model("conv2d", 2).eval()
    levels = torch.tensor([DARK + 10.0, BRIGHT + 10.0]).view(2, 1, 1, 1, 1, 1).expand(2, 1, 3, 4, 32, 32)
    with torch.no_grad():
        dark, bright = model.cls_head.pool(model(levels, mode="tensor"))  # (F,) each
        direction = (bright - dark) / (bright - dark).square().sum()
        middle = direction @ (bright + dark) / 2
        model.cls_head.fc.weight.copy_(torch.stack([-20 * direction, 20 * direction]))
        model.cls_head.fc.bias.copy_(torch.stack([20 * middle, -20 * middle]))
    Checkpoint(model_arguments("conv2d", model), model.state_dict(), ["dark", "bright"],
               {"clip_len": 4, "size": 32, "num_clips": 1}).save(path)


if __name__ == "__main__":
    raise SystemExit(main())
