"""SIGKILL at random moments of a checkpointed run: it goes on to the same bits, and no file is torn.

PYROVAE_KILLS=50 python -m pytest -n0 -s tests/reliability/test_kills.py
"""

import hashlib
import multiprocessing
import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

import pyrovae as pv
from pyrovae.training import Checkpoints, Trainer
from pyrovae.training.checkpoint import read_checkpoint
from tests.waiting import wait_until

KILLS = int(os.environ.get("PYROVAE_KILLS", "4"))
PHASES = ("at the start", "in training", "in the writing of a checkpoint", "at the end")


def told(call, phase, during, after):
    """A method that says to another process whether it is at work."""

    def run(*arguments):
        phase.value = during
        try:
            return call(*arguments)
        finally:
            phase.value = after

    return run


def train(folder: Path | None, result: Path, engine: str, phase) -> None:
    """A short run that writes a checkpoint at every chance, and its bits at the end."""
    Trainer.run, Checkpoints.save = told(Trainer.run, phase, 1, 3), told(Checkpoints.save, phase, 2, 1)
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


CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([__name__])


def start(*arguments: object) -> "multiprocessing.process.BaseProcess":
    """A process that has imported nearly everything already."""
    process = CONTEXT.Process(target=train, args=arguments)
    process.start()
    return process


@pytest.mark.skipif(sys.platform != "linux", reason="processes that share what is imported")
@pytest.mark.slow
@pytest.mark.parametrize("engine", ["eager", "compiled"])
def test_kills_at_random_moments(engine, tmp_path):
    phase = CONTEXT.RawValue("i")
    start(None, tmp_path / "whole", engine, phase).join()
    process = start(tmp_path / "timed", tmp_path / "again", engine, phase)
    wait_until(lambda: phase.value in (1, 2))
    begin = time.monotonic()
    wait_until(lambda: phase.value == 3)
    seconds = time.monotonic() - begin
    process.join()
    expected = (tmp_path / "whole").read_text()
    assert (tmp_path / "again").read_text() == expected
    rng = np.random.default_rng(0)
    kills: Counter[str] = Counter()
    states = runs = 0
    while kills.total() < KILLS:
        folder, result = tmp_path / f"run{runs}", tmp_path / f"result{runs}"
        runs += 1
        while not result.exists():
            phase.value = 0
            process = start(folder, result, engine, phase)
            if kills.total() % 10:  # else at the start, perhaps
                wait_until(lambda: phase.value > 0)
            process.join(rng.uniform(0, 0.5 * seconds) if kills.total() < KILLS else None)
            if process.is_alive():
                os.kill(process.pid, signal.SIGKILL)
                process.join()
                kills[PHASES[phase.value]] += 1
            for path in folder.glob("checkpoint-*.json"):
                read_checkpoint(path)  # whole, or an error
                states += 1
        assert result.read_text() == expected
        assert len(list(folder.glob("checkpoint-*"))) == 4
    found = ", ".join(f"{kills[name]} {name}" for name in PHASES)
    print(
        f"\n{engine}: {kills.total()} kills ({found}) of {runs} runs of {seconds:.1f} s; {states} states read, all "
        "whole; every result the same bits"
    )
