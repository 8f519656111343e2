"""From a path to frames: the readers of video files and of stored frames, and the writer of video files."""

from tinyaction.video.base import UInt8Array, VideoError, VideoReader, check_indices
from tinyaction.video.reader import open_video

__all__ = ["UInt8Array", "VideoError", "VideoReader", "check_indices", "open_video"]
