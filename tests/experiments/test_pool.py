"""Jobs of a study run in processes of one thread, and their results keep the jobs' order."""

import os
from functools import partial

import pytest
import torch

from experiments.pool import in_processes


def a_job(i):
    return i, os.getpid(), torch.get_num_threads()


def test_no_jobs():
    assert in_processes([], 2, "jobs") == []


@pytest.mark.slow
def test_two_workers():
    found = in_processes([partial(a_job, i) for i in range(5)], 2, "jobs")
    assert [i for i, _, _ in found] == list(range(5))
    assert os.getpid() not in {process for _, process, _ in found}
    assert {threads for _, _, threads in found} == {1}
