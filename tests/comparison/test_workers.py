"""Work in processes of their own."""

import json
import os
import subprocess
import sys

import pytest

MEASURE = """
import json, os, resource
from pathlib import Path
import torch
from pyrovae.comparison.workers import keeping_freed_memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
told = {"faults": faults()}
base = resident()
with keeping_freed_memory():
    faults()
    several = [torch.ones(2**20) for _ in range(20)]
    del several
    kept = {"faults": faults(), "bytes": resident() - base}
print(json.dumps({"told": told, "kept": kept, "after": {"bytes": resident() - base}}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's settings")
def test_memory_is_kept_during_work_alone_where_the_process_was_told_to_give_it_back():
    env = {**os.environ, "MALLOC_TRIM_THRESHOLD_": "65536"}
    command = [sys.executable, "-c", MEASURE]
    found = json.loads(subprocess.run(command, env=env, capture_output=True, check=True).stdout)
    size = 20 * 2**22
    pages = size // os.sysconf("SC_PAGE_SIZE")
    assert found["told"]["faults"] > 0.9 * pages
    assert found["kept"]["faults"] < 0.01 * pages
    assert found["kept"]["bytes"] > 0.9 * size
    assert found["after"]["bytes"] < 0.1 * size
