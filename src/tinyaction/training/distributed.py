"""Data-parallel training in several processes, started by torchrun: ranks and collectives.

Without torchrun there is one process, and the collectives return their input. torchrun handles several machines
(``--nnodes``, ``--rdzv-endpoint``). Each wait for other processes ends when one of them fails or is lost; see
:mod:`tinyaction.training.peers`.
"""

import math
import os
import pickle
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from tinyaction.data.shared_array import Offer, machine, take_offer
from tinyaction.training.peers import PeerFailedError, Peers, TrainingInterrupted, has_store_of_torchrun

T = TypeVar("T")

_peers: list[Peers] = []  # one, where there are several processes


def start_processes(device: torch.device) -> torch.device:
    """Join the process group of torchrun and return the device of this process. Without torchrun, do nothing."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return device
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    if dist.is_initialized():
        return device
    rank, num = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    store, signs = _connect(is_host=rank == 0 and not has_store_of_torchrun()), _connect()
    attempt = agree_on_attempt(store, rank, num)
    # Waits have no limit of their own: Peers ends them.
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=timedelta(days=1),
                            store=_named(attempt, store), rank=rank, world_size=num)
    _peers.append(Peers(_named(f"{attempt} signs of life", signs), rank, num))
    _peers[0].tell()
    return device


def _connect(*, is_host: bool = False) -> Any:  # a torch.distributed.Store
    """A connection to the store of all processes; without torchrun it is in rank 0."""
    return dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]),  # type: ignore[attr-defined]
                         is_master=is_host, wait_for_workers=False, multi_tenant=True)


def _named(prefix: str, store: Any) -> Any:
    return dist.PrefixStore(prefix, store)  # type: ignore[attr-defined]


def agree_on_attempt(store: Any, rank: int, num_processes: int, *, limit_seconds: float = 300) -> str:
    """Name this start of the processes; the keys in the store begin with it, in all of them alike.

    torchrun's store outlives its restarts: with the keys of the start before, gloo would call processes that ended.
    torchrun's own count of restarts is no such name: it stays where a machine joins or leaves (``--nnodes=1:4``), and
    two machines may count differently. So rank 0 makes a name up, and answers whoever asks for it.
    """
    own, until = uuid.uuid4().hex, time.monotonic() + limit_seconds
    if rank > 0:
        store.set(f"asking {rank}", own)
        attempt: str = store.get(f"answer to {own}").decode()
        store.set(f"{attempt} has {rank}", "")
        return attempt
    missing = set(range(1, num_processes))
    while missing:
        for other in sorted(missing):
            if store.check([f"{own} has {other}"]):
                missing.remove(other)
            elif store.check([f"asking {other}"]):                     # perhaps of a start before: nobody reads that
                store.set(f"answer to {store.get(f'asking {other}').decode()}", own)
        if time.monotonic() > until:
            raise ChildProcessError(f"rank {min(missing)} did not begin within {limit_seconds:g} s")
        time.sleep(0.01)
    return own


def stop_processes() -> None:
    if dist.is_available() and dist.is_initialized():
        for one in _peers:
            one.close()
        dist.destroy_process_group()
        _peers.clear()


def peers() -> Peers | None:
    """The other processes; None where there are none."""
    return _peers[0] if _peers else None


@contextmanager
def one_voice() -> Iterator[None]:
    """Let one process say why all of them end: the first that fails. The others raise PeerFailedError."""
    try:
        yield
    except PeerFailedError:
        raise
    except Exception as error:
        if _peers and not isinstance(error, TrainingInterrupted) and not _peers[0].fail(f"{error}"):
            raise PeerFailedError(f"{error}") from error
        raise


@contextmanager
def limit_of_waiting(seconds: float) -> Iterator[None]:
    """Inside the block, give up a process that gives no sign of life for so long."""
    try:
        for each in _peers:
            each.limit_seconds = seconds
        yield
    finally:
        for each in _peers:
            each.limit_seconds = math.inf


def rank() -> int:
    """Return the number of this process, from 0. Only rank 0, the main process, writes files."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def num_processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def wait(work: dist.Work | None, tensor: torch.Tensor) -> None:
    """Wait for the other processes in a collective on ``tensor``."""
    assert work is not None
    if _peers:
        _peers[0].wait(work, is_on_device=tensor.is_cuda)
    else:  # a process group that somebody else made
        work.wait()


def gather_objects(value: T) -> list[T]:
    """Collect an object of every process, by rank."""
    if num_processes() == 1:
        return [value]
    content = _pickled(value)
    sizes = [int(size) for (size,) in gather_numbers(len(content))]
    parts = [torch.empty(max(sizes), dtype=torch.uint8) for _ in sizes]
    padded = torch.nn.functional.pad(content, (0, max(sizes) - len(content)))
    wait(dist.all_gather(parts, padded, async_op=True), padded)
    return [pickle.loads(part[:size].numpy().tobytes()) for part, size in zip(parts, sizes, strict=True)]


def _pickled(value: object) -> torch.Tensor:
    return torch.frombuffer(bytearray(pickle.dumps(value)), dtype=torch.uint8)


def gather_numbers(*numbers: float) -> list[list[float]]:
    """Collect the numbers of every process, by rank."""
    if num_processes() == 1:
        return [list(numbers)]
    own = torch.tensor(numbers, dtype=torch.float64)
    parts = [torch.empty_like(own) for _ in range(num_processes())]
    wait(dist.all_gather(parts, own, async_op=True), own)
    return [part.tolist() for part in parts]


def gather_in_order(items: list[T]) -> list[T]:
    """Merge the items of all processes in the order in which they were dealt, one at a time in turn.

        rank 0: a c e, rank 1: b d   ->   a b c d e, in every process
    """
    parts = gather_objects(items)
    return [part[turn] for turn in range(max(map(len, parts))) for part in parts if turn < len(part)]


def all_reduce_sum(*numbers: float) -> list[float]:
    """Sum each number over all processes."""
    if num_processes() == 1:
        return list(numbers)
    total = torch.tensor(numbers, dtype=torch.float64)
    wait(dist.all_reduce(total, async_op=True), total)
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
    wait(dist.all_reduce(message, async_op=True), message)
    *sums, num_there = torch.split(message, [*(gradient.numel() for gradient in gradients), len(parameters)])
    for parameter, gradient, part, num in zip(parameters, gradients, sums, num_there.tolist(), strict=True):
        parameter.grad = gradient.copy_(part.view_as(gradient)) if num else None


def broadcast_from_main(value: T) -> T:
    """Broadcast an object from rank 0. Blocks until every rank has it."""
    if num_processes() == 1:
        return value
    content = _pickled(value if rank() == 0 else None)
    sizes = gather_numbers(len(content))
    if rank() > 0:
        content = torch.empty(int(sizes[0][0]), dtype=torch.uint8)
    wait(dist.broadcast(content, src=0, async_op=True), content)
    return value if rank() == 0 else pickle.loads(content.numpy().tobytes())


def main_process_first(function: Callable[[], T]) -> T:
    """Call a function in rank 0, then in the others: its first call writes files, later calls read them.
    """
    result = function() if rank() == 0 else None
    broadcast_from_main(None)  # barrier: the other ranks wait here
    return function() if result is None else result


def once_a_machine(function: Callable[[], T], arguments: object) -> T:
    """Call a function in rank 0, then in one process of each machine; the others there map the arrays that it made.

    ``arguments`` are what its result depends on: a process with others than the first of its machine calls it as well,
    so that a check sees both results.
    """
    result = function() if rank() == 0 else None
    if num_processes() == 1:
        assert result is not None
        return result
    broadcast_from_main(None)  # barrier: the other ranks wait here
    keys = gather_objects((machine(), arguments))
    first = keys.index(keys[rank()])
    address, offer = "", None
    if rank() == first:
        result = function() if result is None else result
        with suppress(OSError):  # a system without such memory
            offer = Offer(result) if keys.count(keys[first]) > 1 else None
            address = offer.address if offer else ""
    addresses = gather_objects(address)
    try:
        result = take_offer(addresses[first]) if result is None else result
    except OSError:  # not to be reached from here
        result = function()
    gather_objects(None)  # until all have it
    return result


def broadcast_state(model: nn.Module) -> None:
    """Copy weights and running statistics of rank 0 to every process.

    The weights agree already; running statistics of batch norms differ, because each process sees its own batches.
    """
    if num_processes() > 1:
        with torch.no_grad():
            for tensor in model.state_dict().values():
                wait(dist.broadcast(tensor, src=0, async_op=True), tensor)
