"""Load published networks by name; their modules are imported on the first call."""

from pathlib import Path

from tinyaction.models.heads import AverageClips
from tinyaction.models.model_card import PublishedModel
from tinyaction.models.recognizer import Recognizer


def load_pretrained(
    name_or_folder: str | Path,
    *,
    weights: str | Path | None = None,
    num_classes: int | None = None,
    clip_len: int | None = None,
    size: int | None = None,
    average_clips: AverageClips = "prob",
    max_views: int = 0,
) -> Recognizer:
    """Load a published network in evaluation mode; its ``published`` has class names and input.

        model = load_pretrained("videomae-base", weights="kinetics")
        Predictor(model)("clip.mp4").top(3)

    Args:
        name_or_folder: a network's name such as "videomae-base", "x3d_s" or torchvision's "r3d_18"; or, with a
            ``config.json`` that describes the network, a folder or "hub:OWNER/NAME".
        weights: only with a name: a data set ("kinetics", "kinetics600", "ssv2", ...; default the first that is
            published), "hub:OWNER/NAME", a folder, or a file (.safetensors, .bin, .pth, .pyth).
        num_classes: of a new classifier, which replaces the published one.
        clip_len, size: other clips than the published ones; positions are interpolated.
        average_clips, max_views: see :class:`TemporalAverageHead` and :class:`Recognizer`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an unknown name, files that are missing or of another network, clips that do not fit it.
    """
    from tinyaction.models.torchvision import VIDEO_NETS

    if not isinstance(name_or_folder, str) or name_or_folder not in VIDEO_NETS:
        from tinyaction.models.published import load_published

        return load_published(name_or_folder, weights=weights, num_classes=num_classes, clip_len=clip_len, size=size,
                              average_clips=average_clips, max_views=max_views)
    from tinyaction.models.create import create_model
    from tinyaction.models.torchvision_published import load_torchvision

    words = "kinetics" if weights is None else str(weights)
    if num_classes is not None:
        return create_model(name_or_folder, num_classes, weights=words, dropout=0.0, average_clips=average_clips,
                            max_views=max_views).eval()
    return load_torchvision(name_or_folder, weights=words, clip_len=clip_len, size=size, average_clips=average_clips,
                            max_views=max_views)


def check_pretrained(name_or_folder: str, weights: str | None) -> None:
    """Raise the ValueError of :func:`load_pretrained` for a name or a word of weights that is not known; reads no
    weights.
    """
    from tinyaction.models.torchvision import VIDEO_NETS

    if name_or_folder in VIDEO_NETS:
        from tinyaction.models.weights import find_published

        find_published(name_or_folder, weights or "kinetics")
    else:
        from tinyaction.models.published import resolve

        resolve(name_or_folder, weights)


def load_encoder(
    name_or_folder: str | Path, *, weights: str | Path | None = None, clip_len: int | None = None,
    size: int | None = None,
) -> Recognizer:
    """Any pretrained network for its features alone, in evaluation mode; its ``published`` says which clips it takes.

    As :func:`load_pretrained`, and also the networks on frames such as "tsn-mobilenet_v2" or "tsm-resnet50", whose
    weights are "imagenet" (the default) or a file, and those that are published without a classifier. The classifier
    of the recognizer means nothing.
    """
    from tinyaction.models.create import all_models, check_input, create_model, input_rule
    from tinyaction.models.torchvision import VIDEO_NETS, net_name

    name = str(name_or_folder)
    if name in VIDEO_NETS:
        return load_pretrained(name, weights=weights, clip_len=clip_len, size=size)
    if isinstance(name_or_folder, Path) or name not in all_models():
        return load_pretrained(name_or_folder, weights=weights, clip_len=clip_len, size=size, num_classes=2)
    if weights is None and net_name(name) is None:
        raise ValueError(f"there are no pretrained weights for {name}; name a file of weights")
    rule = input_rule(name)
    clip_len, size = clip_len or rule.clip_len, size or rule.size
    check_input(name, clip_len=clip_len, size=size)
    words = "imagenet" if weights is None else str(weights)
    model = create_model(name, 2, weights=words)
    model.published = PublishedModel(name, {}, (), clip_len, None, size, size * 256 // 224, words)
    return model.eval()
