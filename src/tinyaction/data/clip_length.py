"""Whether videos have the frames that a clip asks for, looked at before any work."""

from tinyaction.data.lists import VideoList
from tinyaction.data.transforms import VideoInit
from tinyaction.fetch import answer_within

NUM_LOOKED_AT = 8
SECONDS_TO_LOOK = 20.0  # at all of them; a file that hangs is named by the loader, which has workers to lose
MOST_REPEATS = 10  # of each frame of the longest video looked at; a longer clip is a slip of the key


def clip_length_notes(clip_len: int, videos: VideoList) -> list[str]:
    """A sentence where a clip is longer than the longest of some videos, evenly spread over a list; else none.

    It passes over videos that cannot be read, and says nothing where they take too long to open.

    Raises:
        ValueError: the clip is more than ``MOST_REPEATS`` times as long.
    """
    try:
        longest, num_opened = answer_within(SECONDS_TO_LOOK, lambda: _longest(clip_len, videos))
    except TimeoutError:
        return []
    if not longest or longest >= clip_len:
        return []
    of_videos = "the video has" if len(videos) == 1 else f"the longest of {num_opened} videos looked at has"
    if clip_len > MOST_REPEATS * longest:
        raise ValueError(f"--clip-len is {clip_len}, and {of_videos} {longest} frames; it may be at most "
                         f"{MOST_REPEATS} times as many")
    return [f"a clip of {clip_len} frames repeats frames: {of_videos} {longest}; take a smaller --clip-len"]


def _longest(clip_len: int, videos: VideoList) -> tuple[int, int]:
    """(frames of the longest video, how many were opened); no more are opened once one has ``clip_len``."""
    num = min(NUM_LOOKED_AT, len(videos))
    longest = num_opened = 0
    for place in range(num):
        try:
            num_frames = VideoInit()(videos.results(place * len(videos) // num))["total_frames"]
        except (ValueError, OSError, MemoryError):  # whoever reads it says so
            continue
        num_opened += 1
        longest = max(longest, num_frames)
        if longest >= clip_len:
            break
    return longest, num_opened
