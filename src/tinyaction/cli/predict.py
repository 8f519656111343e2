"""``predict.py``: classes and scores of video files."""

from collections.abc import Sequence

from tinyaction.cli import Parser, errors_to_exit_code
from tinyaction.inference import Predictor


@errors_to_exit_code
def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="predict.py", description=__doc__, allow_abbrev=False)
    parser.add_argument("sources", nargs="+", help="video files")
    parser.add_argument("--checkpoint", required=True, help="best.pt or last.pt of a run")
    parser.add_argument("--num-clips", type=int, help="clips of a video; default as in the run")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps")
    arguments = parser.parse_args(argv)
    if arguments.num_clips is not None and arguments.num_clips < 1:
        raise ValueError(f"--num-clips is {arguments.num_clips}; it must be at least 1")
    predictor = Predictor(arguments.checkpoint, device=arguments.device, num_clips=arguments.num_clips)
    for source in arguments.sources:
        print(source)
        for name, score in predictor(source).top(5):
            print(f"  {score:6.3f}  {'#' * round(30 * score):<30}  {name}")
    return 0
