"""``export.py``: write the model of a checkpoint as ONNX, torch.export or TorchScript, checked against the original.

The exported model takes uint8 clips (B, V, C, T, H, W) of any B and gives scores (B, K); the normalization is inside.
"""

from collections.abc import Sequence
from pathlib import Path

from tinyaction.cli import Parser, errors_to_exit_code
from tinyaction.files import check_output
from tinyaction.inference.predictor import Predictor

NUM_CHECKED = 3  # videos on which the file is compared with the original


@errors_to_exit_code
def main(argv: Sequence[str] | None = None) -> int:
    from tinyaction.inference.export import SUFFIXES, TOLERANCE, check_format, export_model, generated_clips
    from tinyaction.inference.sources import list_videos

    parser = Parser(prog="export.py", description=__doc__, allow_abbrev=False)
    parser.add_argument("--checkpoint", required=True, help="best.pt or last.pt of a run")
    parser.add_argument("--format", required=True, choices=list(SUFFIXES), help="onnx needs the extra: export")
    parser.add_argument("--out", help="the file; default beside the checkpoint with the format's suffix")
    parser.add_argument("--check", nargs="+", metavar="SOURCE",
                        help="videos, folders or quoted patterns to compare on; default the run's own, where they "
                        f"are, else generated noise; at most {NUM_CHECKED} are used")
    parser.add_argument("--num-clips", type=int, help="clips of a video; default as in the run")
    parser.add_argument("--force", action="store_true", help="replace outputs that tinyaction wrote before")
    arguments = parser.parse_args(argv)
    check_format(arguments.format)
    if arguments.num_clips is not None and arguments.num_clips < 1:
        raise ValueError(f"--num-clips is {arguments.num_clips}; it must be at least 1")
    path = Path(arguments.out or Path(arguments.checkpoint).with_suffix(SUFFIXES[arguments.format]))
    if path.suffix != SUFFIXES[arguments.format]:
        raise ValueError(f"--out is {path}; a file of format {arguments.format} must end in "
                         f"{SUFFIXES[arguments.format]}")
    check_output(path, flag="--out", inputs=[arguments.checkpoint, *(arguments.check or ())], force=arguments.force)
    predictor = Predictor(arguments.checkpoint, device="cpu", num_clips=arguments.num_clips)
    sources = arguments.check
    if sources is None:
        data = Path(str(predictor.checkpoint.config.get("data", "")) or "?")
        sources = [data] if data.is_dir() else []
    videos = [video for source in sources for video in list_videos(source) or [source]]
    chosen = videos[:: max(1, len(videos) // NUM_CHECKED)][:NUM_CHECKED]
    clips = [predictor.inputs_of(video) for video in chosen] or generated_clips(predictor, num_clips=NUM_CHECKED)
    on = f"{len(chosen)} videos" if chosen else f"{len(clips)} generated clips (compare on real ones with --check)"
    difference = export_model(predictor, path, format=arguments.format, clips=clips)
    print(f"largest difference of a score on {on}: {difference:.1e} (accepted: {TOLERANCE:.0e})")
    print(f"written: {path}, {path.stat().st_size / 1e6:.1f} MB")
    return 0
