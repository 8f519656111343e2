"""Draw clips as pictures: frames side by side in the order of time, under a line of text."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont  # Pillow comes with torchvision; cv2.putText knows ASCII only

from tinyaction.data.augment import View, view_order
from tinyaction.files import write_whole
from tinyaction.results.plots import shortened
from tinyaction.video import UInt8Array

# Looked up in the system's font folders; the first that has every letter of a text draws it.
FONTS = ("DejaVuSans.ttf", "Arial.ttf", "LiberationSans-Regular.ttf", "NotoSans-Regular.ttf", "Arial Unicode.ttf",
         "NotoSansCJK-Regular.ttc", "PingFang.ttc", "msyh.ttc", "YuGothM.ttc", "malgun.ttf")
PAPER, INK, GREY, WARNING = (255, 255, 255), (20, 20, 20), (110, 110, 110), (160, 70, 0)
MARGIN, GAP, LINE = 12, 2, 24  # pixels


@dataclass
class Strip:
    """One clip of a sheet: its frames (H, W, 3) uint8 RGB in the order of time, a caption and a note."""

    frames: list[UInt8Array]
    caption: str
    note: str = ""


def clip_frames(
    inputs: torch.Tensor, *, num_frames: int = 8, side: int = 112, num_crops: int = 1
) -> list[UInt8Array]:
    """Pick at most ``num_frames`` frames to show from the middle clip of a packed video (V, C, T, H, W) uint8.

    They are spread evenly over the clip, first and last among them; the longer side becomes ``side`` pixels. Where
    ``num_crops`` were cut from each clip, the centre is shown.
    """
    V, C, T, H, W = inputs.shape
    if C != 3 or inputs.dtype != torch.uint8:
        raise ValueError(f"inputs are {inputs.dtype} {tuple(inputs.shape)}; a picture needs uint8 (V, 3, T, H, W)")
    chosen = np.unique(np.linspace(0, T - 1, min(num_frames, T)).round().astype(int))
    num_clips = V // num_crops
    view = view_order(num_clips, num_crops).index(View(num_clips // 2, "centre"))
    frames = inputs[view].permute(1, 2, 3, 0)[torch.from_numpy(chosen)].numpy()  # (<=num_frames, H, W, 3)
    return [resized(np.ascontiguousarray(frame), side) for frame in frames]


def resized(frame: UInt8Array, side: int) -> UInt8Array:
    """A frame (H, W, 3) or (H, W) with ``side`` pixels on its longer side."""
    H, W = frame.shape[:2]
    scale = side / max(H, W)
    size = (max(1, round(W * scale)), max(1, round(H * scale)))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(frame, size, interpolation=how), np.uint8)


def draw_sheet(title: str, strips: Sequence[Strip], *, notice: str = "") -> UInt8Array:
    """Draw one picture (H, W, 3) uint8 RGB: title and notice, then each strip under its caption and note."""
    if not strips:
        raise ValueError("a sheet needs at least one clip")
    pictures = [draw_strip(strip.frames) for strip in strips]
    height = sum(LINE + picture.shape[0] + MARGIN for picture in pictures)
    width, head = max(720, *(picture.shape[1] for picture in pictures)) + 2 * MARGIN, LINE * (2 if notice else 1)
    canvas = Image.new("RGB", (width, MARGIN + head + height), PAPER)
    pen = ImageDraw.Draw(canvas)
    write(pen, (MARGIN, MARGIN - 2), title, size=16, end=width - MARGIN)
    write(pen, (MARGIN, MARGIN - 2 + LINE), notice, size=14, end=width - MARGIN, colour=WARNING)
    top = MARGIN + head
    for strip, picture in zip(strips, pictures, strict=True):
        left = write(pen, (MARGIN, top + 2), strip.caption, size=14, end=width - MARGIN)
        write(pen, (left + 16, top + 3), strip.note, size=13, end=width - MARGIN, colour=GREY)
        canvas.paste(Image.fromarray(picture), (MARGIN, top + LINE))
        top += LINE + picture.shape[0] + MARGIN
    return np.asarray(canvas)


def draw_strip(frames: Sequence[UInt8Array], caption: str = "") -> UInt8Array:
    """Draw frames side by side (H, W, 3), under the caption if there is one."""
    width = sum(frame.shape[1] for frame in frames) + GAP * (len(frames) - 1)
    top = LINE if caption else 0
    canvas = Image.new("RGB", (width, top + max(frame.shape[0] for frame in frames)), PAPER)
    write(ImageDraw.Draw(canvas), (0, 2), caption, size=14, end=width)
    left = 0
    for frame in frames:
        canvas.paste(Image.fromarray(frame), (left, top))
        left += frame.shape[1] + GAP
    return np.asarray(canvas)


def write(pen: ImageDraw.ImageDraw, at: tuple[int, int], text: str, *, size: int, end: int,
          colour: tuple[int, int, int] = INK) -> int:
    """Write a line with its upper left corner ``at`` (x, y), at most to x = ``end``; returns the x where it ends.

    A text that is too long loses its middle, one without room is left out. A letter that no font of this machine has
    is written as its code, ``\\u5f20``: never as a box or a question mark.
    """
    text = " ".join(text.replace("\u2068", "").replace("\u2069", "").split())  # see plots.isolated
    font = font_for(text, size)
    text = "".join(letter if has_letter(font, letter) else letter.encode("ascii", "backslashreplace").decode()
                   for letter in text)
    room = end - at[0]
    columns = min(len(text), room // 4)  # no more could fit: at these sizes a letter is wider than 4 pixels
    while columns > 8 and pen.textlength(shortened(text, columns), font=font) > room:
        columns -= 1
    text = shortened(text, max(columns, 1))
    if pen.textlength(text, font=font) <= room:
        pen.text(at, text, font=font, fill=colour)
        return at[0] + int(pen.textlength(text, font=font))
    return at[0]


def font_for(text: str, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return the first font that has every letter of the text, else the first font."""
    fonts = fonts_here(size)
    return next((font for font in fonts if all(has_letter(font, letter) for letter in text)), fonts[0])


@cache
def fonts_here(size: int) -> tuple[ImageFont.FreeTypeFont | ImageFont.ImageFont, ...]:
    found: list[ImageFont.FreeTypeFont | ImageFont.ImageFont] = []
    for name in FONTS:
        try:
            found.append(ImageFont.truetype(name, size))
        except OSError:  # not on this machine
            continue
    return (*found, ImageFont.load_default(size))


@cache
def has_letter(font: ImageFont.FreeTypeFont | ImageFont.ImageFont, letter: str) -> bool:
    """Whether a font has a letter. A missing letter is drawn like U+10FFFF, which no font has."""
    if not isinstance(font, ImageFont.FreeTypeFont):
        return letter.isascii()
    return letter == " " or bytes(font.getmask(letter)) != bytes(font.getmask("\U0010ffff"))


def write_png(path: Path, picture: UInt8Array) -> None:
    """Save (H, W, 3) RGB as PNG. Raises OSError where it cannot be written."""
    write_whole(path, encoded(picture, ".png"))


def data_uri(picture: UInt8Array) -> str:
    """(H, W, 3) RGB as a JPEG inside a ``data:`` address, for a page that needs no other file."""
    return "data:image/jpeg;base64," + base64.b64encode(encoded(picture, ".jpg")).decode("ascii")


def encoded(picture: UInt8Array, suffix: str) -> bytes:
    """(H, W, 3) RGB as the bytes of a file with ``suffix``, ".jpg" or ".png"."""
    quality = [cv2.IMWRITE_JPEG_QUALITY, 82] if suffix == ".jpg" else []
    encoded, data = cv2.imencode(suffix, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), quality)
    assert encoded
    return data.tobytes()


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
        """Show the clip as a picture. Notebook viewers strip pictures inside HTML."""
        return encoded(draw_strip(self.frames, self.caption), ".jpg")
