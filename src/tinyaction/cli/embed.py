"""One feature vector a video, as a ``.npy`` file with the names beside it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tinyaction.cli import Parser, check_at_least, errors_to_exit_code
from tinyaction.cli.network import (
    add_network_flags,
    check_clip_length,
    check_network_flags,
    load_predictor,
    network_inputs,
)
from tinyaction.files import check_output, whole_file, write_whole


@errors_to_exit_code
def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="tinyaction embed", description=__doc__, allow_abbrev=False)
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help="folders of videos, files, or quoted patterns")
    add_network_flags(parser)
    parser.add_argument("--out", default="features.npy",
                        help="(N, F) float32; the names go into the same name with .txt (default features.npy)")
    parser.add_argument("--force", action="store_true", help="replace output files that tinyaction wrote before")
    arguments = parser.parse_args(argv)
    check_network_flags(arguments)
    check_at_least(1, arguments, "num_clips")
    path = Path(arguments.out)
    names_path = path.with_suffix(".txt")
    if path.suffix != ".npy":
        raise ValueError(f"--out is {path}; it must end in .npy")
    for output in (path, names_path):
        check_output(output, flag="--out", inputs=[*arguments.sources, *network_inputs(arguments)],
                     force=arguments.force)
    check_clip_length(arguments, arguments.sources)
    predictor = load_predictor(arguments, device=arguments.device)
    features, names = predictor.embed(arguments.sources)
    broken = [name for name in names if "\n" in name]
    if broken:
        raise ValueError(f"{broken[0]!r}: a name with a line break cannot stand in a list of names; rename the file")
    with whole_file(path) as part, open(part, "wb") as file:
        np.save(file, features)
    write_whole(names_path, "".join(f"{name}\n" for name in names))
    print(f"{path}: {len(features)} videos of {features.shape[1]} features; names in {names_path}")
    return 0
