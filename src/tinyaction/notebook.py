"""How objects show themselves in a notebook: small HTML tables, and clips as pictures."""

from collections.abc import Iterable
from html import escape

import torch

from tinyaction.results.sheets import clip_frames, draw_strip, encoded


def table(title: str, rows: Iterable[tuple[object, ...]], *, head: tuple[str, ...] = ()) -> str:
    """An HTML table; every cell is text and is escaped."""
    def line(cells: Iterable[object], tag: str) -> str:
        row = "".join(f'<{tag} style="text-align:left">{escape(str(cell))}</{tag}>' for cell in cells)
        return f"<tr>{row}</tr>"

    top = f"<thead>{line(head, 'th')}</thead>" if head else ""
    body = "".join(line(cells, "td") for cells in rows)
    return f"<div><b>{escape(title)}</b></div><table>{top}<tbody>{body}</tbody></table>"


class Clip:
    """A packed video as a strip of frames; in a notebook ``ta.Clip(item["inputs"])`` is a picture.

    Args:
        inputs: (V, C, T, H, W) uint8, as a pipeline packs it; the middle view is shown.
        caption: a line above the strip.
        num_frames: at most so many frames, spread evenly.
    """

    def __init__(self, inputs: torch.Tensor, caption: str = "", *, num_frames: int = 8, side: int = 112) -> None:
        self.shape = tuple(inputs.shape)
        self.caption = caption
        self.frames = clip_frames(inputs, num_frames=num_frames, side=side)

    def __repr__(self) -> str:
        return f"Clip({len(self.frames)} frames of inputs {self.shape}{', ' * bool(self.caption)}{self.caption})"

    def _repr_jpeg_(self) -> bytes:
        """A picture, and no HTML with pictures in it: viewers of notebooks strip those."""
        return encoded(draw_strip(self.frames, self.caption), ".jpg")
