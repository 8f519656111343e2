"""Seconds that --cluster takes where nothing is to be done, on a Ray cluster of two nodes on this machine.

    python scripts/experiments/cluster_overhead.py --videos 16 2000
"""

import argparse
import importlib
import os
import time
from collections.abc import Iterator, Sequence
from typing import Any

from tinyaction.cli import Parser, errors_to_exit_code
from tinyaction.prepare.cluster import cluster_work
from tinyaction.prepare.parts import Work


def make_nothing() -> Work:
    def work(videos: Sequence[str]) -> Iterator[tuple[str, Any]]:
        return ((video, {}) for video in videos)
    return work


@errors_to_exit_code
def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, nargs="+", default=[16, 2000])
    arguments = parser.parse_args(argv)
    small: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 150_000_000}
    ray, utils = importlib.import_module("ray"), importlib.import_module("ray.cluster_utils")
    cluster = utils.Cluster(initialize_head=True, head_node_args=small)
    cluster.add_node(**small)
    os.environ["RAY_ADDRESS"] = cluster.address
    for num_videos in arguments.videos:
        videos = [f"clip_{number:08}.mp4" for number in range(num_videos)]
        began = time.monotonic()
        num_done = sum(1 for _ in cluster_work(make_nothing, address="auto", num_cpus=1)(videos))
        seconds = time.monotonic() - began
        print(f"{num_done} videos: {seconds:.1f} s, {1000 * seconds / num_videos:.1f} ms a video", flush=True)
    ray.shutdown()
    cluster.shutdown()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
