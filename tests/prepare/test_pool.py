"""Files that hang or kill their process are named, and the work on all others goes on."""

import multiprocessing
import os
import signal
import time

import pytest

from tinyaction.prepare.pool import Lost, map_in_processes


def square(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 5:
        time.sleep(600)
    if number == 6:
        os._exit(7)
    if number == 100:
        raise KeyError("a defect")
    return number**2


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("num_workers", [1, 3])
def test_lost_items_are_named_and_the_others_are_done(method, num_workers):
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method(method, force=True)
    try:
        results = dict(map_in_processes(square, range(10), num_workers=num_workers, timeout_seconds=1.0))
    finally:
        multiprocessing.set_start_method(before, force=True)
    assert {number: result for number, result in results.items() if not isinstance(result, Lost)} == {
        number: number**2 for number in (0, 1, 2, 4, 7, 8, 9)}
    assert results[3] == Lost("crashes", "the process that read it killed by SIGKILL (out of memory?)")
    assert results[5] == Lost("hangs", "not read within 1 s (--video-timeout)")
    assert results[6] == Lost("crashes", "the process that read it ended with exit code 7")
    assert multiprocessing.active_children() == []


def test_a_defect_is_raised_with_its_traceback():
    with pytest.raises(RuntimeError, match=r"100: Traceback(.|\n)*in square(.|\n)*KeyError: 'a defect'"):
        list(map_in_processes(square, [1, 100, 2], num_workers=1, timeout_seconds=60))
    assert multiprocessing.active_children() == []


def test_who_stops_looking_leaves_no_processes():
    results = map_in_processes(square, [1, 5, 5], num_workers=3, timeout_seconds=60)
    assert next(results) == (1, 1)
    results.close()
    assert multiprocessing.active_children() == []


def test_no_items_need_no_processes():
    assert list(map_in_processes(square, [], num_workers=2, timeout_seconds=1)) == []
