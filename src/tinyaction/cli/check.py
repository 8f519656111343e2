"""Decode every video of a folder to its end and say what is wrong: with files, with lists, between the splits."""

import csv
import io
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tinyaction.cli import Parser, errors_to_exit_code
from tinyaction.cli.progress import CountLine
from tinyaction.data.annotations import DataFolder, find_data
from tinyaction.device import default_num_workers
from tinyaction.files import check_output, write_whole
from tinyaction.prepare.check import Check, check_data, clean_lines, summary

CACHE = ".check.jsonl"


@errors_to_exit_code
def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 1 where something was found."""
    parser = Parser(prog="tinyaction check", description=__doc__, allow_abbrev=False)
    parser.add_argument("--data", required=True, help="folder of the videos and their lists")
    parser.add_argument("--clip-len", type=int, default=8, help="frames of a clip; shorter is told (default 8)")
    parser.add_argument("--num-workers", type=int, default=default_num_workers(), help="files that are read at once")
    parser.add_argument("--video-timeout", type=float, default=60.0, help="seconds for one file (default 60)")
    parser.add_argument("--allow-outside", action="store_true", help="lists may name videos outside the folder")
    parser.add_argument("--again", action="store_true", help=f"forget what was found before (in {CACHE})")
    parser.add_argument("--json", action="store_true", help="print all of it as JSON")
    parser.add_argument("--write-clean", action="store_true", help="write lists without the bad files, as LIST.clean")
    parser.add_argument("--force", action="store_true", help="replace outputs that tinyaction wrote before")
    args = parser.parse_args(argv)
    for name, least in (("clip_len", 1), ("num_workers", 1)):
        if getattr(args, name) < least:
            raise ValueError(f"--{name.replace('_', '-')} is {getattr(args, name)}; it must be at least {least}")
    data = find_data(args.data, allow_outside=args.allow_outside)
    if args.write_clean:
        for path in clean_paths(data, Path(args.data)):
            check_output(path, flag="--write-clean", force=args.force)
    cache: Path | None = Path(args.data) / CACHE
    if not os.access(args.data, os.W_OK):
        cache = None
    elif args.again:
        (Path(args.data) / CACHE).unlink(missing_ok=True)
    line = CountLine()
    check = check_data(data, clip_len=args.clip_len, num_workers=args.num_workers, video_timeout=args.video_timeout,
                       cache=cache, on_file=lambda done, total: line("videos checked", done, total))
    line.clear()
    if args.json:
        print(json.dumps({**summary(check), "list": [asdict(finding) for finding in check.findings],
                          "files": [asdict(result) for result in check.files.values()]}, indent=2))
    else:
        print("\n".join(report_lines(check, args.data)))
    if args.write_clean:
        for text in write_clean(data, check, Path(args.data)):
            print(text, file=sys.stderr if args.json else sys.stdout)
    return 1 if check.findings else 0


def report_lines(check: Check, folder: str) -> list[str]:
    """At most 80 columns wide but for paths."""
    facts = summary(check)
    lines = [f"{facts['num_readable']} of {facts['num_files']} videos can be read to their end"]
    if facts["frames"]:
        lines.append("frames of a video: {least} to {most}, median {median}".format(**facts["frames"]))
    for title, name in (("sizes", "sizes"), ("frames per second", "frames_per_second")):
        counts = list(facts[name].items())
        shown = ", ".join(f"{value} ({count})" for value, count in counts[:5])
        lines.append(f"{title}: {shown}" + (f" and {len(counts) - 5} more" if len(counts) > 5 else ""))
    width = min(40, max(len(name) for name in facts["classes"]))
    lines.append(f"{'class':<{width}}  train    val")
    lines += [f"{name[:width]:<{width}} {count['train']:>6} {count['val']:>6}" for name, count in
              facts["classes"].items()]
    if not check.findings:
        return [*lines, "nothing wrong was found"]
    for kind, count in facts["findings"].items():
        lines += ["", f"{kind}: {count}"]
        for finding in [finding for finding in check.findings if finding.kind == kind][:20]:
            names = " = ".join(os.path.relpath(path, folder) for path in finding.paths)
            lines.append("  " + ": ".join(part for part in (names, finding.text) if part))
        if count > 20:
            lines.append(f"  and {count - 20} more; --json lists all")
    return lines


def clean_paths(data: DataFolder, folder: Path) -> list[Path]:
    """``LIST.clean`` beside each list, or ``split.csv.clean`` where there are none."""
    if Path(data.train.source).suffix == ".txt":
        return [Path(f"{videos.source}.clean") for videos in (data.train, data.val)]
    return [folder / "split.csv.clean"]


def write_clean(data: DataFolder, check: Check, folder: Path) -> list[str]:
    """Write the files of :func:`clean_paths`; returns what to say."""
    said = []
    kept = {split: clean_lines(videos, check) for split, videos in (("train", data.train), ("val", data.val))}
    paths = clean_paths(data, folder)
    if len(paths) == 2:
        for path, split, videos in zip(paths, kept, (data.train, data.val), strict=True):
            write_whole(path, "".join(f"{name} {label}\n" for name, label in kept[split]))
            said.append(f"{path}: {len(kept[split])} of {len(videos)} lines")
        return said
    (path,) = paths
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["path", "label", "split"])
    for split, lines in kept.items():
        for name, label in lines:  # of class folders the names begin with the folder, in tables they do not
            writer.writerow([Path(name).relative_to(folder) if Path(name).is_relative_to(folder) else name,
                             data.class_names[label], split])
    write_whole(path, table.getvalue())
    return [f"{path}: {sum(map(len, kept.values()))} of {len(data.train) + len(data.val)} videos"]
