"""SIGKILL at random moments of a checkpointed run: it goes on to the same bits, and no file is torn.

PYROVAE_KILLS=50 python -m pytest -n0 -s tests/reliability/test_kills.py
"""

import hashlib
import multiprocessing
import os
import signal
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import pyrovae as pv
from pyrovae.training.checkpoint import read_checkpoint

KILLS = int(os.environ.get("PYROVAE_KILLS", "4"))


def train(folder: Path | None, result: Path, engine: str) -> None:
    """A short run that writes a checkpoint at every chance, and its bits at the end."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = pv.GenerativeModel(pv.nn.MLP(2, 16), pv.GaussianLikelihood(16, 2), 2)
    guide = pv.AmortizedGuide(pv.nn.MLP(2, 16), pv.FullCovariancePosterior(16, 2))
    x = pv.datasets.SYNTHETIC["rotated-gaussian"].sample(144, torch.Generator().manual_seed(0))
    settings = {"epochs": 15, "engine": engine, "progress": False, "validation": x[:40]}
    history = pv.fit(model, guide, x, pv.MonteCarloELBO(), checkpoint=folder, checkpoint_seconds=0.01, **settings)
    bits = hashlib.sha256(np.array(history.batch_loss).tobytes())
    for parameter in [*model.parameters(), *guide.parameters()]:
        bits.update(parameter.detach().numpy().tobytes())
    result.write_text(bits.hexdigest())


def start(*arguments: object) -> "multiprocessing.process.BaseProcess":
    """A process that has imported everything already."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads
        process = multiprocessing.get_context("fork").Process(target=train, args=arguments)
        process.start()
    return process


@pytest.mark.skipif(sys.platform != "linux", reason="processes that share what is imported")
@pytest.mark.parametrize("engine", ["eager", "compiled"])
def test_kills_at_random_moments(engine, tmp_path):
    start(None, tmp_path / "whole", engine).join()  # makes the native code
    begin = time.monotonic()
    start(tmp_path / "timed", tmp_path / "again", engine).join()
    seconds = time.monotonic() - begin
    expected = (tmp_path / "whole").read_text()
    assert (tmp_path / "again").read_text() == expected
    rng = np.random.default_rng(0)
    kills = states = runs = 0
    while kills < KILLS:
        folder, result = tmp_path / f"run{runs}", tmp_path / f"result{runs}"
        runs += 1
        while not result.exists():
            process = start(folder, result, engine)
            process.join(rng.uniform(0, 1.2 * seconds) if kills < KILLS else None)
            if process.is_alive():
                os.kill(process.pid, signal.SIGKILL)
                process.join()
                kills += 1
            for path in folder.glob("checkpoint-*.json"):
                read_checkpoint(path)  # whole, or an error
                states += 1
        assert result.read_text() == expected
        assert len(list(folder.glob("checkpoint-*"))) == 4
    print(
        f"\n{engine}: {kills} kills in {runs} runs of {seconds:.1f} s, {states} states read, every result the same bits"
    )
