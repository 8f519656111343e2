"""The network of a command: a checkpoint of a run, or a published network by its name."""

import argparse
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

from tinyaction.cli import check_at_least, say
from tinyaction.data.clip_length import clip_length_notes
from tinyaction.data.lists import VideoList
from tinyaction.inference.embedder import Embedder
from tinyaction.inference.predictor import Predictor
from tinyaction.inference.sources import list_videos
from tinyaction.models.checkpoint import Checkpoint, checkpoint_file, checkpoint_of, load_model
from tinyaction.models.pretrained import load_pretrained
from tinyaction.models.recognizer import Recognizer
from tinyaction.places import is_place, size_and_version


def add_network_flags(parser: argparse.ArgumentParser, *, has_device: bool = True) -> None:
    """--checkpoint, or --model with --weights, --clip-len and --size; --num-clips and --device."""
    parser.add_argument("--checkpoint", help="the folder of a run, or a best.pt or last.pt in it")
    parser.add_argument("--num-clips", type=int, help="clips of a video; default as in the run")
    if has_device:
        parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps")
    group = parser.add_argument_group("a published network in place of a checkpoint")
    group.add_argument("--model", metavar="NAME", help="such as videomae-base, `tinyaction models` lists them; or a "
                       "folder or hub:OWNER/NAME with a config.json")
    group.add_argument("--weights", metavar="W", help="a word such as kinetics, hub:OWNER/NAME, a folder, or a file; "
                       "default the first that is published")
    group.add_argument("--clip-len", type=int, help="frames of a clip; default as published")
    group.add_argument("--size", type=int, help="side of the square in pixels; default as published")


def check_network_flags(arguments: argparse.Namespace) -> None:
    """Raise ValueError unless the flags name one network."""
    if arguments.checkpoint and arguments.model:
        raise ValueError(f"--checkpoint {arguments.checkpoint} and --model {arguments.model} exclude each other; give "
                         "the checkpoint of a run, or the name of a published network")
    if not arguments.checkpoint and not arguments.model:
        raise ValueError("no network is given; name the checkpoint of a run with --checkpoint, or a published network "
                         "with --model")
    for name in ("weights", "clip_len", "size"):
        if getattr(arguments, name) is not None and not arguments.model:
            raise ValueError(f"--{name.replace('_', '-')} is for a published network; name it with --model")
    check_at_least(1, arguments, "clip_len", "size")


def network_inputs(arguments: argparse.Namespace) -> list[str]:
    """What the network is read from, which no output may replace."""
    return [name for name in (arguments.checkpoint, arguments.weights, arguments.model) if name]


def check_clip_length(arguments: argparse.Namespace, sources: Sequence[str]) -> None:
    """Say where clips of ``--clip-len`` repeat frames of the videos; ValueError where most of a clip would."""
    if arguments.clip_len:
        files = [str(video) for source in sources for video in list_videos(source) or [Path(source)]]
        for note in clip_length_notes(arguments.clip_len, VideoList(files, [0] * len(files))):
            say(f"note: {note}", file=sys.stderr)


def network_digest(arguments: argparse.Namespace) -> str:
    """Of the file that the network is read from; "" of a published network's name, and of commands without one."""
    for name in filter(None, (getattr(arguments, "checkpoint", ""), getattr(arguments, "weights", ""))):
        path = checkpoint_file(name)
        if is_place(path):
            return "-".join(map(str, size_and_version(path)))
        if path.is_file():
            with open(path, "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
    return ""


def load_network(arguments: argparse.Namespace) -> tuple[Recognizer, Checkpoint]:
    """The network in evaluation mode on the CPU, and what a checkpoint knows of it."""
    if arguments.checkpoint:
        return load_model(arguments.checkpoint)
    model = load_pretrained(arguments.model, weights=arguments.weights, clip_len=arguments.clip_len,
                            size=arguments.size)
    return model, checkpoint_of(model)


def load_embedder(arguments: argparse.Namespace) -> Embedder:
    """The network for its features alone: also one on frames, or published without a classifier."""
    if arguments.checkpoint:
        return Embedder(arguments.checkpoint, device=arguments.device, num_clips=arguments.num_clips)
    return Embedder.from_pretrained(arguments.model, weights=arguments.weights, clip_len=arguments.clip_len,
                                    size=arguments.size, device=arguments.device, num_clips=arguments.num_clips)


def load_predictor(arguments: argparse.Namespace, *, device: str, tells_unknown: bool = True) -> Predictor:
    """The network with the clips of ``--num-clips``, ready to predict on a device."""
    if arguments.checkpoint:
        return Predictor(arguments.checkpoint, device=device, num_clips=arguments.num_clips,
                         tells_unknown=tells_unknown)
    return Predictor.from_pretrained(arguments.model, weights=arguments.weights, clip_len=arguments.clip_len,
                                     size=arguments.size, device=device, num_clips=arguments.num_clips)
