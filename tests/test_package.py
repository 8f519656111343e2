"""What the package promises of itself: a light import, the core packages only, imports that run one way."""

import ast
import importlib.metadata
import inspect
import os
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from toys import write_clip

import tinyaction

PACKAGE = Path(tinyaction.__file__).parent
CORE = {"torch", "torchvision", "decord", "numpy", "cv2"}
EXTRAS = ("matplotlib", "tqdm", "tensorboard", "onnx", "onnxruntime", "onnxscript", "pandas", "av")

# The way of a clip: a room imports only from those before it. Rooms that stand elsewhere must not make a circle.
WAY = ("version", "folders", "sampling", "video", "transforms", "augment", "annotations", "dataset", "models",
       "presets", "metrics", "schedule", "finetune", "engine", "checkpoint", "inference", "runfolder",
       "report", "config", "cli")
# Known steps back, within a function and only when asked for: a stored video is opened, a live predictor is made.
BACKWARDS = {("video", "framestore"), ("inference", "live")}


def run_python(code: str, *arguments: str) -> str:
    result = subprocess.run([sys.executable, "-W", "error", "-c", code, *arguments], capture_output=True, text=True,
                            env={**os.environ, "OPENCV_FFMPEG_LOGLEVEL": "-8"})
    assert result.returncode == 0, result.stderr
    return result.stdout


def imports_of(path: Path, *, at_import: bool = False) -> set[str]:
    """Every module that a file imports, wherever in it; or only what it imports whenever it is imported itself."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = set()
    for node in tree.body if at_import else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            found.add(str(node.module))
            if node.module == "tinyaction":
                found |= {f"tinyaction.{alias.name}" for alias in node.names}
    return found


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def rooms() -> dict[str, list[Path]]:
    """Room -> its files."""
    found: dict[str, list[Path]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        room = room_of(path)
        if room not in ("__init__", "__main__"):
            found.setdefault(room, []).append(path)
    return found


def test_the_import_is_light():
    """It brings in nothing big that torch, torchvision and cv2 do not bring, and decord only with the first video."""
    code = """
import sys, torch, torchvision, cv2
before = set(sys.modules)
import tinyaction
top = {name.split(".")[0] for name in sys.modules} - {name.split(".")[0] for name in before}
print(*sorted(top - set(sys.stdlib_module_names)))
"""
    assert run_python(code).split() == ["tinyaction"]


def test_decord_comes_with_the_first_video_and_after_torch(tmp_path):
    """The other order has crashed."""
    code = """
import sys
names = []
class Watch:
    def find_spec(self, name, *rest):
        if name in ("torch", "decord"):
            names.append(name)
sys.meta_path.insert(0, Watch())
from tinyaction.video import open_video
assert "decord" not in sys.modules
open_video(sys.argv[1])
print(*names)
"""
    assert run_python(code, str(write_clip(tmp_path / "a.mp4", 0, seed=0))).split() == ["torch", "decord"]


def test_the_core_packages_are_enough(tmp_path):
    """With every extra blocked the package imports and a training runs to its end."""
    for split in ("train", "val"):
        for label in (0, 1):
            write_clip(tmp_path / "data" / split / str(label) / "a.mp4", label, seed=0, num_frames=4)
    code = f"""
import sys
for name in {EXTRAS!r}:
    sys.modules[name] = None
import tinyaction
from tinyaction.cli import main
sys.exit(main(["train", "--data", sys.argv[1] + "/data", "--out", sys.argv[1] + "/run", "--epochs", "1", "--size",
               "16", "--clip-len", "2", "--num-workers", "0", "--device", "cpu"]))
"""
    assert "accuracy" in run_python(code, str(tmp_path))
    assert (tmp_path / "run" / "best.pt").is_file()


def test_it_is_typed():
    assert (PACKAGE / "py.typed").is_file()


def test_the_version_is_that_of_the_metadata():
    assert tinyaction.__version__ == importlib.metadata.version("tinyaction")


def test_only_the_five_core_packages_are_required():
    required = [line for line in importlib.metadata.requires("tinyaction") or [] if "extra ==" not in line]
    names = {line.split(">")[0].split(";")[0].strip() for line in required}
    assert names == {"torch", "torchvision", "decord", "eva-decord", "numpy", "opencv-python"}


@pytest.mark.parametrize("name", sorted(set(tinyaction.__all__) - {"__version__"}))
def test_each_public_name_is_there_and_documented(name):
    assert inspect.getdoc(getattr(tinyaction, name))
    assert (getattr(tinyaction, name).__doc__ or "").strip(), f"{name} has no docstring of its own"


def test_the_public_names_are_sorted_and_complete():
    assert list(tinyaction.__all__) == sorted(set(tinyaction.__all__))
    public = {name for name, value in vars(tinyaction).items()
              if not name.startswith("_") and not inspect.ismodule(value)}
    assert public == set(tinyaction.__all__) - {"__version__"}


def known_rooms(room: str) -> set[str]:
    """The other rooms that a room imports from."""
    modules = {module for path in rooms()[room] for module in imports_of(path)}
    found = {module.split(".")[1] for module in modules if module.startswith("tinyaction.")}
    return {other for other in found & set(rooms()) if other != room and (room, other) not in BACKWARDS}


def test_imports_run_one_way():
    """Without a circle, and along the way of a clip."""
    list(TopologicalSorter({room: known_rooms(room) for room in rooms()}).static_order())  # CycleError names a circle
    for place, room in enumerate(WAY):
        assert not known_rooms(room) & set(WAY[place:]), f"{room} imports from a room after it"


def test_only_the_commands_know_of_flags():
    for room, paths in rooms().items():
        if room not in ("cli", "config"):
            assert not known_rooms(room) & {"cli", "config"}, room
            assert not any("argparse" in imports_of(path) for path in paths), room


@pytest.mark.parametrize("room", ["sampling", "metrics", "schedule", "version"])
def test_pure_rooms_import_nothing_of_the_package(room):
    (path,) = rooms()[room]
    allowed = {"numpy", "numpy.typing", "math", "typing", "collections.abc"}
    assert imports_of(path) <= allowed


@pytest.mark.parametrize(
    ("room", "forbidden"),
    [
        ("engine", {"cv2", "decord", "argparse", "os", "pathlib", "sys", "csv", "json", "tqdm"}),  # no files, no flags
        ("models", {"cv2", "decord"}),
        ("transforms", {"decord"}),  # video.py is the one door to files
        ("dataset", {"decord", "cv2"}),
        ("annotations", {"torch", "cv2", "decord"}),
    ],
)
def test_what_a_room_must_not_know(room, forbidden):
    for path in rooms()[room]:
        assert not {module.split(".")[0] for module in imports_of(path)} & forbidden, path.name


def test_nothing_beyond_the_core_is_imported_unasked():
    """Extras are imported in the function that needs them, or in a try; Pillow comes with torchvision."""
    for path in sorted(PACKAGE.rglob("*.py")):
        unasked = {module.split(".")[0] for module in imports_of(path, at_import=True)}
        assert unasked <= CORE | {"tinyaction", "PIL"} | set(sys.stdlib_module_names), path
        anywhere = {module.split(".")[0] for module in imports_of(path)}
        assert not {name for name in anywhere if name in ("mmcv", "mmengine", "mmaction", "mmdet")}, path


def test_library_code_does_not_print():
    """Only the commands and the run's log do."""
    for room, paths in rooms().items():
        if room in ("cli", "runfolder"):
            continue
        for path in paths:
            calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                     if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print"]
            assert not calls, path.name


def test_scripts_are_three_lines():
    scripts = sorted((PACKAGE.parent.parent / "scripts").glob("*.py"))
    assert scripts
    for path in scripts:
        assert len(path.read_text().splitlines()) == 3
        assert f"from tinyaction.cli.{path.stem} import main" in path.read_text()


