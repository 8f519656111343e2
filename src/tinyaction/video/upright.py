"""Frames as a display matrix turns and mirrors them."""

from typing import Any

import numpy as np
import numpy.typing as npt
from av.sidedata.sidedata import SideDataContainer

from tinyaction.video.base import UInt8Array


def display_matrix(frame: Any) -> npt.NDArray[np.int32] | None:
    """(3, 3) of a frame's side data; None where it has none."""
    container: Any = SideDataContainer  # frame.side_data and the frame would keep each other until Python looks for
    try:                                # circles: 250 MB after 80 frames of 1080p
        return np.frombuffer(memoryview(container(frame)["DISPLAYMATRIX"]), np.int32).reshape(3, 3)
    except (KeyError, ValueError):  # ValueError: side data of a kind that this PyAV does not know
        return None


def upright(pixels: UInt8Array, matrix: npt.NDArray[np.int32]) -> UInt8Array:
    """Turn and mirror (H, W, 3) as a display matrix says, by copying pixels; other angles go to the nearest right one.

    A pixel at (x, y) is shown at (a x + c y, b x + d y), where a b and c d begin the first two rows.
    Source: ISO/IEC 14496-12, 8.3.2.
    """
    (a, b), (c, d) = matrix[:2, :2].tolist()
    if abs(a) + abs(d) >= abs(b) + abs(c):
        pixels = pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
    else:
        pixels = pixels.swapaxes(0, 1)[:: -1 if b < 0 else 1, :: -1 if c < 0 else 1]
    return np.ascontiguousarray(pixels)
