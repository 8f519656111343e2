"""Single pictures: their size by their first bytes, their pixels, and JPEG."""

from typing import Any

import cv2

from tinyaction.video.base import UInt8Array

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


def picture_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) by the first bytes of a JPEG, PNG, WebP or BMP; None where it is none of them.

    Sources: ITU-T T.81, B.1 and B.2.2; W3C PNG, 11.2.1; RFC 9649, 2.5 to 2.7; Microsoft, BITMAPINFOHEADER.
    """
    def number(start: int, num_bytes: int, order: Any = "little") -> int:
        return int.from_bytes(data[start : start + num_bytes], order)

    if data[:2] == b"\xff\xd8":
        place = 2
        while place + 9 <= len(data) and data[place] == 0xFF:
            marker = data[place + 1]
            if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # the start of the frame
                return number(place + 7, 2, "big"), number(place + 5, 2, "big")
            place += 1 if marker == 0xFF else 2 + number(place + 2, 2, "big")
    elif data[:8] == b"\x89PNG\r\n\x1a\n":
        return number(16, 4, "big"), number(20, 4, "big")
    elif data[:2] == b"BM":
        if number(14, 4) == 12:
            return number(18, 2), number(20, 2)
        return number(18, 4), min(number(22, 4), 2**32 - number(22, 4))  # negative: from top to bottom
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        if data[12:16] == b"VP8X":
            return 1 + number(24, 3), 1 + number(27, 3)
        if data[12:16] == b"VP8L":
            return 1 + (number(21, 4) & 0x3FFF), 1 + (number(21, 4) >> 14 & 0x3FFF)
        return number(26, 2) & 0x3FFF, number(28, 2) & 0x3FFF
    return None


def decode_picture(data: UInt8Array) -> UInt8Array | None:
    """An encoded picture to (H, W, 3) RGB; None where OpenCV cannot."""
    if hasattr(cv2, "IMREAD_COLOR_RGB"):  # since OpenCV 4.11
        return cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)  # type: ignore[return-value]
    picture = cv2.imdecode(data, cv2.IMREAD_COLOR)
    return None if picture is None else cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)  # type: ignore[return-value]


def encode_jpeg(frame: UInt8Array, quality: int) -> bytes:
    """(H, W, 3) RGB to JPEG with colours at half size (4:2:0)."""
    encoded, data = cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert encoded
    return data.tobytes()
