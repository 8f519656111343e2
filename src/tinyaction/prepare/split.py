"""A new split of all videos of a folder or list, written as a CSV: :func:`write_new_split`."""

import os
from dataclasses import replace
from itertools import compress
from pathlib import Path

from tinyaction.data.annotations import find_data
from tinyaction.data.csv_lists import rarest_labels
from tinyaction.data.groups import Split, known_groups
from tinyaction.data.rows import Rows
from tinyaction.data.segments import write_segments


def write_new_split(
    source: str | Path, out: str | Path, *, by: str, val_share: float, seed: int = 0, group_by: str = "",
    allow_outside: bool = False, multi_label: bool = False,
) -> str:
    """Divide the training and validation videos anew, whatever split they had, and say what came out.

    Args:
        by: "group" keeps groups whole, those of a column "group" or of ``group_by``; "class" goes class by class.
            Segments of one video stay together in any case.

    Raises:
        ValueError: no groups are known, a class cannot be divided so, or what :func:`find_data` raises.
    """
    if not 0 < val_share < 1:
        raise ValueError(f"--val-share is {val_share}; it must be above 0 and below 1")
    data = find_data(source, val_share=None, allow_outside=allow_outside, group_by=group_by, keep_split=False,
                     multi_label=multi_label)
    videos = data.train.joined(data.val) if data.is_split else data.val
    is_by_group = by == "group" or videos.starts is not None
    if by == "group" and videos.groups is None and videos.starts is None:
        raise ValueError(f"{source}: no groups are known; name them with --group-by or in a column 'group', which "
                         "tinyaction audit --write-groups CSV proposes")
    groups = known_groups(videos) if is_by_group else None
    folder = Path(out).parent
    rows = [videos.row(index, data.class_names) for index in range(len(videos))]
    is_val = Split(val_share, seed, None).choose(rarest_labels(Rows.of(rows), Path(source)), groups, Path(source))
    write_segments(out, [
        replace(row, path=os.path.relpath(videos[index][0], folder).replace(os.sep, "/"),
                split="val" if is_val[index] else "train", group=row.group if groups is None else groups[index])
        for index, row in enumerate(rows)])
    of_groups = "" if groups is None else (
        f"; {len(set(compress(groups, is_val)))} of {len(set(groups))} groups are for validation")
    return f"{(~is_val).sum()} training and {is_val.sum()} validation videos{of_groups}"
