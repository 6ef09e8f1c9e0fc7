"""Processes that share one training, as torchrun starts them."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

import pyrovae as pv
from pyrovae.errors import InputError, LostProcessError
from pyrovae.training import processes
from pyrovae.training._process import deferred_signals
from tests.training.runs import data, make_pair

ROOT = Path(__file__).parents[2]
CASES = [(family, elbo) for family in ("full-covariance", "ar1") for elbo in (pv.AnalyticELBO, pv.MonteCarloELBO)]
SETTINGS = {
    "epochs": 3, "batch_size": 32, "learning_rate": 0.01, "clip_norm": 5.0, "beta": pv.linear_warmup(0.5),
    "progress": False,
}  # fmt: skip


def torchrun(size, *words):
    """Run a module on so many processes; the result, with its output."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(size), "--master-port", str(port)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, "-m", *map(str, words)], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


class Mortal(nn.Module):
    """Kills its process at a call, of the rank and number in the environment."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        if os.environ.get("KILLED") == f"{processes.rank()} {self.calls}":
            os.kill(os.getpid(), signal.SIGKILL)
        return x


def mortal_pair():
    model, guide = make_pair("full-covariance")
    guide.encoder = nn.Sequential(guide.encoder, Mortal())
    return model, guide


class Centred(nn.Module):
    """Mixes the rows of a batch."""

    def forward(self, x):
        return x - x.mean(0)


def trained(pair, elbo, **settings):
    history = pv.fit(*pair, data(98), elbo, validation=data(40, seed=1), **{**SETTINGS, **settings})
    return {
        "losses": torch.tensor(history.batch_loss).double(),
        "epochs": torch.tensor([epoch.validation_loss for epoch in history.epochs]),
        **{f"{k} {name}": p.detach() for k, program in enumerate(pair) for name, p in program.named_parameters()},
    }


def main(folder, what):
    """What each process does."""
    folder, found, said = Path(folder), {}, []
    processes.join()
    if what == "cases":
        for family, elbo in CASES:  # which other processes start elsewhere
            result = trained(make_pair(family, seed=1 + processes.rank()), elbo(), on_epoch=said.append)
            found |= {f"{family} {elbo.__name__} {name}": value for name, value in result.items()}
        assert len(said) == (0 if processes.rank() else len(CASES) * SETTINGS["epochs"])
        (model, guide), elbo = make_pair("diagonal"), pv.AnalyticELBO()
        guide.encoder = nn.Sequential(guide.encoder, Centred())
        for message, wrong in (
            ("mix the rows of a batch", lambda: trained((model, guide), elbo)),
            ("cannot share replicas", lambda: trained(make_pair(), elbo, num_replicas=2)),
            ("share the eager engine, not the graph one", lambda: trained(make_pair(), elbo, engine="graph")),
            ("settings of process 1 are not those", lambda: trained(make_pair(), elbo, seed=processes.rank())),
        ):
            with pytest.raises(InputError, match=message):
                wrong()
    else:
        found = trained(mortal_pair(), pv.MonteCarloELBO(), checkpoint=folder / what, checkpoint_seconds=0.0)
    safetensors.torch.save_file(found, folder / f"{what}-{processes.size()}-{processes.rank()}.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 3])
def test_the_update_is_that_of_one_process(size, tmp_path):
    run = torchrun(size, __name__, tmp_path, "cases")
    assert run.returncode == 0, run.stderr
    for rank in range(size):
        found = safetensors.torch.load_file(tmp_path / f"cases-{size}-{rank}.safetensors")
        for family, elbo in CASES:
            for name, value in trained(make_pair(family), elbo()).items():
                torch.testing.assert_close(found[f"{family} {elbo.__name__} {name}"], value, atol=1e-13, rtol=1e-13)


@pytest.mark.slow
@pytest.mark.parametrize(("size", "killed"), [(2, 1), (3, 0)])
def test_a_killed_process_and_the_same_bits_after_it(size, killed, tmp_path, monkeypatch):
    assert torchrun(size, __name__, tmp_path, "whole").returncode == 0
    monkeypatch.setenv("KILLED", f"{killed} 21")  # in the third epoch, after checks and steps
    run = torchrun(size, __name__, tmp_path, "killed")
    assert run.returncode != 0
    assert "LostProcessError: another process of this training has ended" in run.stderr
    states = sorted((tmp_path / "killed").glob("*.json"))
    assert states
    assert 0 < int(states[-1].stem.rpartition("-")[2]) < SETTINGS["epochs"] * 4
    monkeypatch.delenv("KILLED")
    assert torchrun(size, __name__, tmp_path, "killed").returncode == 0
    for rank in range(size):
        whole, resumed = (
            safetensors.torch.load_file(tmp_path / f"{what}-{size}-{rank}.safetensors") for what in ("whole", "killed")
        )
        assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_torchrun_may_not_end_a_process_that_is_about_to_say_why():
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(LostProcessError), deferred_signals(active=True):
            raise LostProcessError("another process of this training has ended")
        os.kill(os.getpid(), signal.SIGTERM)  # would end this test
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.slow
def test_the_console(tmp_path):
    """One log, one set of files; the same result as one process to float32's rounding."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((120, 2)) @ rng.standard_normal((2, 12)) + 0.1 * rng.standard_normal((120, 12))
    np.save(tmp_path / "x.npy", x)
    words = ("pyrovae", "fit", tmp_path / "x.npy", "--epochs", "4", "--latent-dim", "2")
    shared = torchrun(2, *words, "--out", tmp_path / "shared")
    assert shared.returncode == 0, shared.stderr
    assert shared.stdout.count("log p(x) of the test data") == shared.stdout.count("read 120 spectra") == 1
    assert shared.stderr.count("eager engine: 2 processes share each batch") == 1
    alone = torchrun(1, *words, "--out", tmp_path / "alone", "--engine", "eager")
    assert "eager engine: as asked for" in alone.stderr
    first, second = (safetensors.torch.load_file(tmp_path / name / "model.safetensors") for name in ("alone", "shared"))
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, atol=1e-4, rtol=1e-4)
    wrong = torchrun(2, *words, "--out", tmp_path / "wrong", "--batch-size", "0")
    assert wrong.stderr.count("error: ") == 1


def test_without_torchrun_there_is_one_process(monkeypatch):
    processes.join()
    assert (processes.size(), processes.rank(), processes.total(2.5), processes.any_of(False)) == (1, 0, 2.5, False)
    assert processes.from_first(lambda: 3.0) == 3.0
    processes.check_equal("nothing", object())


def test_comparisons_are_not_shared(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match=r"share one fit, not a comparison; use workers=… without torchrun"):
        pv.compare(data(), posteriors=["diagonal"], estimators=["analytic"], epochs=1)


def test_other_errors_are_left_as_they_are():
    with pytest.raises(RuntimeError, match="of another kind"), processes.ending_in_one_line():
        raise RuntimeError("of another kind")
    lost = r"^another process of this training has ended; .* \(PyTorch: Connection reset by peer\)$"
    with pytest.raises(LostProcessError, match=lost), processes.ending_in_one_line():
        raise RuntimeError("[/a/gloo/pair.cc:537] Read error [127.0.0.1]:41869: Connection reset by peer")


if __name__ == "__main__":
    main(*sys.argv[1:])
