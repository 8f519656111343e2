import pytest

from tinyaction.training.waiting import Remedy, advice, expected_seconds, remedies, waiting_share


@pytest.mark.parametrize(("workers", "more", "faster", "seconds"), [
    (2, 4, 1, 5.0),       # 2 workers read for 10 s: 20 s of reading, over 4
    (2, 2, 4, 2.5),       # 20 / 2 / 4
    (2, 2, 100, 1.0),     # computing is never less
    (0, 1, 1, 9.0),       # reading moves beside the computing
    (0, 0, 9, 2.0),       # without workers reading and computing take turns: 9 / 9 + 1
])
def test_what_an_epoch_of_9_seconds_waiting_and_1_computing_would_take(workers, more, faster, seconds):
    assert expected_seconds(9, 1, num_workers=workers, more_workers=more, reads_faster=faster) == seconds


def test_the_remedy_that_helps_most_comes_first():
    found = remedies(9, 1, num_workers=2, num_cores=4, form="videos", stores={"jpeg": 5.0})
    assert [(remedy.flag, remedy.seconds) for remedy in found] == [("--store jpeg", 2.0), ("--num-workers 4", 5.0)]
    found = remedies(9, 1, num_workers=2, num_cores=8, form="jpeg", stores={"raw": 1.5})
    assert [remedy.flag for remedy in found] == ["--num-workers 8", "--store raw"]
    assert remedies(9, 1, num_workers=2, num_cores=2, form="raw", stores={}) == []


def test_the_sentence():
    assert advice(9, 1, [Remedy("--store jpeg", 2.0, "measured")]) == (
        "90% of the epoch was spent waiting for data; --store jpeg would help most: about 2.0 s instead of 10.0 s "
        "(measured)")
    for nothing in ([], [Remedy("--num-workers 3", 9.5, "3 cores")]):
        assert advice(9, 1, nothing).endswith("the cores are at their limit, and no flag would help much")
    assert waiting_share(1, 3) == 0.25 and waiting_share(0, 0) == 0
