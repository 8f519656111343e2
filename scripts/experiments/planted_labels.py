"""Flip a share of the labels of a folder of classes, and see how many of them the audit shows first.

    python scripts/experiments/planted_labels.py --data clips/weizmann4 --weights mobilenet_v2_imagenet_features.pt \\
        --group-by 'p(\\d)_' --seeds 5

Prints, for each seed, how many of the flipped labels are among the first tenth of the clips: as the audit ranks them,
and as cleanlab 2.9 (pip install cleanlab, Apache 2.0) ranks them by the same probabilities, where it is installed.
"""

import argparse
import csv
import random
import tempfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

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
    parser.add_argument("--flip", type=float, default=0.5, help="0 where a mirrored clip is of another class")
    args = parser.parse_args(argv)
    classes = videos_by_class(Path(args.data).resolve())
    rows = [(str(path), name) for name in sorted(classes) for path in classes[name]]
    num_flips, num_shown = round(args.share * len(rows)), max(1, round(0.1 * len(rows)))
    num_found, num_by_peer = 0, 0
    temporary = tempfile.TemporaryDirectory(dir=Path(args.data).resolve().parent)  # features stay there for all seeds
    table = Path(temporary.name) / "flipped.csv"
    for seed in range(args.seeds):
        rng = random.Random(seed)
        flipped = set(rng.sample(range(len(rows)), num_flips))
        with open(table, "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("path", "label"), *(
                (path, rng.choice(sorted(set(classes) - {name})) if index in flipped else name)
                for index, (path, name) in enumerate(rows))])
        audit = audit_data(RunConfig(
            str(table), method="probe", model=args.model, weights=args.weights, size=args.size,
            clip_len=args.clip_len, pooling=args.pooling, group_by=args.group_by, allow_outside=True,
            flip=args.flip))
        names = {rows[index][0] for index in flipped}
        found = len(names & {str(Path(audit.path(doubt.index)).resolve()) for doubt in audit.doubts[:num_shown]})
        by_peer = ranked_by_cleanlab(audit.videos.labels, audit.scores)
        found_by_peer = len(names & {str(Path(audit.path(index)).resolve()) for index in by_peer[:num_shown]})
        num_found, num_by_peer = num_found + found, num_by_peer + found_by_peer
        print(f"seed {seed}: {found} of {num_flips} flipped labels among the first {num_shown} of {len(rows)} clips, "
              f"cleanlab {found_by_peer if by_peer else 'not installed'}; {len(audit.doubts)} labels doubted",
              flush=True)
    temporary.cleanup()
    print(f"recall {num_found / (num_flips * args.seeds):.3f}, cleanlab {num_by_peer / (num_flips * args.seeds):.3f}")
    return 0


def ranked_by_cleanlab(labels: Any, probabilities: Any) -> list[int]:
    """Places of the clips with an issue by cleanlab, then the others, each by its score; empty where it is missing."""
    try:
        filters, ranks = import_module("cleanlab.filter"), import_module("cleanlab.rank")
    except ImportError:
        return []
    is_issue = filters.find_label_issues(labels, probabilities)
    scores = ranks.get_label_quality_scores(labels, probabilities)
    return [int(index) for index in np.lexsort((scores, ~is_issue))]


if __name__ == "__main__":
    raise SystemExit(main())
