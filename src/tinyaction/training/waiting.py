"""Who waits for whom: what an epoch's two clocks say, and the one flag that would help."""

from collections.abc import Sequence
from dataclasses import dataclass

TOO_MUCH = 1 / 3  # share of an epoch spent waiting above which a flag is named


@dataclass(frozen=True)
class Remedy:
    """A flag, and how long an epoch would then take at least."""

    flag: str
    seconds: float
    reason: str


def waiting_share(seconds_waiting: float, seconds_computing: float) -> float:
    return seconds_waiting / max(seconds_waiting + seconds_computing, 1e-9)


def expected_seconds(
    seconds_waiting: float, seconds_computing: float, *, num_workers: int, more_workers: int, reads_faster: float = 1.0
) -> float:
    """Seconds of an epoch with ``more_workers``, each of which reads a clip so many times faster.

    Where an epoch waits, its readers are busy all the time, so what they did is known:

        waiting 9 s, computing 1 s, 2 workers     20 s of reading
            4 workers                             5 s     = 20 / 4
            4 times faster each                   2.5 s   = 20 / 2 / 4
            100 times faster each                 1 s     computing is never less
        waiting 9 s, computing 1 s, no worker     9 s of reading
            1 worker beside the computing         9 s

    It is a bound from below: computing on a CPU takes longer when more workers want its cores.
    """
    reading = seconds_waiting if num_workers == 0 else num_workers * (seconds_waiting + seconds_computing)
    if more_workers == 0:
        return reading / reads_faster + seconds_computing
    return max(seconds_computing, reading / more_workers / reads_faster)


def remedies(
    seconds_waiting: float, seconds_computing: float, *, num_workers: int, num_cores: int, form: str,
    stores: dict[str, float],
) -> list[Remedy]:
    """What could be done, best first.

    Args:
        form: what is read now: "videos", "jpeg" or "raw".
        stores: form -> how many times faster a clip is read from a store of it, as measured.
    """
    found = []
    if num_workers < num_cores:
        seconds = expected_seconds(seconds_waiting, seconds_computing, num_workers=num_workers, more_workers=num_cores)
        found.append(Remedy(f"--num-workers {num_cores}", seconds, f"{num_cores} cores are there"))
    for store, reads_faster in stores.items():
        seconds = expected_seconds(seconds_waiting, seconds_computing, num_workers=num_workers,
                                   more_workers=num_workers, reads_faster=reads_faster)
        found.append(Remedy(f"--store {store}", seconds,
                            f"clips read {reads_faster:.1f} times as fast as from the {form}, measured here"))
    return sorted(found, key=lambda remedy: remedy.seconds)


def advice(seconds_waiting: float, seconds_computing: float, found: Sequence[Remedy]) -> str:
    """One sentence for an epoch that waited too much."""
    seconds = seconds_waiting + seconds_computing
    share = f"{waiting_share(seconds_waiting, seconds_computing):.0%} of the epoch was spent waiting for data"
    if not found or found[0].seconds > 0.9 * seconds:
        return f"{share}; the cores are at their limit, and no flag would help much"
    best = found[0]
    return (f"{share}; {best.flag} would help most: about {best.seconds:.1f} s instead of {seconds:.1f} s "
            f"({best.reason})")
