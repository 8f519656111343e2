"""Data-parallel training in several processes, started by torchrun: ranks and collectives.

Without torchrun there is one process, and the collectives return their input. torchrun handles several machines
(``--nnodes``, ``--rdzv-endpoint``).
"""

import os
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn

T = TypeVar("T")


def start_processes(device: torch.device) -> torch.device:
    """Join the process group of torchrun and return the device of this process. Without torchrun, do nothing."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        return device
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    # The other ranks wait while rank 0 makes a store; torchrun itself notices a process that dies.
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=timedelta(days=1))
    return device


def stop_processes() -> None:
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    """Return the number of this process, from 0. Only rank 0, the main process, writes files."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def num_processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather_in_order(items: list[T]) -> list[T]:
    """Merge the items of all processes in the order in which they were dealt, one at a time in turn.

        rank 0: a c e, rank 1: b d   ->   a b c d e, in every process
    """
    if num_processes() == 1:
        return items
    parts: list[list[T]] = [[] for _ in range(num_processes())]
    dist.all_gather_object(parts, items)
    return [part[turn] for turn in range(max(map(len, parts))) for part in parts if turn < len(part)]


def all_reduce_sum(*numbers: float) -> list[float]:
    """Sum each number over all processes."""
    if num_processes() == 1:
        return list(numbers)
    total = torch.tensor(numbers, dtype=torch.float64)
    dist.all_reduce(total)
    return total.tolist()


def all_reduce_gradients(model: nn.Module) -> None:
    """Sum the gradient of each trained parameter over all processes.

    A gradient that is None in some processes counts as 0 there; one that is None in all stays None.
    """
    if num_processes() == 1:
        return
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    gradients = [torch.zeros_like(parameter) if parameter.grad is None else parameter.grad for parameter in parameters]
    is_there = gradients[0].new_tensor([parameter.grad is not None for parameter in parameters])
    message = torch.cat([*(gradient.flatten() for gradient in gradients), is_there])  # sent as one message
    dist.all_reduce(message)
    *sums, num_there = torch.split(message, [*(gradient.numel() for gradient in gradients), len(parameters)])
    for parameter, gradient, part, num in zip(parameters, gradients, sums, num_there.tolist(), strict=True):
        parameter.grad = gradient.copy_(part.view_as(gradient)) if num else None


def broadcast_from_main(value: T) -> T:
    """Broadcast an object from rank 0. Blocks until every rank has it."""
    if num_processes() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def main_process_first(function: Callable[[], T]) -> T:
    """Call a function in rank 0, then in the others: its first call writes files, later calls read them.
    """
    result = function() if rank() == 0 else None
    broadcast_from_main(None)  # barrier: the other ranks wait here
    return function() if result is None else result


def broadcast_state(model: nn.Module) -> None:
    """Copy weights and running statistics of rank 0 to every process.

    The weights agree already; running statistics of batch norms differ, because each process sees its own batches.
    """
    if num_processes() > 1:
        with torch.no_grad():
            for tensor in model.state_dict().values():
                dist.broadcast(tensor, src=0)
