"""Jobs run in processes of one thread each, with a progress bar."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from pyrovae.comparison.workers import Report, run_in_processes
from pyrovae.errors import InputError
from pyrovae.progress import progress_bar

T = TypeVar("T")


def in_processes(jobs: Sequence[Callable[[], T]], workers: int, label: str) -> list[T]:
    """Results of the jobs, in their order; a single worker is this process."""
    if min(workers, len(jobs)) < 2:
        torch.set_num_threads(1)
        return [job() for job in progress_bar(jobs, desc=label, unit="job")]
    with progress_bar(total=len(jobs), desc=label, unit="job") as bar:
        results = run_in_processes(_run, _lost, list(enumerate(jobs)), workers, bar.update)
    return [results[i] for i in range(len(jobs))]


def _run(piece: tuple[int, Callable[[], T]], report: Report) -> dict[int, T]:
    index, job = piece
    result = job()
    report()
    return {index: result}


def _lost(piece: tuple[int, Callable[[], T]]) -> dict[int, T]:
    raise InputError(f"job {piece[0] + 1}: the system ended its process twice, perhaps because memory is short")
