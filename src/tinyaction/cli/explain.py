"""``explain.py``: where in the frames a network found its class (Grad-CAM), as a picture and a video."""

from collections.abc import Sequence
from pathlib import Path

from tinyaction.cli import Parser, errors_to_exit_code
from tinyaction.files import check_output
from tinyaction.inference.predictor import Predictor


@errors_to_exit_code
def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="explain.py", description=__doc__, allow_abbrev=False)
    parser.add_argument("source", metavar="VIDEO", help="a video file")
    parser.add_argument("--checkpoint", required=True, help="best.pt or last.pt of a run")
    parser.add_argument("--class", dest="class_name", help="the class to look for; default the predicted one")
    parser.add_argument("--out", help="the picture; the video has the same name with .mp4 (default "
                        "NAME_explained.png in this folder)")
    parser.add_argument("--num-frames", type=int, default=6, help="frames on the picture (default 6)")
    parser.add_argument("--no-video", action="store_true", help="only the picture")
    parser.add_argument("--num-clips", type=int, help="clips of the video; default as in the run")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps")
    parser.add_argument("--force", action="store_true", help="replace outputs that tinyaction wrote before")
    arguments = parser.parse_args(argv)
    for name in ("num_clips", "num_frames"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} is {value}; it must be at least 1")
    picture = Path(arguments.out or f"{Path(arguments.source).stem}_explained.png")
    if picture.suffix.lower() != ".png":
        raise ValueError(f"--out is {picture}; it must end in .png")
    for output in [picture] if arguments.no_video else [picture, picture.with_suffix(".mp4")]:
        check_output(output, flag="--out", inputs=[arguments.source, arguments.checkpoint], force=arguments.force)

    from tinyaction.inference.explain import explain, explanation_sheet, explanation_video
    from tinyaction.results.sheets import write_png

    predictor = Predictor(arguments.checkpoint, device=arguments.device, num_clips=arguments.num_clips)
    explanation = explain(predictor, arguments.source, class_name=arguments.class_name)
    print(f"{explanation.source}: {explanation.label} {explanation.score:.3f}")
    write_png(picture, explanation_sheet(explanation, num_frames=arguments.num_frames))
    print(picture)
    if not arguments.no_video:
        video = explanation_video(explanation, predictor, picture.with_suffix(".mp4"))
        print(f"{video.path}: {video.players}")
    return 0
