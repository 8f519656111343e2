"""From a path to frames."""

from tinyaction.video.base import MAX_PIXELS, UInt8Array, VideoError, VideoReader, check_indices
from tinyaction.video.reader import open_video
from tinyaction.video.segment import open_segment

__all__ = ["MAX_PIXELS", "UInt8Array", "VideoError", "VideoReader", "check_indices", "open_segment",
           "open_video"]
