"""An evaluation in text, at most 80 columns wide."""

from collections.abc import Sequence

import numpy as np

from tinyaction.results.evaluation import Evaluation


def result_lines(result: Evaluation, class_names: Sequence[str]) -> list[str]:
    """Accuracy and confusion matrix in text, at most 80 columns wide."""
    num_listed = len(result.labels) + len(result.bad)
    of_all = f"{len(result.labels)} of {num_listed}" if result.bad else f"{num_listed}"
    lines = [f"accuracy {result.top1:.4f} over {of_all} videos, mean over classes {result.mean_class:.4f}"]
    if result.top5 is not None:
        lines[0] += f", top-5 {result.top5:.4f}"
    lines += [f"  skipped: {video.filename}: {video.reason}" for video in result.bad]
    return lines + confusion_lines(result, class_names)


def confusion_lines(result: Evaluation, class_names: Sequence[str]) -> list[str]:
    """The matrix where it fits into 80 columns, else the pairs that are confused most."""
    matrix = result.confusion
    cell = max(4, len(str(int(matrix.max()))) + 1)
    width = min(24, max(len(name) for name in class_names))
    if width + 6 + cell * len(class_names) > 80:
        wrong = matrix - np.diag(np.diag(matrix))
        order = np.argsort(-wrong, axis=None, kind="stable")[:10]
        pairs = [np.unravel_index(place, wrong.shape) for place in order if wrong.flat[place] > 0]
        return ["most confused (true -> predicted):"] + [
            f"  {int(wrong[true, predicted]):>5}  {class_names[true][:30]} -> {class_names[predicted][:30]}"
            for true, predicted in pairs
        ] if pairs else ["no video was confused"]
    lines = ["confusion matrix (row = true class, column = predicted class):",
             " " * (width + 6) + "".join(f"{number:>{cell}}" for number in range(len(class_names)))]
    for number, name in enumerate(class_names):
        counts = "".join(f"{int(count):>{cell}}" for count in matrix[number])
        lines.append(f"  {name[:width]:<{width}} {number:>3}{counts}")
    return lines
