"""Where in the frames a network found its class (Grad-CAM), as a picture and a video."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from tinyaction.cli import Parser, check_at_least, errors_to_exit_code, say
from tinyaction.cli.network import (
    add_network_flags,
    check_clip_length,
    check_network_flags,
    load_predictor,
    network_inputs,
)
from tinyaction.files import check_output
from tinyaction.inference.explain import check_one_video, explain, explanation_sheet, explanation_video
from tinyaction.results.sheets import write_png


@errors_to_exit_code
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_args(argv)
    picture = Path(arguments.out or f"{Path(arguments.source).stem}_explained.png")
    video = picture.with_suffix(".mp4")
    if picture.suffix.lower() != ".png":
        raise ValueError(f"--out is {picture}; it must end in .png")
    for output in [picture] if arguments.no_video else [picture, video]:
        check_output(output, flag="--out", inputs=[arguments.source, *network_inputs(arguments)],
                     force=arguments.force)
    check_one_video(arguments.source)
    check_clip_length(arguments, [arguments.source])
    predictor = load_predictor(arguments, device=arguments.device)
    explanation = explain(predictor, arguments.source, class_name=arguments.class_name)
    say(f"{explanation.source}: {explanation.label} {explanation.score:.3f}")
    write_png(picture, explanation_sheet(explanation, num_frames=arguments.num_frames))
    say(str(picture))
    if not arguments.no_video:
        written = explanation_video(explanation, predictor, video, replace=arguments.force)
        say(f"{written.path}: {written.players}")
    return 0


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="tinyaction explain", description=__doc__, allow_abbrev=False)
    parser.add_argument("source", metavar="VIDEO", help="a video file")
    add_network_flags(parser)
    parser.add_argument("--class", dest="class_name", help="the class to look for; default the predicted one")
    parser.add_argument("--out", help="the picture; the video has the same name with .mp4 (default "
                        "NAME_explained.png in this folder)")
    parser.add_argument("--force", action="store_true", help="replace output files that tinyaction wrote before")
    parser.add_argument("--num-frames", type=int, default=6, help="frames on the picture (default 6)")
    parser.add_argument("--no-video", action="store_true", help="only the picture")
    arguments = parser.parse_args(argv)
    check_network_flags(arguments)
    check_at_least(1, arguments, "num_clips", "num_frames")
    return arguments
