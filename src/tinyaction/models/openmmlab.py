"""Translate keys of state dicts: from MMAction2, the TSM repository and torchvision to the names of this package.

A key here is ``backbone.`` and torchvision's name of the tensor, or ``cls_head.fc.weight`` and ``cls_head.fc.bias``.
It reads names only, no tensors.
"""

import re
from collections.abc import Collection

# MMAction2 keeps a convolution and its norm together, and puts ``net`` where the shift wraps a layer.
_MMACTION2_RESNET = [
    (r"backbone\.conv1\.conv(?:\.net)?\.(\w+)", r"backbone.conv1.\1"),
    (r"backbone\.conv1\.bn\.(\w+)", r"backbone.bn1.\1"),
    (r"backbone\.(layer\d\.\d+)\.conv(\d)\.conv(?:\.net)?\.(\w+)", r"backbone.\1.conv\2.\3"),
    (r"backbone\.(layer\d\.\d+)\.conv(\d)\.bn\.(\w+)", r"backbone.\1.bn\2.\3"),
    (r"backbone\.(layer\d\.\d+)\.downsample\.conv\.(\w+)", r"backbone.\1.downsample.0.\2"),
    (r"backbone\.(layer\d\.\d+)\.downsample\.bn\.(\w+)", r"backbone.\1.downsample.1.\2"),
    (r"cls_head\.fc_cls\.(\w+)", r"cls_head.fc.\1"),
]

# MobileNetV2's stages begin at these numbers of torchvision's ``features``.
_MOBILENET_V2_STAGES = {"1": 1, "2": 2, "3": 4, "4": 7, "5": 11, "6": 14, "7": 17}

# Its blocks as one flat Sequential, activations counted: number -> torchvision's name; the first block is shorter.
_FLAT_BLOCK = {"0": "0.0", "1": "0.1", "3": "1.0", "4": "1.1", "6": "2", "7": "3"}
_FLAT_FIRST_BLOCK = {"0": "0.0", "1": "0.1", "3": "1", "4": "2"}


def translate_keys(keys: Collection[str]) -> tuple[str, dict[str, str]]:
    """Return the origin of the keys, in words, and a dict from each key to its name here.

    Raises:
        ValueError: the keys belong to a network that shifts or pools elsewhere, and would score differently here.
    """
    bare = {key: key.removeprefix("module.") for key in keys}          # as nn.DataParallel writes them
    names = set(bare.values())
    if any(name.startswith("base_model.") for name in names):
        _check_shift_place(names)
        new = {name: _from_tsm_repository(name) for name in names}
        origin = _with_shift("the TSM repository", names)
    elif any(name.startswith("cls_head.fc_cls.") for name in names) or "backbone.conv1.conv.weight" in names:
        _check_shift_place(names)
        is_mobilenet = any(name.startswith("backbone.layer1.0.conv.0.") for name in names)
        new = {name: _from_mmaction2_mobilenet(name) if is_mobilenet else _from_mmaction2(name) for name in names}
        origin = _with_shift("MMAction2", names)
    elif any(name.startswith("backbone.") for name in names):
        new = {name: name for name in names}
        origin = "tinyaction"
    else:
        new = {name: f"backbone.{name}" for name in names}
        origin = "torchvision"
    new = {name: _in_todays_spelling(key) for name, key in new.items()}
    if any(key.startswith("backbone.features.1.conv.4.") for key in new.values()):  # torchvision has 0 to 2 there
        new = {name: _nested_mobilenet(key) for name, key in new.items()}
    return origin, {key: new[name] for key, name in bare.items()}


def _with_shift(origin: str, names: Collection[str]) -> str:
    return f"{origin} (TSM)" if any(".net." in name for name in names) else f"{origin} (TSN)"


def _check_shift_place(names: Collection[str]) -> None:
    for name in names:
        if re.search(r"layer\d\.net\.\d", name):
            raise ValueError(f"{name} belongs to a TSM with temporal pooling, which no model here has")
        if re.search(r"layer\d\.\d+\.net\.", name):
            raise ValueError(f"{name} belongs to a TSM that shifts before the whole block; the models here shift in "
                             "the residual branch ('blockres') and would give other scores with these weights")


def _from_mmaction2(name: str) -> str:
    for pattern, replacement in _MMACTION2_RESNET:
        new, count = re.subn(f"^{pattern}$", replacement, name)
        if count:
            return new
    return name


def _from_mmaction2_mobilenet(name: str) -> str:
    if match := re.fullmatch(r"backbone\.conv([12])\.(conv|bn)\.(\w+)", name):
        number, part, tensor = match.groups()
        return f"backbone.features.{'0' if number == '1' else '18'}.{'0' if part == 'conv' else '1'}.{tensor}"
    if match := re.fullmatch(r"backbone\.layer(\d)\.(\d+)\.conv\.(\d)(?:\.net)?\.(conv|bn)\.(\w+)", name):
        stage, block, layer, part, tensor = match.groups()
        number = _MOBILENET_V2_STAGES[stage] + int(block)
        if int(layer) == (1 if number == 1 else 2):                    # the last convolution has no activation
            return f"backbone.features.{number}.conv.{int(layer) + (part == 'bn')}.{tensor}"
        return f"backbone.features.{number}.conv.{layer}.{'0' if part == 'conv' else '1'}.{tensor}"
    return _from_mmaction2(name)


def _from_tsm_repository(name: str) -> str:
    head = re.fullmatch(r"(?:new_fc|base_model\.fc|base_model\.classifier)\.(\w+)", name)
    return f"cls_head.fc.{head[1]}" if head else name.replace("base_model.", "backbone.", 1).replace(".net.", ".", 1)


def _in_todays_spelling(key: str) -> str:
    """Rename ``norm.1`` to ``norm1``: torchvision's DenseNet files keep the old spelling."""
    return re.sub(r"(denselayer\d+\.(?:norm|conv))\.(\d)\.", r"\1\2.", key)


def _nested_mobilenet(key: str) -> str:
    if match := re.fullmatch(r"backbone\.features\.(\d+)\.conv\.(\d)\.(\w+)", key):
        block, layer, tensor = match.groups()
        layers = _FLAT_FIRST_BLOCK if block == "1" else _FLAT_BLOCK
        return f"backbone.features.{block}.conv.{layers[layer]}.{tensor}"
    return key
