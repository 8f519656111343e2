"""A network of one number per video and batches that are made already, for tests that count the steps by hand."""

import torch
from torch import nn

from tinyaction.models import Recognizer, TemporalAverageHead
from tinyaction.sample import DataSample
from tinyaction.training.updater import Updater

CPU = torch.device("cpu")


class AsFloat(nn.Module):
    def forward(self, pixels):
        return pixels.float()


def tiny_model(num_classes: int = 2, **arguments) -> Recognizer:
    model = Recognizer(nn.Identity(), TemporalAverageHead(num_classes, 1, dropout=0, **arguments), AsFloat())
    nn.init.zeros_(model.cls_head.fc.weight)
    return model


def batch_of(*videos: tuple[float | list[float], int]) -> dict:
    """Videos (x, label); a list of x is a video of several views."""
    views = [x if isinstance(x, list) else [x] for x, _ in videos]
    samples = [DataSample(torch.tensor([label]), (1, 1), len(views[0]), 1, f"x={x}.mp4") for x, label in videos]
    return {"inputs": torch.tensor(views)[:, :, None, None, None, None], "data_samples": samples}


class FakeLoader(list):
    """Batches that are made already; remembers which epochs it was set to."""

    def __init__(self, *batches):
        super().__init__(batches)
        self.epochs = []

    def set_epoch(self, epoch):
        self.epochs.append(epoch)


def weights_of(model: Recognizer) -> list[float]:
    return model.cls_head.fc.weight.flatten().tolist() + model.cls_head.fc.bias.tolist()


def sgd(model: nn.Module, lr: float = 1.0, **arguments) -> Updater:
    """Plain SGD; ``arguments`` are those of the updater."""
    return Updater(torch.optim.SGD(model.parameters(), lr=lr), **arguments)


def random_videos(num_videos: int) -> list[tuple[torch.Tensor, int]]:
    generator = torch.Generator().manual_seed(0)
    return [(torch.randint(0, 256, (2, 3, 2, 16, 16), generator=generator, dtype=torch.uint8), i % 2)
            for i in range(num_videos)]


def loader_of(videos: list[tuple[torch.Tensor, int]], batch_size: int) -> FakeLoader:
    batches = [videos[i : i + batch_size] for i in range(0, len(videos), batch_size)]
    return FakeLoader(*({"inputs": torch.stack([pixels for pixels, _ in batch]),
                         "data_samples": [DataSample(torch.tensor([label]), (16, 16), 2, 2) for _, label in batch]}
                        for batch in batches))
