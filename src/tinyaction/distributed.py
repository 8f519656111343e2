"""Several processes on one training, started by torchrun: which of them this is, and what they tell each other.

Without torchrun there is one process, and everything here is a plain answer for one. Several machines are torchrun's
own matter (``--nnodes``, ``--rdzv-endpoint``); only the ranks are seen here.
"""

import os
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn

Thing = TypeVar("Thing")


def start_processes(device: torch.device) -> torch.device:
    """Meet the other processes that torchrun started; returns the device of this one. Without torchrun: nothing."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        return device
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    # The others wait while the first makes a store; a process that dies is noticed by torchrun, not by this limit.
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=timedelta(days=1))
    return device


def stop_processes() -> None:
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    """Number of this process, from 0. Process 0 is the one that writes."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def num_processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def dealt_back(mine: list[Thing]) -> list[Thing]:
    """The things of all processes in the order in which they were dealt out: one each, around and around.

        rank 0: a c e, rank 1: b d   ->   a b c d e, in every process
    """
    if num_processes() == 1:
        return mine
    hands: list[list[Thing]] = [[] for _ in range(num_processes())]
    dist.all_gather_object(hands, mine)
    return [hand[turn] for turn in range(max(map(len, hands))) for hand in hands if turn < len(hand)]


def summed(*numbers: float) -> list[float]:
    """Each number summed over all processes."""
    if num_processes() == 1:
        return list(numbers)
    total = torch.tensor(numbers, dtype=torch.float64)
    dist.all_reduce(total)
    return total.tolist()


def from_first(thing: Thing) -> Thing:
    """What process 0 has, in every process; the others wait for it here."""
    if num_processes() == 1:
        return thing
    things = [thing]
    dist.broadcast_object_list(things, src=0)
    return things[0]


def first_before_others(do: Callable[[], Thing]) -> Thing:
    """Do it in process 0, then in the others: for what makes files on its first call and finds them later."""
    result = do() if rank() == 0 else None
    from_first(None)  # the others wait here
    return do() if result is None else result


def share_state(model: nn.Module) -> None:
    """Give every process the weights and running statistics of process 0.

    Weights agree already; the running statistics of batch norms do not, since each process saw batches of its own.
    """
    if num_processes() > 1:
        with torch.no_grad():
            for tensor in model.state_dict().values():
                dist.broadcast(tensor, src=0)
