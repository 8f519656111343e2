"""torchvision's video networks as they were published: with their Kinetics classifiers, class names and input."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tinyaction.models.create import check_input, check_name, create_model
from tinyaction.models.heads import AverageClips
from tinyaction.models.model_card import ModelCard, PublishedModel
from tinyaction.models.recognizer import Recognizer
from tinyaction.models.torchvision import VIDEO_NETS
from tinyaction.models.weights import LoadedWeights, find_published, load_weights, published_weights

FRAMES_PER_SECOND = 30  # of Kinetics' videos, in which frame intervals count

# Billions of multiply-adds of one view. torchvision counts clips of 16 frames; these were evaluated with longer ones.
GFLOPS = {"s3d": 143.827, "swin3d_t": 87.764, "swin3d_s": 165.682, "swin3d_b": 281.333}


@dataclass(frozen=True)
class Evaluation:
    """How torchvision measured the accuracy of its weights, by their description."""

    clip_len: int
    frame_interval: int
    num_clips: int


def load_torchvision(
    name: str, *, weights: str | Path = "kinetics", clip_len: int | None = None, size: int | None = None,
    average_clips: AverageClips = "prob", max_views: int = 0,
) -> Recognizer:
    """Load a video network of torchvision with its published classifier, in evaluation mode.

    Its ``published`` has the class names and the clips to give it; pixels are normalized as its weights ask for.

    Args:
        name: such as "r3d_18", "mvit_v2_s" or "swin3d_t".
        weights: "kinetics", torchvision's own word such as "KINETICS400_IMAGENET22K_V1", or a file with the same
            tensors; what is not there is fetched and kept by torch.hub.
        clip_len, size: other clips than the published ones.
        average_clips, max_views: see :class:`TemporalAverageHead` and :class:`Recognizer`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an unknown name, no network, clips that it cannot take, or a file without its classifier.
    """
    check_name(name)
    if name not in VIDEO_NETS:
        raise ValueError(f"{name} is no video network of torchvision; these are {', '.join(VIDEO_NETS)}")
    chosen = find_published(name, str(weights)) or published_weights(name)[0]
    class_names = tuple(chosen.meta["categories"])
    card = card_of(name, chosen)
    clip_len, size = clip_len or card.clip_len, size or card.size
    check_input(name, clip_len=clip_len, size=size)
    model = create_model(name, len(class_names), average_clips=average_clips, max_views=max_views)
    loaded = load_weights(model, name, weights)
    check_classifier(loaded, len(class_names))
    model.published = PublishedModel(name, {}, class_names, clip_len, card.frame_interval, size,
                                     card.short_side * size // card.size, loaded.source)
    return model.eval()


def check_classifier(loaded: LoadedWeights, num_classes: int) -> None:
    """Raise ValueError for a file with the backbone but without a classifier for the published classes."""
    holes = [name for name in loaded.missing if name.startswith("cls_head.")]
    if holes:
        raise ValueError(f"{loaded.source} has no classifier for the {num_classes} published classes: "
                         f"{' and '.join(holes)} are missing or of another size; create_model(..., weights=...) takes "
                         "the backbone alone")


# ---------------------------------------------------------------------------------------------------------------------
# what is published
# ---------------------------------------------------------------------------------------------------------------------

@cache
def torchvision_cards() -> tuple[ModelCard, ...]:
    """Make a card from torchvision's metadata for each set of weights, the best of a network first."""
    return tuple(card_of(name, weights) for name in VIDEO_NETS for weights in published_weights(name))


def card_of(name: str, weights: Any) -> ModelCard:
    meta, recipe, evaluation = weights.meta, weights.transforms(), read_evaluation(weights)
    (accuracy,) = meta["_metrics"].values()
    height = recipe.resize_size[0]
    return ModelCard(
        name=name, arguments={}, dataset="kinetics", num_classes=len(meta["categories"]),
        clip_len=evaluation.clip_len, frame_interval=evaluation.frame_interval, size=recipe.crop_size[0],
        short_side=height, test_size=recipe.crop_size[0], mean=tuple(round(255 * value, 6) for value in recipe.mean),
        std=tuple(round(255 * value, 6) for value in recipe.std), licence="not stated", top1=accuracy["acc@1"],
        top5=accuracy["acc@5"], views=f"{evaluation.num_clips} clip{'s' if evaluation.num_clips > 1 else ''}",
        source=f"torchvision, {weights}", num_parameters=meta["num_params"], gflops=GFLOPS.get(name, meta["_ops"]),
        address=weights.url,
        least_clip_len=meta.get("min_temporal_size", 1), least_size=max(meta["min_size"]),
        exact_clip_len=name.startswith("mvit"), exact_size=name.startswith("mvit"),
        notes=() if len(recipe.resize_size) == 1 else (
            f"torchvision resizes to {height}x{recipe.resize_size[1]} pixels whatever the shape of a frame; by its "
            f"short side alone it keeps its shape and loses more at the sides",))


def read_evaluation(weights: Any) -> Evaluation:
    """Read frame_rate, clips_per_video and clip_len from the description of torchvision's weights."""
    numbers = dict(re.findall(r"(frame_rate|clips_per_video|clip_len)=([\d.]*\d)", weights.meta["_docs"]))
    return Evaluation(clip_len=int(numbers["clip_len"]), num_clips=int(numbers["clips_per_video"]),
                      frame_interval=round(FRAMES_PER_SECOND / float(numbers["frame_rate"])))
