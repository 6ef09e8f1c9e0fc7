"""Steps timed in turn, so that whatever else the machine does meets all of them alike."""

import random
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm.auto import tqdm

Step = Callable[[], object]


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


def median_ratio(values: Iterable[float], reference: Iterable[float]) -> float:
    """Median of the ratios within a repetition; the shorter sequence ends both."""
    return statistics.median(a / b for a, b in zip(values, reference, strict=False))


def timed(loops: Mapping[str, Callable[[int], None]], steps: int, repeats: int) -> dict[str, NDArray[np.float64]]:
    """Seconds a step of each loop, in turn: a row for each block but the first; of the processor, and by the clock."""
    clocks = time.process_time, time.perf_counter
    blocks: dict[str, list[list[float]]] = {name: [] for name in loops}
    for _ in range(repeats + 1):
        for name, loop in loops.items():
            starts = [clock() for clock in clocks]
            loop(steps)
            blocks[name].append([(clock() - start) / steps for clock, start in zip(clocks, starts, strict=True)])
    return {name: np.array(values[1:]) for name, values in blocks.items()}


def best_rates(num_bytes: int) -> tuple[float, float]:
    """The most flops per second of a product of matrices here, by torch or JAX, and bytes per second of a sum.

    Args:
        num_bytes: size of the sum's vectors: small ones stay in the processor's cache.
    """
    size = 512
    square, vector = torch.ones(size, size), torch.ones(num_bytes // 4)
    result = torch.empty_like(vector)
    products: list[Step] = [lambda: torch.mm(square, square)]
    with suppress(ImportError):
        import jax

        array, product = jax.numpy.ones((size, size)), jax.jit(jax.numpy.dot)
        products.append(lambda: product(array, array).block_until_ready())
    flops = max(2 * size**3 / _least(product) for product in products)
    return flops, 3 * num_bytes / _least(lambda: torch.add(vector, vector, out=result))


def _least(step: Step, repeats: int = 30) -> float:
    """Seconds that a step takes at best."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return min(seconds)
