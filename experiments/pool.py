"""Jobs run in processes of one thread each, with a progress bar."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import joblib
import torch

from pyrovae.progress import progress_bar

T = TypeVar("T")


def in_processes(jobs: Sequence[Callable[[], T]], workers: int, label: str) -> list[T]:
    """Results of the jobs, in their order."""
    parallel = joblib.Parallel(n_jobs=workers, return_as="generator")
    results: Any = parallel(joblib.delayed(_with_one_thread)(job) for job in jobs)
    return list(progress_bar(results, total=len(jobs), desc=label, unit="job"))


def _with_one_thread(job: Callable[[], T]) -> T:
    torch.set_num_threads(1)
    return job()
