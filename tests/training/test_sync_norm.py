"""Batch norms over all processes: what one process computes on the videos of all."""

import os
import socket

import pytest
import torch
from ranks import processes
from torch import nn

from tinyaction.training.distributed import all_reduce_gradients, start_processes, stop_processes
from tinyaction.training.sync_norm import synchronize_norms

PARTS = [slice(0, 2), slice(2, 5)]  # of five videos: two processes have two and three


def small_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.BatchNorm3d(3), nn.Conv3d(3, 4, 2), nn.BatchNorm3d(4, momentum=None), nn.ReLU(),
                         nn.Flatten(), nn.Linear(4 * 2 * 3 * 3, 2), nn.BatchNorm1d(2))


def videos() -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(1)
    return (torch.randn(5, 3, 3, 4, 4, generator=random) * 2 + 1,
            torch.randn(5, 2, generator=random))


def step(net: nn.Module, x: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs, and the gradient of the inputs, of a loss that is the sum over videos."""
    x = x.clone().requires_grad_()
    y = net(x)
    (y * target).sum().backward()
    assert x.grad is not None
    return y.detach(), x.grad


def be_rank(rank: int, port: int, folder: str) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    start_processes(torch.device("cpu"))
    x, target = videos()
    net = small_net()
    synchronize_norms(net)
    found = [step(net, x[PARTS[rank]], target[PARTS[rank]]) for _ in range(2)]
    all_reduce_gradients(net)
    torch.save((found, [parameter.grad for parameter in net.parameters()], net.state_dict()), f"{folder}/{rank}.pt")
    stop_processes()


@pytest.mark.parametrize("num_ranks", [2])
def test_two_processes_normalize_as_one_on_all_videos(num_ranks, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = [processes.Process(target=be_rank, args=(rank, port, str(tmp_path))) for rank in range(num_ranks)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(60)
    assert [process.exitcode for process in ranks] == [0, 0]
    net = small_net()
    expected = [step(net, *videos()) for _ in range(2)]
    for part, (found, gradients, state) in zip(PARTS, (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)),
                                               strict=True):
        for (y, x_grad), (whole_y, whole_x_grad) in zip(found, expected, strict=True):
            torch.testing.assert_close(y, whole_y[part], rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(x_grad, whole_x_grad[part], rtol=1e-4, atol=1e-5)
        for gradient, parameter in zip(gradients, net.parameters(), strict=True):
            torch.testing.assert_close(gradient, parameter.grad, rtol=1e-4, atol=1e-5)
        for name, value in net.state_dict().items():
            torch.testing.assert_close(state[name], value, rtol=1e-5, atol=1e-6)


def test_alone_it_is_an_ordinary_batch_norm():
    nets = small_net(), small_net()
    synchronize_norms(nets[0])
    for ours, theirs in zip(step(nets[0], *videos()), step(nets[1], *videos()), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert nets[0].state_dict().keys() == nets[1].state_dict().keys()
    assert torch.equal(nets[0].eval()(videos()[0]), nets[0](videos()[0]))
