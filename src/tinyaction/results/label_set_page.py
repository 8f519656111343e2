"""The part of a report that is about several labels: mAP and F1, and a row a class."""

from tinyaction.results.page import section, table
from tinyaction.results.run import Run
from tinyaction.text import from_cell


def label_set_tiles(run: Run) -> list[tuple[str, str, str]]:
    """The figures of the best epoch, each with what it means."""
    best = run.best
    return [
        (f"{best['val_map']:.1%}", "mAP", "mean of the classes' average precisions: how well the videos of a class "
                                          "are ranked before the others"),
        (f"{best['val_f1']:.1%}", "mean F1", "with thresholds chosen on these same videos, so it flatters a little"),
        (f"{best['val_exact_match']:.1%}", "all labels right", "videos that have just the labels that are predicted"),
    ]


def label_set_section(run: Run) -> str:
    """A row a class, the least average precision first."""
    rows = []
    for one in sorted(run.classes, key=lambda one: float(one["average_precision"] or "inf")):
        figures = [one[name] for name in ("average_precision", "f1", "precision", "recall", "threshold")]
        rows.append([from_cell(one["class"]), one["positives"],
                     *(f"{float(text):.3f}" if text else "–" for text in figures)])
    is_kept = not run.folds or run.config.get("final")
    text = ("<p>A class is predicted where its score reaches its threshold, which was chosen for the highest F1 on "
            f"{'the videos as they were held out' if run.folds else 'the validation videos'}."
            f"{' best.pt holds the thresholds.' if is_kept else ''}</p>")
    return section("Classes", text + table(
        ["class", "videos with it", "average precision", "F1", "precision", "recall", "threshold"],
        rows))
