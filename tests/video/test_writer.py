"""A video file is whole or not there."""

import numpy as np
import pytest

from tinyaction.video import open_video
from tinyaction.video.writer import VideoFile


@pytest.mark.parametrize("with_pyav", [True, False])
def test_a_video_file_is_whole_or_not_there(tmp_path, monkeypatch, with_pyav):
    if with_pyav:
        pytest.importorskip("av")
    else:
        monkeypatch.setitem(__import__("sys").modules, "av", None)
    frame = np.full((49, 65, 3), 120, np.uint8)
    with VideoFile(tmp_path / "good.mp4", fps=12.5) as video:
        for _ in range(5):
            video.write(frame)
    assert ("H.264, for every" in video.players) == with_pyav
    reader = open_video(tmp_path / "good.mp4")
    assert len(reader) == 5 and reader.fps == pytest.approx(12.5)
    last = reader.get_batch([4])[0]
    assert last.shape == (48, 64, 3) and np.abs(last.astype(int) - 120).max() <= 4
    with pytest.raises(RuntimeError, match="half way"), VideoFile(tmp_path / "bad.mp4", fps=10) as video:
        video.write(frame)
        raise RuntimeError("half way")
    with pytest.raises(ValueError, match="no frames to write"), VideoFile(tmp_path / "empty.mp4", fps=10):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["good.mp4"]
