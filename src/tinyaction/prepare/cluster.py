"""A command's videos over the machines of a Ray cluster: :func:`cluster_work`.

Blocks of videos go through ``ray.data`` to actors, one for so many processors as a run on one machine uses; each loads
the network once and works as one machine does, so that a video that kills its process is named there, too. What a lost
machine was working on is done again by the others.
"""

import importlib
import json
import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tinyaction.prepare.parts import Work

OLDEST_RAY = (2, 30)
VIDEOS_PER_BLOCK = 8  # what is done again where a machine is lost
MAX_BLOCKS = 10_000


def cluster_work(make_work: Callable[[], Work], *, address: str, num_cpus: int, num_gpus: int = 0) -> Work:
    """The work of :func:`tinyaction.prepare.parts.run_part`, done on a cluster.

    Args:
        make_work: called once in every actor; what it names must be there on all machines, under the same path.
        address: "auto", the cluster that this machine belongs to, or "ray://HOST:PORT".
        num_cpus: processors of an actor; all of a machine that has fewer.

    Raises:
        ValueError: Ray is not installed, is too old, or does not answer; or what ``make_work`` and its work raise.
    """
    ray = _connected(address)

    def work(videos: Sequence[str]) -> Iterator[tuple[str, Any]]:
        machines = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]
        processors = max(1, min(num_cpus, int(max(machines))))
        actors = max(1, int(sum(number // processors for number in machines)))
        num_blocks = min(-(-len(videos) // VIDEOS_PER_BLOCK), MAX_BLOCKS)
        rows = [{"video": json.dumps(video)} for video in videos]      # ASCII, whatever the name of the file
        dataset = ray.data.from_items(rows, override_num_blocks=num_blocks).map_batches(
            Actor, fn_constructor_args=(make_work, os.getcwd()), batch_size=None, num_cpus=processors,
            num_gpus=num_gpus or None, compute=ray.data.ActorPoolStrategy(min_size=1, max_size=actors))
        for row in dataset.iter_rows():
            if row["error"]:
                raise ValueError(row["error"])
            video, record = json.loads(row["record"])
            yield video, record

    return work


class Actor:
    """Lives in a process of the cluster; is given blocks of videos."""

    def __init__(self, make_work: Callable[[], Work], folder: str) -> None:
        self.make_work, self.folder = make_work, folder
        self.work: Work | None = None

    def __call__(self, block: dict[str, Any]) -> dict[str, list[str]]:
        try:
            if self.work is None:
                os.chdir(self.folder)
                self.work = self.make_work()
            records = [json.dumps(pair) for pair in self.work([json.loads(video) for video in block["video"]])]
            return {"record": records, "error": [""] * len(records)}
        except (ValueError, OSError) as error:
            return {"record": [""], "error": [f"on {socket.gethostname()}: {error}"]}


def _connected(address: str) -> Any:
    if address != "auto" and not address.startswith("ray://"):
        raise ValueError(f"--cluster is {address}; it must be auto or ray://HOST:PORT")
    try:
        ray = importlib.import_module("ray")
        importlib.import_module("ray.data")
    except ImportError as error:
        raise ValueError(f"--cluster needs Ray ({error}); install it with: "
                         "pip install 'tinyaction[cluster]'") from None
    if tuple(map(int, ray.__version__.split(".")[:2])) < OLDEST_RAY:
        raise ValueError(f"--cluster needs Ray {'.'.join(map(str, OLDEST_RAY))} or newer, this is {ray.__version__}; "
                         "update it on all machines of the cluster")
    if not ray.is_initialized():
        try:
            ray.init(address=address, log_to_driver=False, logging_level="error")
        except (ConnectionError, RuntimeError, ValueError) as error:   # RuntimeError: another version answers
            reason = " ".join(str(error).split()).partition(". ")[0][:200]
            raise ValueError(f"--cluster is {address}: no Ray cluster can be used there ({reason}); start one with "
                             "'ray start --head', or name it with ray://HOST:PORT") from None
    logging.getLogger("ray.data").setLevel(logging.ERROR)              # else it tells of its plans on stderr
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    return ray
