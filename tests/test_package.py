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
CORE = {"torch", "torchvision", "decord", "av", "numpy", "cv2"}
EXTRAS = ("matplotlib", "tqdm", "tensorboard", "mlflow", "wandb", "onnx", "onnxruntime", "onnxscript", "pandas",
          "safetensors", "huggingface_hub", "transformers")

# The wings, from the ground up. A module imports only from those of lower rows, or from its own wing without a circle.
HOUSE = (
    {"ground"},  # the modules beside the wings
    {"video"},
    {"data", "models"},
    {"prepare"},
    {"results"},
    {"training", "inference"},
    {"audit"},
    {"cli"},
)
ROW = {wing: row for row, wings in enumerate(HOUSE) for wing in wings}


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


def modules() -> dict[str, Path]:
    """Name -> file of every module but the package itself and __main__, which stand above all wings."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if name not in ("tinyaction", "tinyaction.__main__"):
            found[name] = path
    return found


MODULES = modules()
PATHS = sorted(PACKAGE.rglob("*.py"))


def wing_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 2 or MODULES[module].name == "__init__.py" else "ground"


def imported_modules(module: str) -> set[str]:
    """The modules of the package that one imports, deferred imports and those for type checkers included."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name.split(".")[0] == "tinyaction":
                found.add(name if name in MODULES else name.rpartition(".")[0])
    return found


def test_the_import_is_light():
    """It brings in PyAV and nothing else that torch, torchvision and cv2 do not bring; decord only where asked for."""
    code = """
import sys, torch, torchvision, cv2
before = set(sys.modules)
import tinyaction
top = {name.split(".")[0] for name in sys.modules} - {name.split(".")[0] for name in before}
print(*sorted(top - set(sys.stdlib_module_names)))
"""
    assert [name for name in run_python(code).split() if not name.startswith("_")] == ["av", "tinyaction"]


def test_decord_comes_with_the_first_video_that_it_reads_and_after_torch(tmp_path):
    """The other order has crashed."""
    pytest.importorskip("decord", reason="decord has no wheel for this machine")
    code = """
import sys
names = []
class Watch:
    def find_spec(self, name, *rest):
        if name in ("torch", "decord"):
            names.append(name)
sys.meta_path.insert(0, Watch())
import tinyaction as ta
ta.VideoInit()({"filename": sys.argv[1]})
assert "decord" not in sys.modules
ta.VideoInit(reader="decord")({"filename": sys.argv[1]})
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


def test_only_the_six_core_packages_are_required():
    required = [line for line in importlib.metadata.requires("tinyaction") or [] if "extra ==" not in line]
    names = {line.split(">")[0].split(";")[0].strip() for line in required}
    assert names == {"torch", "torchvision", "decord", "av", "numpy", "opencv-python"}


@pytest.mark.parametrize("name", sorted(set(tinyaction.__all__) - {"__version__"}))
def test_each_public_name_is_there_and_documented(name):
    assert inspect.getdoc(getattr(tinyaction, name))
    assert (getattr(tinyaction, name).__doc__ or "").strip(), f"{name} has no docstring of its own"


def test_the_public_names_are_complete_and_each_is_there_once():
    assert len(tinyaction.__all__) == len(set(tinyaction.__all__))
    public = {name for name, value in vars(tinyaction).items()
              if not name.startswith("_") and not inspect.ismodule(value)}
    assert public == set(tinyaction.__all__) - {"__version__"}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_run_downwards_only(module):
    for other in imported_modules(module):
        assert other in MODULES, f"{module} imports {other}: a name comes from the module that has it"
        wing, other_wing = wing_of(module), wing_of(other)
        assert wing == other_wing or ROW[other_wing] < ROW[wing], f"{module} imports {other}, which is not below it"


def test_imports_make_no_circles():
    list(TopologicalSorter({name: imported_modules(name) for name in MODULES}).static_order())  # CycleError names it


def test_every_wing_is_known():
    assert {wing_of(module) for module in MODULES} == set(ROW)


def test_only_the_commands_know_of_flags():
    for module, path in MODULES.items():
        assert wing_of(module) == "cli" or "argparse" not in imports_of(path), module


@pytest.mark.parametrize("module", ["data.sampling", "results.metrics", "training.schedule", "version"])
def test_pure_rooms_import_nothing_of_the_package(module):
    allowed = {"numpy", "numpy.typing", "math", "typing", "collections.abc"}
    assert imports_of(MODULES[f"tinyaction.{module}"]) <= allowed


@pytest.mark.parametrize(
    ("place", "forbidden"),
    [
        ("training.loop", {"cv2", "decord", "os", "pathlib", "sys", "csv", "json", "tqdm"}),  # no files
        ("results.evaluation", {"cv2", "decord", "os", "pathlib", "sys", "csv", "json", "tqdm"}),
        ("models", {"cv2", "decord"}),
        ("data.transforms", {"decord"}),  # video is the one door to files
        ("data.dataset", {"decord", "cv2"}),
        ("data.annotations", {"torch", "cv2", "decord"}),
    ],
)
def test_what_a_place_must_not_know(place, forbidden):
    """A module, or all modules of a wing."""
    name = f"tinyaction.{place}"
    paths = [path for module, path in MODULES.items() if module == name or module.startswith(f"{name}.")]
    assert paths
    for path in paths:
        assert not {module.split(".")[0] for module in imports_of(path)} & forbidden, path


def test_nothing_beyond_the_core_is_imported_unasked():
    """Extras are imported in the function that needs them, or in a try; Pillow comes with torchvision."""
    for path in PATHS:
        unasked = {module.split(".")[0] for module in imports_of(path, at_import=True)}
        assert unasked <= CORE | {"tinyaction", "PIL"} | set(sys.stdlib_module_names), path
        anywhere = {module.split(".")[0] for module in imports_of(path)}
        assert not {name for name in anywhere if name in ("mmcv", "mmengine", "mmaction", "mmdet")}, path


def test_library_code_does_not_print():
    """Only the commands do."""
    for module, path in MODULES.items():
        if wing_of(module) == "cli":
            continue
        calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                 if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print"]
        assert not calls, module


def test_scripts_are_three_lines_and_run_once():
    """Worker processes that are spawned import the script again; without the guard each would run the command."""
    scripts = sorted((PACKAGE.parent.parent / "scripts").glob("*.py"))
    assert scripts
    for path in scripts:
        assert path.read_text() == (f'from tinyaction.cli.{path.stem} import main\n\nif __name__ == "__main__":\n'
                                    "    raise SystemExit(main())\n")


