"""Arrays that processes of a machine share: equal contents, no copies, nothing left behind, a copy without room."""

import copy
import gc
import os
import pickle
import resource
from multiprocessing import context
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinyaction.data import shared_array
from tinyaction.data.lists import VideoList
from tinyaction.data.rows import PackedTexts
from tinyaction.data.shared_array import GrowingArray, Offer, SharedArray, take_offer

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="this system has no files in memory")
TEXTS = [f"class ä{i % 7}/clip {i:06}.mp4" for i in range(30_000)]


@pytest.fixture
def small(monkeypatch) -> None:
    """Arrays of 10,000 bytes are large."""
    monkeypatch.setattr(shared_array, "LEAST_SHARED", 10_000)
    shared_array.warn_of_copies.cache_clear()


def spawned(value: Any) -> bytes:
    """As multiprocessing hands it to a process that it starts."""
    context.set_spawning_popen(value)
    try:
        return bytes(ForkingPickler.dumps(value))
    finally:
        context.set_spawning_popen(None)


def is_in_memory_file(array: np.ndarray) -> bool:
    start = array.ctypes.data
    for line in Path("/proc/self/maps").read_text().splitlines():
        first, last = (int(number, 16) for number in line.split()[0].split("-"))
        if first <= start < last:
            return "/memfd:tinyaction" in line
    return False


def test_a_growing_array_is_that_of_its_pieces(small):
    pieces = [np.arange(start, start + 700) for start in range(0, 21_000, 700)]
    growing, few = GrowingArray("i8"), GrowingArray("i8")
    for piece in pieces:
        growing.extend(piece)
    few.extend(pieces[0])
    assert growing.finished().array.tolist() == [*range(21_000)] and is_in_memory_file(growing.finished().array)
    assert few.finished().array.tolist() == [*range(700)] and not is_in_memory_file(few.finished().array)


def test_a_long_list_of_texts_is_shared_from_the_start(small):
    texts = PackedTexts(TEXTS)
    assert list(texts) == TEXTS and texts[29_999] == TEXTS[-1]
    assert is_in_memory_file(texts._packed.array) and is_in_memory_file(texts._ends.array)


def test_others_map_an_array_and_change_only_their_own(small):
    array = SharedArray(np.arange(6000, dtype=np.float64).reshape(2000, 3))
    other = pickle.loads(spawned(array))
    assert other.array.dtype == np.float64 and np.array_equal(array.array, other.array)
    assert is_in_memory_file(array.array) and is_in_memory_file(other.array)
    other.array[7, 1] = -1
    assert array.array[7, 1] == 22 and pickle.loads(spawned(other)).array[7, 1] == 22


def test_spawned_workers_have_no_copy_of_a_long_list(monkeypatch):
    """They get it by pickle: of each array the place where it lies."""
    videos = VideoList(TEXTS, range(30_000), groups=TEXTS[::-1])
    videos.starts, videos.label_sets = np.arange(30_000) / 7, np.eye(3, dtype=np.uint8)[np.arange(30_000) % 3]
    assert len(spawned(videos)) > 80 * 30_000
    monkeypatch.setattr(shared_array, "LEAST_SHARED", 10_000)
    assert len(spawned(videos)) < 3000
    mapped = pickle.loads(spawned(videos))
    for one in (videos, mapped):
        assert one[7777] == (TEXTS[7777], 7777) and one.groups[3] == TEXTS[-4] and one.starts[14] == 2
        assert one.label_sets[29_999].tolist() == [0, 0, 1] and one.ends is None
    for name in ("labels", "starts", "label_sets"):
        assert is_in_memory_file(getattr(videos, name)) and is_in_memory_file(getattr(mapped, name))


def test_files_and_other_machines_get_the_content(small):
    """A list that is saved, or sent by Ray, names no memory of this machine; a deep copy has its own."""
    videos = VideoList(TEXTS, range(30_000))
    offer = Offer(videos)  # which moves its labels to shared memory
    content, copied = pickle.dumps(videos), copy.deepcopy(videos)
    assert b"/proc/" not in content and is_in_memory_file(videos.labels)
    del videos, offer
    for other in (pickle.loads(content), copied):
        assert other[29_999] == (TEXTS[-1], 29_999) and list(other.paths()) == TEXTS
        other.labels[0] = 7


@pytest.mark.parametrize("limit", [4000, 400_000])
def test_without_room_each_has_a_copy_and_a_sentence_says_so(limit, small, caplog):
    """Room for a part of the first piece, or for the first of three."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        texts, numbers = PackedTexts(TEXTS), SharedArray(np.arange(30_000))
        content = spawned([texts, numbers])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    other, other_numbers = pickle.loads(content)
    assert list(texts) == list(other) == TEXTS and other_numbers.array.tolist() == [*range(30_000)]
    assert not is_in_memory_file(texts._packed.array) and is_in_memory_file(numbers.array) == (limit > 240_000)
    assert "each process has a copy of its own of the list of videos, as memory that they share cannot be had: " in (
        caplog.messages[0]) and len(caplog.messages) == 1


def test_without_proc_each_has_a_copy(small, monkeypatch):
    """As in a chroot: a spawned worker could not open what it is told."""
    monkeypatch.setattr("os.path.isdir", lambda path: False)
    content = spawned(VideoList(TEXTS, range(30_000)))
    assert b"/proc/" not in content and list(pickle.loads(content).paths()) == TEXTS


def test_a_file_that_is_gone_is_not_taken_for_another(small):
    content = spawned(SharedArray(np.zeros(3000)))                     # which ends with this line
    others = [SharedArray(np.ones(3000)) for _ in range(20)]
    places = [spawned(other) for other in others]                      # one of them has its number
    with pytest.raises(FileNotFoundError):
        pickle.loads(content)
    assert len(places) == 20


def test_nothing_stays_open(small):
    gc.collect()  # what other tests left
    before = len(os.listdir("/proc/self/fd"))
    texts = PackedTexts(TEXTS)
    offer = Offer(texts)
    other = take_offer(offer.address)
    assert len(os.listdir("/proc/self/fd")) > before + 4 and list(other) == TEXTS
    del texts, other, offer
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


def test_an_offer_of_another_process_is_not_taken_for_the_own():
    """On a machine whose name is that of another the file of that number is any."""
    offer, other = Offer([1, 2]), Offer([3])
    assert take_offer(offer.address) == [1, 2]
    place, token = other.address.split()
    for address in (f"{place} {offer.address.split()[1]}", "", f"/proc/1/fd/999999 {token}"):
        with pytest.raises(OSError):
            take_offer(address)
