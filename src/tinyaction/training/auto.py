"""Which network a run trains where none is named, ``--model auto``: :func:`choose_model`."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from tinyaction.device import choose_device
from tinyaction.models.create import published_card
from tinyaction.models.hub import fetch_file
from tinyaction.models.weights import find_published
from tinyaction.prepare.synthetic import is_generated
from tinyaction.training.build import find_run_data
from tinyaction.training.config import RunConfig
from tinyaction.training.distributed import broadcast_from_main, rank, start_processes

GUIDE_MODEL = "conv2d"


@dataclass(frozen=True)
class Choice:
    """``device`` is the kind for which it is, "" for any; ``most_clips`` the training clips up to which it is."""

    device: str
    most_clips: float
    model: str
    weights: str
    reason: str


# The first that fits is taken. They are fetched without a further package; accuracies are published ones, of several
# views. VideoMAE's weights are CC-BY-NC and need the extra hub, so that they are only taken by name.
CHOICES = (
    Choice("cuda", math.inf, "mvit_v2_s", "kinetics", "80.8 % on Kinetics-400, 64 GFLOPs a clip: for a GPU"),
    Choice("", 1000, "x3d_s", "kinetics", "73.3 % on Kinetics-400, 2 GFLOPs a clip: for a CPU"),
    Choice("", math.inf, "x3d_xs", "kinetics", "69.1 % on Kinetics-400, 0.6 GFLOPs a clip: for many clips on a CPU"),
)


def choose_model(config: RunConfig, *, on_line: Callable[[str], None] | None = None) -> RunConfig:
    """Name the network of a run whose model is "auto": the guide's for the tutorial's and generated sets, else one of
    :data:`CHOICES` with its weights, or the guide's with ``weights="none"`` where they cannot be had.

    Raises ValueError or FileNotFoundError where the data cannot be found.
    """
    if config.model != "auto":
        return config
    if Path(config.data).name == "kinetics400_tiny" or is_generated(config.data):
        return replace(config, model=GUIDE_MODEL)
    device = start_processes(choose_device(config.device))
    num_clips = broadcast_from_main(_clips_of(config) if rank() == 0 else 0)
    choice = find_choice(device.type, num_clips)
    problem = broadcast_from_main(fetch_problem(choice) if rank() == 0 else "")
    line = f"--model auto: {choice.model} with {choice.weights} weights ({choice.reason}; {num_clips} training clips)"
    if problem:
        line = f"{line} is right here, but {problem}. {GUIDE_MODEL} is trained from scratch instead"
    if on_line is not None and rank() == 0:
        on_line(line)
    return replace(config, model=GUIDE_MODEL, weights="none") if problem else replace(
        config, model=choice.model, weights=choice.weights)


def _clips_of(config: RunConfig) -> int:
    """The number of training clips; training writes the split, and says so."""
    return len(find_run_data(config, config.data, keep_split=False).train)


def find_choice(device: str, num_clips: int) -> Choice:
    return next(one for one in CHOICES if one.device in ("", device) and num_clips <= one.most_clips)


def fetch_problem(choice: Choice) -> str:
    """Fetch the weights unless they are on this machine; returns why they cannot be had, or nothing."""
    from tinyaction.models.torchvision import VIDEO_NETS  # takes a second, and most runs name their network

    try:
        if choice.model in VIDEO_NETS:
            fetch_file(find_published(choice.model, choice.weights).url)
        else:
            card = published_card(choice.model, choice.weights)
            assert card is not None
            fetch_file(card.address)
    except (ValueError, OSError) as error:
        return str(error)
    return ""
