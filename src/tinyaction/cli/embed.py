"""One feature vector a video, or a window of a long video, by any network; nothing is trained."""

import argparse
import base64
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tinyaction.cli import Parser, add_list_flags, check_at_least, errors_to_exit_code, list_flags, say
from tinyaction.cli.network import (
    add_network_flags,
    check_clip_length,
    check_network_flags,
    load_embedder,
    network_inputs,
)
from tinyaction.cli.parts import add_part_flags, joined, work_on_cluster, work_on_part
from tinyaction.data.annotations import VideoList, find_data
from tinyaction.data.segments import segment_name
from tinyaction.device import default_num_workers
from tinyaction.files import check_output, whole_file, write_whole
from tinyaction.inference.embedder import Embedder, Vector
from tinyaction.inference.inputs import OnSourceError, flat_sources
from tinyaction.prepare.parts import Records, Work
from tinyaction.video import VideoError


@dataclass
class Videos:
    """What to embed, N videos; of ``--data`` also their labels, (N,) numbers or, of several a video, (N, K) 0 or 1."""

    names: list[str]
    labels: npt.NDArray[Any] | None = None
    class_names: list[str] = field(default_factory=list)


@errors_to_exit_code
def main(argv: Sequence[str] | None = None) -> int:
    return run(parse_args(argv))


def run(arguments: argparse.Namespace, parts: Path | None = None) -> int:
    """``parts``: take the features from this folder, see :mod:`tinyaction.cli.join`."""
    path = Path(arguments.out)
    names_path = path.with_suffix(".txt")
    inputs = [*arguments.sources, *network_inputs(arguments), *([arguments.data] if arguments.data else [])]
    for output in [path] if path.suffix == ".npz" else [path, names_path]:
        check_output(output, flag="--out", inputs=inputs, force=arguments.force)
    videos = chosen_videos(arguments)
    check_clip_length(arguments, videos.names)
    if arguments.part:
        return work_on_part("embed", videos.names, arguments, partial(features_in_part, arguments))
    if arguments.cluster:
        parts = work_on_cluster("embed", videos.names, arguments, partial(features_in_part, arguments))
    records = joined("embed", videos.names, arguments, parts)
    bad: list[Exception] = []

    def leave_out(error: Exception) -> None:
        if not arguments.skip_errors:
            raise error
        bad.append(error)
        say(f"error: {error}", file=sys.stderr)

    rows, times, features = [], [], []
    for index, start, end, vector in (
        embed(load_embedder(arguments), videos.names, arguments, on_error=leave_out) if records is None else
        features_of_parts(records, videos.names, on_error=leave_out)
    ):
        rows.append(index)
        times.append((start, end))
        features.append(vector)
    if not features:
        raise ValueError(f"none of the {len(videos.names)} videos could be read")
    arrays: dict[str, Any] = {"features": np.stack(features), "names": np.array([videos.names[i] for i in rows])}
    if arguments.windows is not None:
        arrays |= {"start_seconds": np.array(times)[:, 0], "end_seconds": np.array(times)[:, 1]}
    if videos.labels is not None:
        arrays |= {"labels": videos.labels[rows], "class_names": np.array(videos.class_names)}
    write(path, names_path, arrays)
    what = "videos" if arguments.windows is None else f"windows of {len(videos.names)} videos"
    where = "" if path.suffix == ".npz" else f"; names in {names_path}"
    say(f"{path}: {len(features)} {what}, {arrays['features'].shape[1]} features each{where}")
    if bad:
        say(f"error: {len(bad)} of {len(videos.names)} videos could not be read", file=sys.stderr)
    return 2 if bad else 0


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="tinyaction embed", description=__doc__, allow_abbrev=False)
    parser.add_argument("sources", nargs="*", metavar="SOURCE", help="folders of videos, files, or quoted patterns")
    parser.add_argument("--data", help="in place of sources: all videos of a folder or list as for training; "
                        "a .npz file holds their labels, too")
    add_network_flags(parser)
    parser.add_argument("--windows", type=float, metavar="SECONDS", help="one vector for each window of this length")
    parser.add_argument("--stride", type=float, metavar="SECONDS",
                        help="from one window to the next; default the window itself")
    parser.add_argument("--num-workers", type=int, default=-1,
                        help="processes that decode; 0 decodes in the main process, -1 (default) starts one per core")
    parser.add_argument("--skip-errors", action="store_true",
                        help="go on after a video that cannot be read, name it, and leave it out")
    add_list_flags(parser)
    parser.add_argument("--out", default="features.npy",
                        help="FILE.npy, (N, F) float32, and the names in FILE.txt (default features.npy); or FILE.npz "
                        "with arrays features, names, start_seconds, end_seconds, labels, class_names; labels are "
                        "numbers, (N,), or of several a video 0 and 1, (N, K)")
    parser.add_argument("--force", action="store_true", help="replace output files that tinyaction wrote before")
    add_part_flags(parser)
    arguments = parser.parse_args(argv)
    if bool(arguments.sources) == bool(arguments.data):
        raise ValueError("name what to embed: either sources (files, folders, patterns) or --data")
    check_network_flags(arguments)
    check_at_least(1, arguments, "num_clips")
    check_at_least(-1, arguments, "num_workers")
    if arguments.stride is not None and arguments.windows is None:
        raise ValueError("--stride is for windows; say with --windows how many seconds one has")
    for name in ("windows", "stride"):
        value = getattr(arguments, name)
        if value is not None and not 0 < value < float("inf"):
            raise ValueError(f"--{name} is {value}; it must be above 0 seconds")
    if Path(arguments.out).suffix not in (".npy", ".npz"):
        raise ValueError(f"--out is {arguments.out}; it must end in .npy or .npz")
    if arguments.num_workers == -1:
        arguments.num_workers = default_num_workers()
    return arguments


def chosen_videos(arguments: argparse.Namespace) -> Videos:
    """The files to embed. Raises ValueError where one could not be named in a list of names."""
    if arguments.data:
        data = find_data(arguments.data, val_share=None, **list_flags(arguments))
        lists = [data.train, data.val] if data.is_split else [data.val]
        videos = Videos([name for part in lists for name in names_of(part)], np.concatenate(
            [part.labels if part.label_sets is None else part.label_sets for part in lists]), data.class_names)
    else:
        videos = Videos(list(map(str, flat_sources(arguments.sources))))
    broken = [name for name in videos.names if any(letter in name for letter in "\n\t")]
    if broken:
        raise ValueError(f"{broken[0]!r}: a name with a line break or a tab cannot stand in a list of names; rename "
                         "the file")
    return videos


def names_of(videos: VideoList) -> list[str]:
    """Paths of whole videos, or names of segments, by which an :class:`Embedder` opens them."""
    if videos.starts is None or videos.ends is None:
        return list(videos.paths())
    return list(map(segment_name, videos.paths(), videos.starts, videos.ends))


def embed(
    embedder: Embedder, names: Sequence[str], arguments: argparse.Namespace, *, on_error: OnSourceError
) -> Iterator[tuple[int, float, float, Vector]]:
    """(which video, start, end, features); without windows start and end mean nothing."""
    if arguments.windows is None:
        index = 0
        for name, vector in embedder.stream(list(names), num_workers=arguments.num_workers, on_error=on_error):
            index = names.index(name, index)                           # the next, but after videos left out
            yield index, 0.0, 0.0, vector
            index += 1
        return
    for index, name in enumerate(names):
        try:
            for start, end, vector in embedder.windows(name, window_seconds=arguments.windows,
                                                       stride_seconds=arguments.stride):
                yield index, start, end, vector
        except VideoError as error:
            on_error(error)


def features_in_part(arguments: argparse.Namespace) -> Work:
    """Yields (name, [[start, end, features], ...]) of videos, the features as text, or (name, {"bad": why})."""
    embedder = load_embedder(arguments)

    def work(names: Sequence[str]) -> Iterator[tuple[str, Any]]:
        bad: list[Exception] = []
        for index, group in groupby(embed(embedder, names, arguments, on_error=bad.append), key=lambda row: row[0]):
            yield names[index], [[start, end, base64.b64encode(vector.tobytes()).decode()]
                                 for _, start, end, vector in group]
        yield from ((error.path, {"bad": error.reason}) for error in bad if isinstance(error, VideoError))

    return work


def features_of_parts(
    records: Records, names: Sequence[str], *, on_error: OnSourceError
) -> Iterator[tuple[int, float, float, Vector]]:
    """As :func:`embed`."""
    for index, name in enumerate(names):
        if isinstance(records[name], dict):
            on_error(VideoError(name, records[name]["bad"]))
            continue
        for start, end, text in records[name]:
            yield index, start, end, np.frombuffer(base64.b64decode(text), np.float32)


def write(path: Path, names_path: Path, arrays: dict[str, Any]) -> None:
    if path.suffix == ".npz":
        with whole_file(path) as part, open(part, "wb") as file:
            np.savez(file, **arrays)
        return
    with whole_file(path) as part, open(part, "wb") as file:
        np.save(file, arrays["features"])
    lines = [str(name) for name in arrays["names"]]
    if "start_seconds" in arrays:
        lines = [f"{name}\t{start:.3f}\t{end:.3f}" for name, start, end in
                 zip(lines, arrays["start_seconds"], arrays["end_seconds"], strict=True)]
    write_whole(names_path, "".join(f"{line}\n" for line in lines))
