"""Files of published networks: a folder as the Hugging Face hub has it, one file of tensors, or the hub itself."""

import hashlib
import json
import logging
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tinyaction.fetch import fetch_url
from tinyaction.files import whole_file
from tinyaction.models.torch_file import find_state_dict, read_torch_file
from tinyaction.place_file import fetch_place
from tinyaction.places import size_and_version, url_of, without_secrets

SECONDS_TO_ANSWER = 15.0
MAX_WEIGHT_BYTES = 32 << 30  # of a file that is fetched; the largest published ones have 4 GB

# The first that is there is read. An index names the shards of a network that is cut into several files.
WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin",
                "pytorch_model.bin.index.json")
PROCESSOR_FILES = ("preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json")


@dataclass(frozen=True)
class NetworkFiles:
    """Files that were found; no tensor has been read.

    Attributes:
        config, processor: contents of ``config.json`` and the processor's file; empty without one.
        weights: files with tensors.
        source: what the user named.
    """

    config: Mapping[str, Any]
    processor: Mapping[str, Any]
    weights: Sequence[Path]
    source: str

    @property
    def is_one_file(self) -> bool:
        """Whether a file was named; a ``config.json`` that lies beside it may be of another network."""
        return Path(self.source).is_file()

    def read_tensors(self) -> dict[str, torch.Tensor]:
        """Read names and tensors of all files. Raises ValueError for a file that is cut or of another kind."""
        return {name: tensor for path in self.weights for name, tensor in read_tensors(path).items()}


def find_files(where: str | Path) -> NetworkFiles:
    """Find the files of "hub:OWNER/NAME", of a folder, or one file and the config.json beside it.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: the folder lacks a file, a JSON file is none, or the hub cannot give it.
    """
    if str(where).startswith("hub:"):
        return _in_folder(fetch_repository(str(where).removeprefix("hub:")), source=str(where))
    path = fetch_file(str(where)) if str(where).startswith("https:") else Path(where)
    if path.is_dir():
        return _in_folder(path, source=str(where))
    if not path.is_file():
        raise FileNotFoundError(f"{where}: there is no such file or folder of weights")
    if not path.with_name("config.json").is_file():
        return NetworkFiles({}, {}, [path], str(where))
    return NetworkFiles(read_json(path.with_name("config.json")), _read_processor(path.parent), [path], str(where))


def _in_folder(folder: Path, *, source: str) -> NetworkFiles:
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder}: has no config.json, which says what network it is; bring it from where the "
                         "weights were published")
    config = read_json(folder / "config.json")
    return NetworkFiles(config, _read_processor(folder), find_weights(folder), source)


def find_weights(folder: Path) -> list[Path]:
    """Find the files with tensors in a folder. Raises ValueError if there is none or a shard is missing."""
    there = next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if there is None:
        raise ValueError(f"{folder}: has no weights; it needs {WEIGHT_FILES[0]}, {WEIGHT_FILES[2]}, or the index of "
                         "a network in several files")
    if there.suffix != ".json":
        return [there]
    shards = read_json(there).get("weight_map")
    if not isinstance(shards, Mapping) or not shards:
        raise ValueError(f"{there}: names no files under 'weight_map'; it is no index of weights")
    names = sorted(set(map(str, shards.values())))
    missing = [name for name in names if Path(name).name != name or not (folder / name).is_file()]
    if missing:
        raise ValueError(f"{folder}: {len(missing)} of {len(names)} files of the weights are missing, {missing[0]} "
                         "first; bring them from where the weights were published")
    return [folder / name for name in names]


def _read_processor(folder: Path) -> dict[str, Any]:
    for name in PROCESSOR_FILES:
        if (folder / name).is_file():
            content = read_json(folder / name)
            return content.get("video_processor", content)
    return {}


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises ValueError for anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ValueError(f"{path}: is no JSON file ({error})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds a JSON {type(content).__name__}; it must be an object with names and values")
    return content


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read names and tensors of one file, .safetensors or of ``torch.save``, without running code in it."""
    if path.suffix != ".safetensors":
        content = read_torch_file(path, stand_ins=True)
        for key in ("module", "model_state", "ema_encoder", "target_encoder"):  # VideoMAE, SlowFast, V-JEPA 2.1 and 2
            if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
                content = {"state_dict": content[key]}
        return find_state_dict(content, path)
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError:
        raise ValueError(f"{path}: a .safetensors file needs the package safetensors; "
                         "pip install 'tinyaction[hub]'") from None
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError, AttributeError) as error:
        raise ValueError(f"{path}: is cut, or no .safetensors file ({error}); fetch it again") from None


# ---------------------------------------------------------------------------------------------------------------------
# from the network
# ---------------------------------------------------------------------------------------------------------------------

def place_of(address: str) -> Path:
    """Return the path at which torch.hub keeps the file of an address; it may not exist yet."""
    return Path(torch.hub.get_dir()) / "checkpoints" / address.rpartition("/")[2]


def fetch_file(address: str) -> Path:
    """Fetch the file of an address, unless torch.hub's folder has it. Raises ValueError if that fails."""
    path = place_of(address)
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = re.search(r"-([a-f0-9]{8,})\.", path.name)
    try:
        fetch_url(address, path, max_bytes=MAX_WEIGHT_BYTES, digest=digest[1] if digest else "",
                  answer_seconds=SECONDS_TO_ANSWER, on_progress=_show_bytes if sys.stderr.isatty() else None)
    except OSError as error:
        raise ValueError(f"the weights {path.name} are not on this machine and could not be fetched ({error}); bring "
                         f"{address} and put it into {path.parent}, or name the file with --weights") from None
    return path


def fetch_weights(address: str | Path) -> Path:
    """Fetch a file of weights from s3://, https:// ... into torch.hub's folder, unless this state of it is there."""
    name = without_secrets(url_of(address))
    size, version = size_and_version(address)
    told = (name, size, version) if version else (url_of(address), size)  # get?id=1 and get?id=2 may be as large
    state = hashlib.sha256(str(told).encode()).hexdigest()[:16]
    path = place_of(f"/{state}-{Path(name).name}")
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as part:
            fetch_place(address, part)
    return path


def _show_bytes(num_done: int, num_all: int | None) -> None:
    of_all = "" if num_all is None else f" of {num_all / 1e6:.0f}"
    sys.stderr.write(f"\r{num_done / 1e6:.0f}{of_all} MB" + "\n" * (num_done == num_all))


def fetch_repository(repository: str) -> Path:
    """Return the folder of the hub's repository OWNER/NAME; fetch it unless the hub's cache has all of it.

    Raises:
        ValueError: huggingface_hub is not installed, or the hub does not answer, has no such repository, asks for a
            login, or the repository holds no weights.
    """
    try:
        from huggingface_hub import HfApi, constants, snapshot_download, try_to_load_from_cache
        from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError
    except ImportError:
        raise ValueError(f"hub:{repository} needs the package huggingface_hub; pip install 'tinyaction[hub]', or "
                         "bring the files into a folder and name it") from None
    bring = (f"; or bring config.json, preprocessor_config.json and model.safetensors of "
             f"{constants.ENDPOINT}/{repository} into a folder and name the folder as weights")
    try:
        with _quiet():
            config = try_to_load_from_cache(repository, "config.json")
            if isinstance(config, str) and _is_whole(Path(config).parent):
                return Path(config).parent
            info = HfApi().model_info(repository, timeout=SECONDS_TO_ANSWER, files_metadata=True)
            sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
            names = list(sizes)
            wanted = [name for name in names if name in ("config.json", *PROCESSOR_FILES)] + _weights_among(names)
            num_bytes = sum(sizes[name] for name in wanted)
            if num_bytes > MAX_WEIGHT_BYTES:
                raise ValueError(f"its files have {num_bytes / 1e9:.0f} GB, at most {MAX_WEIGHT_BYTES / 1e9:.0f} are "
                                 "fetched")
            return Path(snapshot_download(repository, allow_patterns=wanted))
    except HFValidationError:
        raise ValueError(f"hub:{repository} is no name of a repository; it must be hub:OWNER/NAME") from None
    except GatedRepoError:
        raise ValueError(f"hub:{repository} asks for a login: accept its terms on its page, then run "
                         f"'hf auth login'{bring}") from None
    except RepositoryNotFoundError:
        raise ValueError(f"hub:{repository} is not on the hub, or only for those who are logged in: look at the name, "
                         f"or run 'hf auth login'{bring}") from None
    except Exception as error:  # of the network, in the words of whichever client the hub's package uses
        raise ValueError(f"hub:{repository} is not on this machine and could not be fetched ({_first_line(error)}); "
                         f"try again with a network{bring}") from None


def _is_whole(folder: Path) -> bool:
    """Whether a folder of the hub's cache has all weights; asks nothing of the network."""
    try:
        return bool(find_weights(folder))
    except ValueError:
        return False


def _weights_among(names: Sequence[str]) -> list[str]:
    """Choose a repository's files of weights: the first kind of :data:`WEIGHT_FILES` that it has."""
    first = next((name for name in WEIGHT_FILES if name in names), None)
    if first is None:
        raise ValueError("it holds no weights")
    if not first.endswith(".json"):
        return [first]
    suffix = ".safetensors" if "safetensors" in first else ".bin"
    return [first, *(name for name in names if name.endswith(suffix) and "/" not in name)]


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the hub's package from logging its retries; it still raises its errors."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
