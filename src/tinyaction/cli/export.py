"""Write the model of a checkpoint as ONNX, torch.export or TorchScript, and check it.

The exported model takes uint8 clips (B, V, C, T, H, W) of any B and gives scores (B, K); the normalization is inside.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from tinyaction.cli import Parser, check_at_least, errors_to_exit_code, say
from tinyaction.cli.network import add_network_flags, check_network_flags, load_predictor, network_inputs
from tinyaction.files import check_output
from tinyaction.inference.export import SUFFIXES, TOLERANCE, check_format, export_model, generated_clips
from tinyaction.inference.predictor import Predictor
from tinyaction.inference.sources import list_videos

NUM_CHECKED = 3  # videos on which the file is compared with the original


@errors_to_exit_code
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_args(argv)
    check_format(arguments.format)
    suffix = SUFFIXES[arguments.format]
    path = Path(arguments.out or default_path(arguments, suffix))
    if path.suffix != suffix:
        raise ValueError(f"--out is {path}; a file of format {arguments.format} must end in {suffix}")
    check_output(path, flag="--out", inputs=[*network_inputs(arguments), *(arguments.check or ())],
                 force=arguments.force)
    predictor = load_predictor(arguments, device="cpu")
    videos = _videos_to_check(predictor, arguments.check)
    clips = [predictor.inputs_of(video) for video in videos] or generated_clips(predictor, num_clips=NUM_CHECKED)
    on = f"{len(videos)} videos" if videos else f"{len(clips)} generated clips (compare on real ones with --check)"
    difference = export_model(predictor, path, format=arguments.format, clips=clips)
    say(f"largest difference of a score on {on}: {difference:.1e} (accepted: {TOLERANCE:.0e})")
    say(f"written: {path}, {path.stat().st_size / 1e6:.1f} MB")
    return 0


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="tinyaction export", description=__doc__, allow_abbrev=False)
    add_network_flags(parser, has_device=False)
    parser.add_argument("--format", required=True, choices=list(SUFFIXES), help="onnx needs the extra: export")
    parser.add_argument("--out", help="the file; default beside the checkpoint with the format's suffix, of a "
                        "published network NAME with it in this folder")
    parser.add_argument("--check", nargs="+", metavar="SOURCE",
                        help="videos, folders or quoted patterns to compare on; default the run's own, where they "
                        f"are, else generated noise; at most {NUM_CHECKED} are used")
    parser.add_argument("--force", action="store_true", help="replace a file that tinyaction wrote before")
    arguments = parser.parse_args(argv)
    check_network_flags(arguments)
    check_at_least(1, arguments, "num_clips")
    return arguments


def default_path(arguments: argparse.Namespace, suffix: str) -> Path:
    """runs/a -> runs/a/best.onnx; videomae-base -> videomae-base.onnx"""
    if arguments.model:
        return Path(Path(arguments.model).name + suffix)
    checkpoint = Path(arguments.checkpoint)
    return (checkpoint / "best.pt" if checkpoint.is_dir() else checkpoint).with_suffix(suffix)


def _videos_to_check(predictor: Predictor, sources: Sequence[str] | None) -> list[str | Path]:
    """A few videos of the sources, else of the run's own data; none where that is not here."""
    if sources is None:
        data = str(predictor.checkpoint.config.get("data", ""))
        sources = [data] if data and Path(data).is_dir() else []
    videos = [video for source in sources for video in list_videos(source) or [Path(source)]]
    return videos[:: max(1, len(videos) // NUM_CHECKED)][:NUM_CHECKED]
