"""The charts of a run as PNG files, for slides and papers; needs matplotlib (``pip install 'tinyaction[plots]'``)."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tinyaction.results.charts import Series, shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = {"train": "#2a78d6", "val": "#d9622b", "waiting": "#d9622b", "computing": "#2a78d6"}


def plots_available() -> bool:
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return False
    return True


def plot_curves(
    path: Path, epochs: Sequence[int], charts: Sequence[tuple[str, Sequence[Series]]], title: str, notice: str = ""
) -> None:
    """Line charts side by side; each is (what its values are, its series)."""
    from matplotlib.ticker import MaxNLocator

    figure = _figure(4.6 * len(charts), 3.4, title, notice)
    for place, (label, series) in enumerate(charts, start=1):
        axes = figure.add_subplot(1, len(charts), place)
        for line in series:
            axes.plot(epochs, line.values, label=line.name, color=COLOURS[line.css_class], linewidth=2,
                      marker="o" if len(epochs) < 3 else "")
        axes.set_xlabel("epoch")
        axes.set_title(label, fontsize=10)
        axes.set_ylim(bottom=0, top=1.02 if label.startswith("accuracy") else None)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=9)
    figure.savefig(path)


def plot_confusion(path: Path, matrix: npt.NDArray[np.int64], class_names: Sequence[str], title: str,
                   notice: str = "") -> None:
    """The matrix (K, K), row = true class, coloured by share of the row; counts while they can be read."""
    K = len(class_names)
    names = [f"{shortened(_plain(name), 30)} {number}" for number, name in enumerate(class_names)]
    side = min(16.0, max(2.0, 0.24 * K if K > 12 else 0.5 * K))  # of the square, inches; the rest is for text
    figure = _figure(max(6.0, side + 0.7 + 0.085 * max(map(len, names))), side + 1.2, title, notice)
    axes = figure.add_subplot()
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    if K <= 64:
        axes.set_yticks(range(K), names, fontsize=9 if K <= 12 else 7)
        axes.set_xticks(range(K), [str(number) if K <= 24 or number % 5 == 0 else "" for number in range(K)],
                        fontsize=9 if K <= 12 else 7)
    if K <= 24:
        for true, predicted in zip(*np.nonzero(matrix), strict=True):
            axes.text(predicted, true, str(matrix[true, predicted]), ha="center", va="center", fontsize=9,
                      color="white" if share[true, predicted] > 0.5 else "black")
    figure.savefig(path)


def plot_classes(path: Path, names: Sequence[str], shares: Sequence[float], title: str, notice: str = "") -> None:
    """Accuracy per class as bars, in the order given, the first at the top."""
    texts = [shortened(_plain(name), 40) for name in names]
    figure = _figure(4.0 + 0.075 * max(map(len, texts)), min(100.0, 1.2 + 0.24 * max(4, len(names))), title, notice)
    axes = figure.add_subplot()
    axes.barh(range(len(names)), shares, color=COLOURS["computing"], height=0.7)
    axes.set_yticks(range(len(names)), texts, fontsize=8)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.grid(axis="x", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def _figure(width: float, height: float, title: str, notice: str) -> "Figure":
    """An empty figure, in inches, under its title. Not pyplot's: the caller's own plots stay as they are."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    heading = textwrap.fill(title, int(width * 11)) + ("\n" + textwrap.fill(notice, int(width * 11)) if notice else "")
    figure = Figure(figsize=(width, height + 0.17 * heading.count("\n")), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(_plain(heading), fontsize=10)
    return figure


def _plain(text: str) -> str:
    """Text as it stands: a dollar sign begins no formula, a letter that the font lacks is written as its code."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    letters = get_font(findfont(FontProperties())).get_charmap()
    known = {letter for letter in text if letter == "\n" or ord(letter) in letters}
    drawable = (letter if letter in known else letter.encode("ascii", "backslashreplace").decode() for letter in text)
    return "".join(drawable).replace("$", r"\$")
