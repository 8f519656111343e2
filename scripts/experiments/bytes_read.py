"""How much of a file that lies elsewhere a clip of 16 frames reads: of a video, and of the same in a store.

    python scripts/experiments/bytes_read.py VIDEO.mp4 [--stores]

The files are put at memory://, which is read by ranges as S3 and HTTP are; frames are compared with the local ones.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tinyaction.data.sampling import uniform_indices
from tinyaction.places import write_place
from tinyaction.prepare.stored_file import StoreSettings, store_video
from tinyaction.video import open_video

NUM_FRAMES, STRIDE = 16, 4


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path)
    parser.add_argument("--stores", action="store_true", help="also of its stored frames, short side 256")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        files = [arguments.video]
        for name, suffix in (("jpeg", ".zip"), ("raw", ".npy")) if arguments.stores else ():
            files.append(Path(folder, name + suffix))
            store_video(arguments.video, files[-1], StoreSettings(format=name))
        for file in files:
            compare(file)


def compare(file: Path) -> None:
    place = f"memory://bytes-read/{file.name}"
    write_place(place, file)
    local = open_video(file)
    middle = len(local) // 2
    uniform = uniform_indices(len(local), NUM_FRAMES, 1, None).reshape(-1)
    clips = {"over the whole video": sorted(set(uniform.tolist())),
             f"every {STRIDE}th from the middle": list(range(middle, len(local), STRIDE))[:NUM_FRAMES]}
    for name, indices in clips.items():
        reader: Any = open_video(place)
        is_equal = (reader.get_batch(indices) == local.get_batch(indices)).all()
        read = reader.file
        print(f"{file.name}, {len(local)} frames, {len(read) / 1e6:.1f} MB; {len(indices)} frames {name}: "
              f"{read.num_bytes_read / len(read):.1%} in {read.num_requests} requests, "
              f"{'equal' if is_equal else 'NOT EQUAL'}", flush=True)


if __name__ == "__main__":
    main()
