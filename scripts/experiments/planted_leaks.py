"""Plant pieces of the same recordings in a set of clips, changed, and see which the audit's finder tells.

    python scripts/experiments/planted_leaks.py --data clips/kinetics400_tiny --half second \\
        --same-place doing_exercises29,doing_exercises30 --same-place doing_exercises3,doing_exercises4

A recording gives one piece as it is, and for each change below a piece that begins 1 to 30 s earlier or later, as far
as the recording goes. Recall: of the pairs (piece as it is, changed piece) of one recording, those that are found.
Precision: of all pairs that are found, those of one recording; recordings that were made in one place
(--same-place, told by eye) count for neither. The finder's settings were chosen on the first half of
the recordings; the second half measures them.
"""

import argparse
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np

from tinyaction.audit.clips import ClipFacts, look_at
from tinyaction.audit.recordings import find_pairs
from tinyaction.cli import Parser, errors_to_exit_code
from tinyaction.data.class_folders import is_video, walk_files
from tinyaction.results.sheets import resized
from tinyaction.video import UInt8Array, open_video

LONG_SIDE = 480  # pixels of a piece as it is
MOST_SECONDS = 30.0  # between a piece and the one that is planted


@dataclass(frozen=True)
class Piece:
    """What is cut of a recording: from ``start_seconds`` on, ``move_seconds`` away from the piece as it is."""

    recording: int
    change: str
    start_seconds: float
    move_seconds: float
    path: Path


def cropped(frame: UInt8Array, rng: random.Random) -> UInt8Array:
    """Two thirds to nine tenths of each side."""
    H, W = frame.shape[:2]
    height, width = round(H * rng.uniform(0.67, 0.9)), round(W * rng.uniform(0.67, 0.9))
    top, left = rng.randint(0, H - height), rng.randint(0, W - width)
    return frame[top : top + height, left : left + width]


def mirrored(frame: UInt8Array, rng: random.Random) -> UInt8Array:
    return frame[:, ::-1]


def smaller(frame: UInt8Array, rng: random.Random) -> UInt8Array:
    return resized(frame, LONG_SIDE // 2)


# name -> (what is done to each frame, the same for all frames of a piece; the codec's constant rate factor)
CHANGES: dict[str, tuple[list[Callable[[UInt8Array, random.Random], UInt8Array]], int]] = {
    "as it is": ([], 21),
    "moved": ([], 21),
    "cropped": ([cropped], 23),
    "mirrored": ([mirrored], 23),
    "re-encoded": ([smaller], 36),
    "all of these": ([cropped, mirrored, smaller], 32),
}


@errors_to_exit_code
def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("--data", required=True, nargs="+", help="folders of videos, each of a recording of its own")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a piece (default 3)")
    parser.add_argument("--half", choices=("first", "second", "both"), default="second")
    parser.add_argument("--same-place", action="append", default=[], metavar="NAME,NAME", help="recordings of one "
                        "place, whose pairs are not counted; may be given several times")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", help="folder for the pieces, to look at them (default: a temporary one)")
    args = parser.parse_args(argv)
    recordings = [path for folder in args.data for path in walk_files(Path(folder)) if is_video(path)]
    random.Random(0).shuffle(recordings)
    recordings = {"first": recordings[::2], "second": recordings[1::2], "both": recordings}[args.half]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(args.keep or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        pieces = [piece for number, path in enumerate(recordings)
                  for piece in cut_pieces(number, path, folder, args.seconds, random.Random(args.seed + number))]
        places = {name: names for names in args.same_place for name in names.split(",")}
        measure(pieces, [places.get(path.stem, path.stem) for path in recordings])
    return 0


def cut_pieces(number: int, path: Path, folder: Path, seconds: float, rng: random.Random) -> list[Piece]:
    """The pieces of a recording, written; none where it is too short to hold two of them 1 s apart."""
    reader = open_video(str(path))
    last = float(reader.seconds[-1]) - seconds                         # where a piece can begin
    if last < 1:
        print(f"left out, too short: {path.name}")
        return []
    start = rng.choice((0.0, last))                                    # at an end, so that far moves are possible
    pieces = []
    for change in CHANGES:
        seed = rng.randrange(1 << 30)
        move = 0.0 if change == "as it is" else rng.uniform(1, min(last, MOST_SECONDS))
        begin = start - move if start else move
        piece = Piece(number, change, begin, move, folder / f"{path.stem}-{change.replace(' ', '_')}.mp4")
        if not piece.path.exists():
            times = np.asarray(reader.seconds)
            chosen = np.flatnonzero((times >= begin) & (times < begin + seconds)).tolist()
            write_piece(piece.path, reader.read(chosen), change, reader.fps or 25.0, seed)
        pieces.append(piece)
    return pieces


def write_piece(path: Path, frames: Iterable[UInt8Array], change: str, fps: float, seed: int) -> None:
    functions, rate_factor = CHANGES[change]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=round(fps), options={"crf": str(rate_factor)})
        for frame in frames:
            frame = resized(frame, LONG_SIDE)
            for place, function in enumerate(functions):
                frame = function(frame, random.Random(seed + place))
            H, W = frame.shape[0] // 2 * 2, frame.shape[1] // 2 * 2
            if not stream.codec_context.is_open:
                stream.height, stream.width, stream.pix_fmt = H, W, "yuv420p"
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame[:H, :W]), "rgb24")))
        container.mux(stream.encode())


def measure(pieces: Sequence[Piece], places: Sequence[str]) -> None:
    """``places``: of each recording, the name of its place."""
    cv2.setNumThreads(1)
    started = time.process_time()
    facts = [one for piece in pieces if isinstance(one := look_at(str(piece.path)), ClipFacts)]
    assert len(facts) == len(pieces)
    looked = time.process_time()
    pairs = find_pairs([one.keypoints for one in facts])
    compared = time.process_time()
    found = {(pair.first, pair.second) for pair in pairs if pieces[pair.first].recording ==
             pieces[pair.second].recording or places[pieces[pair.first].recording] !=
             places[pieces[pair.second].recording]}
    bases = {piece.recording: place for place, piece in enumerate(pieces) if piece.change == "as it is"}
    planted, hits = Counter[str](), Counter[str]()
    for place, piece in enumerate(pieces):
        base = bases[piece.recording]
        if place == base:
            continue
        far = "moved by 1 to 5 s" if piece.move_seconds < 5 else "moved by 5 to 15 s" if piece.move_seconds < 15 else \
            "moved by 15 to 30 s"
        is_found = (min(base, place), max(base, place)) in found
        for name in (piece.change, far, "all planted pairs"):
            planted[name] += 1
            hits[name] += is_found
        if not is_found:
            print(f"missed: {piece.path.name}, {piece.start_seconds:.1f} s, {piece.move_seconds:.1f} s away")
    wrong = [(a, b) for a, b in sorted(found) if pieces[a].recording != pieces[b].recording]
    for a, b in wrong:
        print(f"wrong: {pieces[a].path.name} and {pieces[b].path.name}")
    for name, number in planted.items():
        print(f"{name:<20}  {hits[name]:>4} of {number:>4}  recall {hits[name] / number:.3f}")
    print(f"{len(pieces)} clips of {len(bases)} recordings: {len(found)} pairs found, {len(found) - len(wrong)} of "
          f"one recording: precision {1 - len(wrong) / max(len(found), 1):.3f}")
    print(f"processor seconds a clip: {(looked - started) / len(pieces):.2f} to look at it, "
          f"{(compared - looked) / len(pieces):.2f} to compare it")


if __name__ == "__main__":
    raise SystemExit(main())
