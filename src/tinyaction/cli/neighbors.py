"""The labelled clips that are most like a video, as a network sees them: what it may confuse the video with."""

import argparse
import json
import sys
from collections.abc import Sequence

from tinyaction.cli import Parser, add_list_flags, check_at_least, errors_to_exit_code, list_flags, say
from tinyaction.cli.network import add_network_flags, check_network_flags
from tinyaction.device import choose_device, default_num_workers
from tinyaction.inference.inputs import flat_sources
from tinyaction.models.pretrained import load_encoder
from tinyaction.results.neighbors import ClipLibrary, Neighbor
from tinyaction.results.plots import shortened
from tinyaction.text import printable


@errors_to_exit_code
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_args(argv)
    clips = [str(source) for source in flat_sources(arguments.sources)]
    device = choose_device(arguments.device)
    network = arguments.checkpoint or load_encoder(arguments.model, weights=arguments.weights,
                                                   clip_len=arguments.clip_len, size=arguments.size)
    is_terminal = sys.stderr.isatty()

    def count(done: int, total: int) -> None:
        if is_terminal:
            print(f"\rfeatures {done}/{total}", end="\n" if done == total else "", file=sys.stderr, flush=True)

    library = ClipLibrary.build(network, arguments.data, device=str(device), num_workers=arguments.num_workers,
                                on_video=count, **list_flags(arguments))
    for note in library.notes:
        say(f"note: {note}", file=sys.stderr)
    for clip, found in zip(clips, library.nearest(clips, num=arguments.num), strict=True):
        print(as_json(clip, found) if arguments.json else printable(as_table(clip, found)))
    return 0


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="tinyaction neighbors", description=__doc__, allow_abbrev=False)
    parser.add_argument("sources", nargs="+", metavar="VIDEO", help="video files, folders of videos, quoted patterns")
    add_network_flags(parser)
    parser.add_argument("--data", default="", help="a folder or list of labelled clips, of which the training clips "
                        "are searched; default that of the run")
    parser.add_argument("-n", "--num", type=int, default=5, help="clips to show of each video (default 5)")
    parser.add_argument("--json", action="store_true", help="one JSON object a video and line")
    parser.add_argument("--num-workers", type=int, default=-1,
                        help="processes that decode; 0 decodes in the main process, -1 (default) starts one per core")
    add_list_flags(parser)
    arguments = parser.parse_args(argv)
    check_network_flags(arguments)
    check_at_least(1, arguments, "num")
    check_at_least(-1, arguments, "num_workers")
    if arguments.model and not arguments.data:
        raise ValueError("--model has no clips of its own to search; name labelled clips with --data")
    if arguments.num_workers == -1:
        arguments.num_workers = default_num_workers()
    return arguments


def as_table(clip: str, found: Sequence[Neighbor]) -> str:
    lines = [f"{one.similarity:>7.3f}  {shortened(one.class_name, 24):<24}  {shortened(one.filename, 44)}"
             for one in found]
    return "\n".join([clip, *lines])


def as_json(clip: str, found: Sequence[Neighbor]) -> str:
    return json.dumps({"source": clip, "neighbors": [
        {"path": one.filename, "class": one.class_name, "similarity": round(one.similarity, 6)} for one in found]})
