"""Work in processes of their own."""

import os
import subprocess
import sys

import pytest

COUNT_FAULTS = """
import resource
import torch
from pyrovae.comparison.workers import keeping_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
given_back = faults()
with keeping_freed_memory():
    faults()
    kept = faults()
faults()
print(given_back, kept, faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's settings")
def test_memory_is_kept_during_work_alone_where_the_process_was_told_to_give_it_back():
    told = {**os.environ, "MALLOC_TRIM_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", COUNT_FAULTS]
    given_back, kept, after = map(
        int, subprocess.run(command, env=told, capture_output=True, check=True).stdout.split()
    )
    pages = 20 * 2**22 // 2**12
    assert kept < 0.01 * pages
    assert given_back > 0.9 * pages  # this machine's pages are of 4 KiB, as glibc's settings act on
    assert after > 0.9 * pages
