"""Steps timed in turn, so that whatever else the machine does meets all of them alike."""

import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

from tqdm.auto import tqdm

Step = Callable[[], None]


def interleaved(steps: Mapping[str, Step], repeats: int, label: str) -> dict[str, list[float]]:
    """Seconds of each step, measured in turn and each time in another order."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    names = list(steps)
    for repeat in tqdm(range(repeats + 20), desc=label, disable=None):
        random.Random(repeat).shuffle(names)  # a long step leaves the next one a cold cache
        for name in names:
            start = time.perf_counter()
            steps[name]()
            if repeat >= 20:
                times[name].append(time.perf_counter() - start)
    return times


def median_ratio(values: Sequence[float], reference: Sequence[float]) -> float:
    """Median of the ratios within a repetition; the shorter sequence ends both."""
    return statistics.median(a / b for a, b in zip(values, reference, strict=False))
