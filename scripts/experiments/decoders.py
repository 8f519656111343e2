"""Readers of video side by side: which frames they give, and what 16 of them cost.

    TINYACTION_SHARED=../shared python scripts/experiments/decoders.py
    python scripts/experiments/decoders.py clip.mp4 other.mkv --repeats 7

The first table holds clips/files against truth.json, computed with ffmpeg: number of frames, size, times within 2 ms,
and pixels (means of 8 x 8 cells differ by less than 4 on average) of all frames in turn, 9 sparsely, and each of these
alone. The second one is the processor time of the guide's test frames, opening included: 16 (16 x 1) or five times 16
(16 x 5), resized to 224 x 224. One thread everywhere; the readers take turns, each in a process that may crash or
hang. torchcodec takes part where it is installed, with an FFmpeg that it finds.
"""

import argparse
import importlib.util
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
import torch

from tinyaction.data.sampling import segment_indices
from tinyaction.video import UInt8Array, open_video

Frames = Iterable[UInt8Array]
TIMED = ("odd/demo.mp4", "odd/test.mp4", "odd/torchcodec__nasa_13013.mp4", "odd/test.avi",
         "odd/torchcodec__h265_video.mp4", "kinetics400_tiny/val/typing44.mp4",
         "kinetics400_tiny/val/doing_exercises46.mp4")
MAX_SECONDS, MAX_DIFFERENCE, PATIENCE_SECONDS = 0.002, 4, 120


class Ours:
    """Like each class here: opens a file, says when its frames are shown, reads frames (H, W, 3) RGB by index."""

    def __init__(self, path: str) -> None:
        self.reader = open_video(path)

    def seconds(self) -> Any:
        return self.reader.seconds

    def read(self, indices: Sequence[int]) -> Frames:
        return self.reader.read(indices)


class Decord:
    def __init__(self, path: str) -> None:
        import decord  # after torch

        decord.logging.set_level(decord.logging.FATAL)
        self.reader = decord.VideoReader(path, num_threads=1)

    def seconds(self) -> Any:
        return self.reader.get_frame_timestamp(range(len(self.reader)))[:, 0]

    def read(self, indices: Sequence[int]) -> Frames:
        return self.reader.get_batch(list(indices)).asnumpy()


class TorchCodec:
    def __init__(self, path: str) -> None:
        decoders: Any = import_module("torchcodec.decoders")
        self.reader = decoders.VideoDecoder(path, num_ffmpeg_threads=1, dimension_order="NHWC")

    def seconds(self) -> Any:
        return self.reader.get_frames_at(list(range(len(self.reader)))).pts_seconds.numpy()

    def read(self, indices: Sequence[int]) -> Frames:
        return self.reader.get_frames_at(list(indices)).data.numpy()


class OpenCV:
    def __init__(self, path: str) -> None:
        self.capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])

    def seconds(self) -> Any:
        seconds = []
        while self.capture.grab():
            seconds.append(self.capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
        return seconds

    def read(self, indices: Sequence[int]) -> Frames:
        if indices[0]:
            self.capture.set(cv2.CAP_PROP_POS_FRAMES, indices[0])
        for index, gap in zip(indices, np.diff(indices, prepend=indices[0] - 1), strict=True):
            for _ in range(gap - 1):
                self.capture.grab()
            is_whole, frame = self.capture.read()
            if not is_whole:
                raise ValueError(f"no frame {index}")
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)


class PlainPyAV:
    """Decodes in turn, as its documentation does."""

    def __init__(self, path: str) -> None:
        self.container: Any = av.open(path)
        self.container.streams.video[0].thread_count = 1

    def seconds(self) -> Any:
        return [frame.time for frame in self.container.decode(video=0)]

    def read(self, indices: Sequence[int]) -> Frames:
        frames = enumerate(self.container.decode(video=0))
        wanted = set(indices)
        for number, frame in islice(frames, max(indices) + 1):
            if number in wanted:
                yield frame.to_ndarray(format="rgb24")


READERS: dict[str, Callable[[str], Any]] = {
    "decord": Decord, "OpenCV": OpenCV, "PyAV": PlainPyAV, "torchcodec": TorchCodec, "ours": Ours}


def cell_means(frame: UInt8Array) -> npt.NDArray[np.float64]:
    """(H, W, 3) to (8, 8, 3)."""
    rows, columns = (np.linspace(0, side, 9).astype(int) for side in frame.shape[:2])
    return np.array([[frame[rows[y] : rows[y + 1], columns[x] : columns[x + 1]].mean((0, 1)) for x in range(8)]
                     for y in range(8)])


def fault(reader_name: str, path: str, truth: dict[str, Any], cells: UInt8Array) -> str:
    """What is wrong first, "" where nothing is."""
    N = truth["num_frames"]
    seconds = np.array(READERS[reader_name](path).seconds(), np.float64)
    if len(seconds) != N:
        return f"{len(seconds)} of {N}"
    if np.abs(seconds - seconds[0] - truth["seconds"]).max() > MAX_SECONDS:
        return "times"
    single = np.linspace(0, N - 1, 9).astype(int).tolist()
    ways = {"in turn": [range(N)], "sparse": [single], "alone": [[index] for index in reversed(single)]}
    for way, parts in ways.items():
        for part in parts:
            frames = list(READERS[reader_name](path).read(part))
            if frames[0].shape != (truth["height"], truth["width"], 3):
                return "size"
            if any(np.abs(cell_means(frame) - cells[index]).mean() >= MAX_DIFFERENCE
                   for frame, index in zip(frames, part, strict=True)):
                return f"{way} wrong"
    return ""


def measure(reader_name: str, path: str, indices: list[int], as_asked: bool) -> tuple[float, float, UInt8Array]:
    """Processor time of opening, and of an item with opening, in milliseconds; the item (T, 224, 224, 3).

    Frames are read in ascending order, each once, or, ``as_asked``, as the indices stand.
    """
    start = time.process_time()
    reader = READERS[reader_name](path)
    opened = time.process_time()
    order = indices if as_asked else sorted(set(indices))
    small = [cv2.resize(frame, (224, 224)) for frame in reader.read(order)]
    if not as_asked:
        by_index = dict(zip(order, small, strict=True))
        small = [by_index[index] for index in indices]
    item = np.stack(small)
    return 1000 * (opened - start), 1000 * (time.process_time() - start), item.astype(np.uint8, copy=False)


def answer(connection: Any) -> None:
    """Do what is asked for until nothing more is."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what decoders say of damage
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    while True:
        task, *arguments = connection.recv()
        try:
            connection.send(task(*arguments))
        except Exception:
            connection.send("error")


class Child:
    def __init__(self) -> None:
        self.connection, theirs = multiprocessing.Pipe()
        self.process = multiprocessing.get_context("fork").Process(target=answer, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()

    def ask(self, *task: Any) -> Any:
        """What it answers; "error", "crash" or "hang"."""
        try:
            self.connection.send(task)
            if self.connection.poll(PATIENCE_SECONDS):
                return self.connection.recv()
        except (EOFError, OSError):
            return "crash"
        self.stop()
        return "hang"

    def stop(self) -> None:
        self.process.kill()
        self.process.join()


def print_right_and_wrong(folder: Path, readers: Sequence[str]) -> None:
    truth, cells = json.loads((folder / "truth.json").read_text()), np.load(folder / "truth.npz")
    num_right = dict.fromkeys(readers, 0)
    print(f"{'file':<30}" + "".join(f"{name:<14}" for name in readers))
    for file, expected in truth.items():
        row = ""
        for name in readers:
            child = Child()
            wrong = child.ask(fault, name, str(folder / file), expected, cells[file])
            child.stop()
            num_right[name] += not wrong
            row += f"{wrong or '+':<14}"
        print(f"{file:<30}{row}".rstrip(), flush=True)
    print(f"{'right of ' + str(len(truth)):<30}" + "".join(f"{num:<14}" for num in num_right.values()))


def print_costs(files: Sequence[Path], readers: Sequence[str], repeats: int) -> None:
    print(f"\nmilliseconds of one processor, median of {repeats}; in brackets: how many times ours; then the largest "
          "difference\nof a pixel of the item from ours")
    ways = [(name, False) for name in readers] + [("decord", True)] * ("decord" in readers)
    for file in files:
        num_frames = len(open_video(file))
        container: Any = av.open(str(file))
        context = container.streams.best("video").codec_context
        print(f"\n{file.name[:40]}: {context.name}, {context.width} x {context.height}, {num_frames} frames"
              f"{', B-frames' if context.has_b_frames else ''}")
        items = [segment_indices(num_frames, 16, num_clips, np.random.RandomState(42)).ravel().tolist()
                 for num_clips in (1, 5)]
        children = [Child() for _ in ways]
        given: list[list[list[Any]]] = [[[], []] for _ in ways]  # by way and item
        for _ in range(repeats + 1):  # the first one warms up
            for child, (name, as_asked), answers in zip(children, ways, given, strict=True):
                for item, answers_of_item in zip(items, answers, strict=True):
                    answers_of_item.append(child.ask(measure, name, str(file), item, as_asked))
        for child in children:
            child.stop()
        print_rows(ways, given)


def medians(answers: list[Any]) -> list[float]:
    """Of opening and of the item, without the first, which warms up."""
    return [statistics.median(answer[place] for answer in answers[1:]) for place in (0, 1)]


def print_rows(ways: Sequence[tuple[str, bool]], given: list[list[list[Any]]]) -> None:
    """One line for each reader: opening, 16 x 1, 16 x 5; beside each how many times ours it takes."""
    ours = given[[name for name, _ in ways].index("ours")]
    print(f"  {'':<18}{'opening':<16}{'16 x 1':<28}{'16 x 5':<28}")
    for (name, as_asked), answers in zip(ways, given, strict=True):
        cells = []
        for expected, found in zip(ours, answers, strict=True):
            if failed := [answer for answer in found if isinstance(answer, str)]:
                cells.append(("", failed[0]))
                continue
            opening, total = medians(found)
            ours_opening, ours_total = medians(expected)
            difference = int(np.abs(found[0][2].astype(int) - expected[0][2]).max())
            cells.append((f"{opening:.1f} ({opening / ours_opening:.2f})",
                          f"{total:.1f} ({total / ours_total:.2f}) {difference or 'same'}"))
        label = name + " unsorted" * as_asked
        print(f"  {label:<18}{cells[0][0]:<16}{cells[0][1]:<28}{cells[1][1]}".rstrip(), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("files", nargs="*", type=Path, help="to be timed (default: some of the shared clips)")
    parser.add_argument("--shared", type=Path, default=Path(os.environ.get("TINYACTION_SHARED", "")),
                        help="folder of real clips (default: TINYACTION_SHARED)")
    parser.add_argument("--repeats", type=int, default=7, help="times that each item is made (default: 7)")
    parser.add_argument("--only", choices=("right", "costs"), help="one table instead of both")
    args = parser.parse_args()
    readers = [name for name in READERS if name not in ("decord", "torchcodec") or importlib.util.find_spec(name)]
    folder = args.shared / "clips"
    if not args.files and args.only != "costs":
        print_right_and_wrong(folder / "files", readers)
    if args.only != "right":
        print_costs(args.files or [folder / name for name in TIMED], readers, args.repeats)


if __name__ == "__main__":
    main()
