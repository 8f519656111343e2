"""Decode every video of a folder to its end and say what is wrong: with files, with lists, between the splits."""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from tinyaction.cli import (
    Parser,
    add_list_flags,
    check_at_least,
    errors_to_exit_code,
    list_flags,
    num_workers_of,
    say,
)
from tinyaction.cli.parts import add_part_flags, joined, work_on_cluster, work_on_part
from tinyaction.cli.progress import CountLine
from tinyaction.data.annotations import CLEAN_FILE, DataFolder, find_data
from tinyaction.data.segments import write_segments
from tinyaction.files import check_output
from tinyaction.prepare.check import Check, CheckedFile, check_data, check_files, clean_places, listed_files, summary
from tinyaction.prepare.parts import Work
from tinyaction.text import shell_line

CACHE = ".check.jsonl"


@errors_to_exit_code
def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 1 where something was found."""
    return run(parse_args(argv))


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="tinyaction check", description=__doc__, allow_abbrev=False)
    parser.add_argument("--data", required=True, help="folder of the videos and their lists")
    parser.add_argument("--clip-len", type=int, default=8, help="frames of a clip; shorter is told (default 8)")
    parser.add_argument("--num-workers", type=int, default=-1, help="processes that read one file each, 0 and 1 are "
                        "one; -1 (default) starts one per core")
    parser.add_argument("--video-timeout", type=float, default=60.0, help="seconds for one file (default 60)")
    add_list_flags(parser)
    parser.add_argument("--again", action="store_true", help=f"forget what was found before (in {CACHE})")
    parser.add_argument("--json", action="store_true", help="print all of it as JSON")
    parser.add_argument("--write-clean", action="store_true",
                        help=f"write {CLEAN_FILE} into the folder: the lists without the bad videos")
    parser.add_argument("--drop-concealed", action="store_true",
                        help="with --write-clean: without files of concealed damage, too; they can be trained on")
    parser.add_argument("--force", action="store_true", help="replace outputs that tinyaction wrote before")
    add_part_flags(parser)
    args = parser.parse_args(argv)
    check_at_least(1, args, "clip_len")
    args.num_workers = num_workers_of(args.num_workers)
    if not args.video_timeout > 0:
        raise ValueError(f"--video-timeout is {args.video_timeout:g}; it must be above 0 seconds")
    return args


def run(args: argparse.Namespace, parts: Path | None = None) -> int:
    """``parts``: take what was found of each file from this folder, see :mod:`tinyaction.cli.join`."""
    data = find_data(args.data, keep_split=False, **list_flags(args))
    folder = data.folder or Path(args.data)
    if args.write_clean:
        check_output(folder / CLEAN_FILE, flag="--write-clean", inputs=[args.data], force=args.force)
    if args.part:
        return work_on_part("check", listed_files(data), args, partial(files_in_part, args))
    if args.cluster:
        parts = work_on_cluster("check", listed_files(data), args, partial(files_in_part, args))
    records = joined("check", listed_files(data), args, parts)
    known = None if records is None else {path: CheckedFile(**record) for path, record in records.items()}
    cache = folder / CACHE if known is None and os.access(folder, os.W_OK) else None
    if cache is not None and args.again:
        cache.unlink(missing_ok=True)
    line = CountLine()
    check = check_data(data, clip_len=args.clip_len, num_workers=args.num_workers, video_timeout=args.video_timeout,
                       cache=cache, known=known, on_file=lambda done, total: line("videos checked", done, total))
    line.clear()
    if args.json:
        print(json.dumps({**summary(check), "list": [asdict(finding) for finding in check.findings],
                          "files": [asdict(result) for result in check.files.values()]}, indent=2))
    else:
        say("\n".join(report_lines(check, str(folder), data.unused_files())))
    if args.write_clean:
        for text in write_clean(data, check, folder, args):
            say(text, file=sys.stderr if args.json else sys.stdout)
    return 1 if check.findings else 0


def files_in_part(args: argparse.Namespace) -> Work:
    def work(paths: Sequence[str]) -> Iterator[tuple[str, Any]]:
        for result in check_files(paths, num_workers=args.num_workers, video_timeout=args.video_timeout):
            yield result.path, asdict(result)

    return work


def report_lines(check: Check, folder: str, unused_files: str = "") -> list[str]:
    """At most 80 columns wide but for paths."""
    facts = summary(check)
    concealed = f", {facts['num_concealed']} of them with concealed damage" if facts["num_concealed"] else ""
    lines = [f"{facts['num_readable']} of {facts['num_files']} videos can be read to their end{concealed}"]
    if facts["frames"]:
        lines.append("frames of a video: {least} to {most}, median {median}".format(**facts["frames"]))
    for title, name in (("sizes", "sizes"), ("frames per second", "frames_per_second")):
        counts = list(facts[name].items())
        shown = ", ".join(f"{'unknown' if value == '0' else value} ({count})" for value, count in counts[:5])
        lines.append(f"{title}: {shown}" + (f" and {len(counts) - 5} more" if len(counts) > 5 else ""))
    width = min(40, max(len(name) for name in facts["classes"]))
    lines.append(f"{'class':<{width}}  train    val")
    lines += [f"{name[:width]:<{width}} {count['train']:>6} {count['val']:>6}" for name, count in
              facts["classes"].items()]
    lines += [unused_files] if unused_files else []
    if not check.findings:
        return [*lines, "nothing wrong was found"]
    for kind, count in facts["findings"].items():
        lines += ["", f"{kind}: {count}"]
        for finding in [finding for finding in check.findings if finding.kind == kind][:20]:
            names = " = ".join(_shown(path, folder) for path in finding.paths)
            lines.append("  " + ": ".join(part for part in (names, finding.text) if part))
        if count > 20:
            lines.append(f"  and {count - 20} more; --json lists all")
    return lines


def _shown(path: str, folder: str) -> str:
    try:
        return os.path.relpath(path, folder)
    except ValueError:  # another drive of Windows
        return path


def write_clean(data: DataFolder, check: Check, folder: Path, args: argparse.Namespace) -> list[str]:
    """Write ``clean.csv`` into the folder: the lists without what is wrong, all their columns; returns what to say."""
    rows = []
    for split, videos in (("train", data.train), ("val", data.val)):
        for index in clean_places(videos, check, drop_concealed=args.drop_concealed):
            place = Path(os.path.normpath(videos[index][0]))
            inside = place.relative_to(folder) if place.is_relative_to(folder) else place
            rows.append(replace(videos.row(index, data.class_names), path=inside.as_posix(), split=split))
    path = folder / CLEAN_FILE
    write_segments(path, rows)
    command = shell_line("tinyaction", "train", "--data", path, *["--multi-label"] * data.is_multi_label)
    return [f"{path}: {len(rows)} of {len(data.train) + len(data.val)} videos; train with: {command}"]
