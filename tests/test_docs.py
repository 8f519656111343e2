"""The documents do what they say: the notebook runs from its first cell to its last, links lead somewhere."""

import json
import re
from pathlib import Path

import pytest
import torch

import tinyaction as ta
from tinyaction.results.timeline_metrics import found_pairs

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "docs" / "twenty_minutes.ipynb"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_notebook_runs_and_teaches_what_it_claims(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, stand_in: Path
) -> None:
    (tmp_path / "twenty_minutes_data").mkdir()
    (tmp_path / "twenty_minutes_data" / "shapes").symlink_to(stand_in)  # the notebook would make it again
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    monkeypatch.chdir(tmp_path)
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # beside other tests more threads only wait for one another
    request.addfinalizer(lambda: torch.set_num_threads(num_threads))
    names: dict[str, object] = {"__name__": "__main__"}
    for number, cell in enumerate(cells):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"cell {number} of {NOTEBOOK.name}", "exec"), names)
    _, averaging = names["learn"]("conv2d", epochs=1)  # type: ignore[operator]
    assert averaging == [0.5]  # a mean does not know the order
    assert names["accuracies"][-1] >= 0.95  # type: ignore[index]  # shifting does
    assert names["probe"].accuracy >= 0.95  # type: ignore[attr-defined]  # so does the trend of frozen features
    found = found_pairs(names["timeline"].segments(), names["true"], 0.1)  # type: ignore[attr-defined, arg-type]
    assert len(found) >= 2                                             # of three actions
    assert names["packed"]["inputs"].shape == (1, 3, 8, 64, 64)  # type: ignore[index]
    assert (tmp_path / "runs" / "conv2d-1" / "report.html").is_file()


def test_the_notebook_is_kept_with_small_outputs_of_nobodys_machine() -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    cells = json.loads(text)["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    assert len(text) < 400_000
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert sum("image/jpeg" in str(output.get("data", "")) for output in outputs) >= 6
    assert not re.search(r"/(home|root|tmp|Users|work)/", text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", text) + re.findall(r'(?:src|srcset|href)="([^"#]+)"', text)
    for target in targets:
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} points to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_names_of_the_package_in_code_exist(page: Path) -> None:
    for name in re.findall(r"\bta\.(\w+)", page.read_text(encoding="utf-8")):
        assert hasattr(ta, name), f"{page.name}: ta.{name}"


def test_pictures_of_the_documents_are_small() -> None:
    for picture in (ROOT / "docs").rglob("*"):
        if picture.suffix in (".png", ".svg", ".webp", ".jpg"):
            assert picture.stat().st_size < 150_000, picture.name
