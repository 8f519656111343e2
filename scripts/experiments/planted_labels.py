"""Flip a share of the labels of a folder of classes, and see how many of them the audit shows first.

    python scripts/experiments/planted_labels.py --data clips/weizmann4 --weights mobilenet_v2_imagenet_features.pt \\
        --group-by 'p(\\d)_' --seeds 5

Prints, for each seed, how many of the flipped labels are among the first tenth of the clips that the audit ranks.
"""

import argparse
import csv
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tinyaction.audit.audit import audit_data
from tinyaction.cli import Parser, errors_to_exit_code
from tinyaction.data.class_folders import videos_by_class
from tinyaction.training.config import RunConfig


@errors_to_exit_code
def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("--data", required=True, help="folder of class folders")
    parser.add_argument("--weights", required=True, help="pretrained weights of the network")
    parser.add_argument("--model", default="tsn-mobilenet_v2")
    parser.add_argument("--group-by", default="", help="clips with the same match are held out together")
    parser.add_argument("--share", type=float, default=0.05, help="of the labels that are flipped (default 0.05)")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--clip-len", type=int, default=8)
    parser.add_argument("--pooling", default="stats")
    args = parser.parse_args(argv)
    classes = videos_by_class(Path(args.data).resolve())
    rows = [(str(path), name) for name in sorted(classes) for path in classes[name]]
    num_flips, num_shown = round(args.share * len(rows)), max(1, round(0.1 * len(rows)))
    num_found = 0
    for seed in range(args.seeds):
        rng = random.Random(seed)
        flipped = set(rng.sample(range(len(rows)), num_flips))
        with tempfile.TemporaryDirectory(dir=Path(args.data).resolve().parent) as folder:
            table = Path(folder) / "flipped.csv"
            with open(table, "w", encoding="utf-8", newline="") as file:
                csv.writer(file).writerows([("path", "label"), *(
                    (path, rng.choice(sorted(set(classes) - {name})) if index in flipped else name)
                    for index, (path, name) in enumerate(rows))])
            audit = audit_data(RunConfig(
                str(table), method="probe", model=args.model, weights=args.weights, size=args.size,
                clip_len=args.clip_len, pooling=args.pooling, group_by=args.group_by, allow_outside=True))
        shown = {audit.path(doubt.index) for doubt in audit.doubts[:num_shown]}
        found = len(shown & {rows[index][0] for index in flipped})
        num_found += found
        print(f"seed {seed}: {found} of {num_flips} flipped labels among the first {num_shown} of {len(rows)} clips; "
              f"{len(audit.doubts)} labels doubted", flush=True)
    print(f"recall {num_found / (num_flips * args.seeds):.3f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
