"""Load published networks by name, with weights, class names and input."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from tinyaction.models.heads import AverageClips
from tinyaction.models.hub import NetworkFiles, find_files
from tinyaction.models.model_card import ModelCard, PublishedModel
from tinyaction.models.openmmlab_video import find_kind, translate
from tinyaction.models.recognizer import Recognizer, VideoPreprocessor
from tinyaction.models.weights import fill, kinetics400_names

# Modules with PUBLISHED, build, convert and check_input; those of the hub also have MODEL_TYPES and read_config.
FAMILIES = ("videomae", "timesformer", "vjepa2", "x3d", "slowfast")


def load_published(
    name_or_folder: str | Path,
    *,
    weights: str | Path | None = None,
    num_classes: int | None = None,
    clip_len: int | None = None,
    size: int | None = None,
    average_clips: AverageClips = "prob",
    max_views: int = 0,
) -> Recognizer:
    """:func:`tinyaction.models.pretrained.load_pretrained` for all networks but torchvision's, arguments as there.

    The frame interval is that of the published weights of the same network with as many classes, where there are such.
    """
    if num_classes is not None and num_classes < 2:
        raise ValueError(f"num_classes is {num_classes}; a classifier needs at least two")
    card, where = resolve(name_or_folder, None if weights is None else str(weights))
    files = find_files(where)
    if card and files.is_one_file and types().get(str(files.config.get("model_type"))) is not family_of(card.name):
        files = replace(files, config={}, processor={})                # of something else in the same folder
    name, arguments = describe_network(files, card)
    rule = read_input(files, card or cards_of(name)[0], arguments, clip_len=clip_len, size=size)
    family_of(name).check_input(arguments, clip_len=rule.clip_len, size=rule.size)
    names = () if num_classes else class_names(files)                  # before the tensors, which take their time
    tensors = read_network(files, name, arguments, rule)
    num_published = len(tensors.state["cls_head.fc.weight"]) if "cls_head.fc.weight" in tensors.state else 0
    if num_classes is None and num_published:
        names = _check_classes(files, names, num_published) or _names_without_config(where, rule, num_published)
    build = partial(family_of(name).build, num_classes=num_classes or num_published or 2, mean=tensors.mean,
                    std=tensors.std, average_clips=average_clips, max_views=max_views, **tensors.arguments)
    state = {key: tensor for key, tensor in tensors.state.items()
             if not (num_classes and key.startswith("cls_head.fc."))}
    is_new = num_classes is not None or not num_published
    model = fill(build, state, name=name, source=files.source, new_classifier=is_new)
    if num_classes is None and not num_published:
        raise ValueError(f"{files.source} has no classifier, it is pretrained alone; say num_classes for a new one")
    model.data_preprocessor = VideoPreprocessor(tensors.mean, tensors.std)  # built without memory, as all else
    alike = next((known for known in cards_of(name) if known.num_classes == num_published), None)
    model.published = PublishedModel(name, tensors.arguments, names, rule.clip_len,
                                     alike.frame_interval if alike else None, rule.size, rule.short_side,
                                     files.source, antialias=tensors.is_of_hub)
    return model.eval()


@dataclass(frozen=True)
class NetworkTensors:
    """Tensors by our names, and the network that gives the published scores with them.

    ``is_of_hub``: the processors of the hub resize with antialiasing.
    """

    state: Mapping[str, torch.Tensor]
    arguments: Mapping[str, Any]
    mean: Sequence[float]
    std: Sequence[float]
    is_of_hub: bool


def read_network(files: NetworkFiles, name: str, arguments: Mapping[str, Any], rule: ModelCard) -> NetworkTensors:
    """Read the tensors of a published file, of a checkpoint of MMAction2, or of a state dict of tinyaction."""
    family, tensors = family_of(name), files.read_tensors()
    kind = find_kind(tensors)
    if kind:
        found = translate(tensors, source=files.source)
        if found.family != family.__name__.rpartition(".")[2]:
            raise ValueError(f"{files.source} is MMAction2's {kind}, which {name} is not")
        arguments, tensors = found.arguments, found.state
        rule = replace(rule, mean=found.mean, std=found.std)
    state = tensors if "cls_head.fc.weight" in tensors else family.convert(tensors)
    return NetworkTensors(state, arguments, rule.mean, rule.std,
                          is_of_hub=hasattr(family, "MODEL_TYPES") and not kind)


def _check_classes(files: NetworkFiles, names: tuple[str, ...], num_published: int) -> tuple[str, ...]:
    """Return the names; ValueError where the file has a classifier of another number of classes."""
    if names and len(names) != num_published:
        raise ValueError(f"{files.source}: its config.json names {len(names)} classes, its classifier has "
                         f"{num_published}; one of the files is of another network")
    return names


def _names_without_config(where: str, rule: ModelCard, num_classes: int) -> tuple[str, ...]:
    """Return class names for a file without config.json: those of Kinetics where it is known to be, else numbers."""
    is_published = Path(where).name == Path(rule.address).name         # or brought by hand under its name
    is_kinetics = is_published and rule.dataset == "kinetics" and num_classes == 400
    return kinetics400_names() if is_kinetics else tuple(map(str, range(num_classes)))


def create_published(
    name: str,
    num_classes: int,
    *,
    weights: str | None = None,
    arguments: Mapping[str, Any] | None = None,
    dropout: float = 0.0,
    average_clips: AverageClips = "prob",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    max_views: int = 0,
) -> Recognizer:
    """Make a network by name with a new classifier; the rest is freshly initialised or has published weights.

    Args:
        weights: see :func:`tinyaction.models.pretrained.load_pretrained`.
        arguments: of the family's ``build``, as a checkpoint carries them; default those of the name.

    The rest is as for :func:`tinyaction.create_model`.
    """
    card = cards_of(name)[0]
    if weights is not None:
        model = load_published(name, weights=weights, num_classes=num_classes, average_clips=average_clips,
                                max_views=max_views).train()
        model.cls_head.dropout.p = dropout
        own = model.data_preprocessor
        assert isinstance(own, VideoPreprocessor)
        model.data_preprocessor = VideoPreprocessor(own.mean.flatten().tolist() if mean is None else mean,
                                                    own.std.flatten().tolist() if std is None else std)
        return model
    arguments = dict(card.arguments if arguments is None else arguments)
    model = family_of(name).build(
        num_classes=num_classes, dropout=dropout, average_clips=average_clips, max_views=max_views,
        mean=card.mean if mean is None else mean, std=card.std if std is None else std, **arguments)
    model.published = PublishedModel(
        name, arguments, (), arguments.get("clip_len", card.clip_len), card.frame_interval,
        arguments.get("size", card.size), card.short_side, source="")
    return model


# ---------------------------------------------------------------------------------------------------------------------
# names
# ---------------------------------------------------------------------------------------------------------------------

@cache
def families() -> tuple[ModuleType, ...]:
    """Import the modules of all families."""
    return tuple(import_module(f"tinyaction.models.{name}") for name in FAMILIES)


def types() -> dict[str, ModuleType]:
    """Map every known ``model_type`` of a config.json to the module of its family."""
    return {kind: family for family in families() for kind in getattr(family, "MODEL_TYPES", ())}


def all_cards() -> list[ModelCard]:
    """List the cards of all families; the first card of a name is its default."""
    return [card for family in families() for card in family.PUBLISHED]


def cards_of(name: str) -> list[ModelCard]:
    """Find the cards of a network. Raises ValueError for an unknown name, with the nearest ones."""
    cards = [card for card in all_cards() if card.name == name]
    if not cards:
        known = sorted({card.name for card in all_cards()})
        raise ValueError(f"network {name!r} is not known; did you mean "
                         f"{' or '.join(get_close_matches(name, known, n=3) or known)}?")
    return cards


def family_of(name: str) -> ModuleType:
    """Return the module that builds the network of that name."""
    return next(family for family in families() if any(card.name == name for card in family.PUBLISHED))


def resolve(name_or_folder: str | Path, weights: str | None) -> tuple[ModelCard | None, str]:
    """Return the named card and the place of its weights; no card if the folder's config.json has to tell.

    A string that names a network means the network, even if a folder has that name; a ``Path`` means the folder.
    """
    name = str(name_or_folder)
    is_name = not isinstance(name_or_folder, Path) and any(card.name == name for card in all_cards())
    if not is_name and (name.startswith("hub:") or Path(name).is_dir()):
        if weights is not None:
            raise ValueError(f"weights is {weights!r} beside {name}, which brings its own; name the network instead")
        return next((card for card in all_cards() if card.address == name), None), name
    cards = cards_of(name)
    if weights is None:
        return cards[0], cards[0].address
    card = next((card for card in cards if card.dataset == weights), None)
    if card is not None:
        return card, card.address
    if not weights.startswith("hub:") and not Path(weights).exists():
        words = " and ".join(card.dataset for card in cards)
        raise ValueError(f"{name} has no weights {weights!r}: published are {words}; or name hub:OWNER/NAME, a folder "
                         "or a file")
    return cards[0], weights


# ---------------------------------------------------------------------------------------------------------------------
# what the files say
# ---------------------------------------------------------------------------------------------------------------------

def describe_network(files: NetworkFiles, card: ModelCard | None) -> tuple[str, dict[str, Any]]:
    """Return the name of the network in the files and the arguments of its family's ``build``.

    Raises:
        ValueError: the configuration is of no family here, or not of the network of ``card``.
    """
    if card is not None and not files.config:
        return card.name, dict(card.arguments)
    kind = str(files.config.get("model_type", ""))
    family = types().get(kind)
    if family is None:
        raise ValueError(f"{files.source}: its config.json is of model_type {kind!r}; known are "
                         f"{', '.join(types())}")
    try:
        arguments = family.read_config(files.config)
        family.check_input(arguments, clip_len=arguments["clip_len"], size=arguments["size"])
    except ValueError as error:
        raise ValueError(f"{files.source}: its config.json does not fit: {error}") from None
    names = {known.name: known for known in family.PUBLISHED}
    if card is None:
        return min(names, key=lambda name: sum(
            arguments.get(key) != value for key, value in names[name].arguments.items())), arguments
    if family is not family_of(card.name):
        raise ValueError(f"{files.source}: its config.json is of model_type {kind!r}, which {card.name} is not")
    for key in ("embed_dim", "depth"):
        if card.arguments.get(key, arguments[key]) != arguments[key]:
            raise ValueError(f"{files.source}: its config.json has {key} {arguments[key]}, {card.name} has "
                             f"{card.arguments[key]}; name the folder alone to take it as it is")
    return card.name, arguments


def read_input(
    files: NetworkFiles, card: ModelCard, arguments: Mapping[str, Any], *, clip_len: int | None, size: int | None
) -> ModelCard:
    """Replace a card's input by that of the files, or by the given ``clip_len`` and ``size``.

    The ratio of short side to square is the processor's. Mean and std are of pixels 0..255.
    """
    square = arguments.get("size", card.test_size) if size is None else size
    short, crop, mean, std = card.short_side, card.test_size, card.mean, card.std
    if files.processor:
        try:
            short, crop, mean, std = _read_processor(files.processor, card)
        except (TypeError, ValueError, ZeroDivisionError) as error:
            raise ValueError(f"{files.source}: the file of its processor does not fit: {error}") from None
    return replace(card, clip_len=arguments.get("clip_len", card.clip_len) if clip_len is None else clip_len,
                   size=square, mean=mean, std=std, short_side=square * short // crop, test_size=square)


def _read_processor(
    processor: Mapping[str, Any], card: ModelCard
) -> tuple[int, int, Sequence[float], Sequence[float]]:
    """Short side and square in pixels, mean and std of pixels 0..255; the card's where the processor has none."""
    crop = _side(processor.get("crop_size")) or card.test_size
    short = _side(processor.get("size")) or crop
    scale = processor.get("rescale_factor", 1 / 255) if processor.get("do_rescale", True) else 1.0
    if not processor.get("do_normalize", True):
        return short, crop, (0.0,) * 3, (round(1 / scale, 4),) * 3
    mean, std = (None if processor.get(key) is None else tuple(round(value / scale, 4) for value in processor[key])
                 for key in ("image_mean", "image_std"))
    if any(values is not None and len(values) != 3 for values in (mean, std)):
        raise ValueError("its image_mean and image_std must be of three colours")
    return short, crop, mean or card.mean, std or card.std


def _side(size: Any) -> int:
    """Read a side in pixels, in any of the processors' formats; 0 if it is missing."""
    if isinstance(size, Mapping):
        size = size.get("shortest_edge") or size.get("height")
    return int(size or 0)


def class_names(files: NetworkFiles) -> tuple[str, ...]:
    """Read the class names in the order of their numbers; empty without any."""
    labels = files.config.get("id2label") or {}
    if not isinstance(labels, Mapping) or sorted(labels) != sorted(map(str, range(len(labels)))):
        raise ValueError(f"{files.source}: the id2label of its config.json must name classes '0', '1' and so on")
    return tuple(str(labels[str(number)]) for number in range(len(labels)))
