"""What goes wrong in one part is told there and takes no other along: a lack of memory, NaN, a process that dies."""

import multiprocessing
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

import pyrovae as pv
from pyrovae.commands.main import main
from pyrovae.datasets import simulated
from pyrovae.errors import out_of_memory
from pyrovae.files import locked_folder
from pyrovae.training import Checkpoints, NonFiniteLossError, Trainer, TrainingSettings
from tests.waiting import wait_until


class WithoutMemory(pv.DiagonalPosterior):
    """Asks for more memory than there is, in one way or another."""

    when, how = "training", "torch"

    def __init__(self, in_features, latent_dim):
        super().__init__(in_features, latent_dim)
        if self.when == "construction" and in_features > 1:
            self.fail()

    def forward(self, features):
        if (self.when == "training") == self.training and self.when != "construction":
            self.fail()
        return super().forward(features)

    def fail(self):
        if self.how == "torch":
            torch.empty(2**50)
        elif self.how == "numpy":
            np.empty(2**50)
        elif self.how == "Python":
            raise MemoryError
        elif self.how == "GPU":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        elif self.how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)


def compare(family, out, **options):
    x = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    families = {"diagonal": pv.DiagonalPosterior, "unlucky": family, "full-covariance": pv.FullCovariancePosterior}
    options = {
        "pictures": False,
        "epochs": 2,
        "hidden": (8,),
        "seeds": (0,),
        "progress": False,
        "engine": "eager",
    } | options
    return pv.compare(x, posteriors=families, estimators=[pv.AnalyticELBO()], out=out, **options)


def assert_the_others_finished(table):
    """The other runs' results are there, and the one's rows say what happened."""
    for name, rows in table.groupby("posterior"):
        if name == "unlucky":
            assert rows["note"].str.startswith("failed: out of memory").all(), rows["note"].tolist()
            assert rows["test_neg_elbo"].isna().all()
        else:
            assert rows["test_neg_elbo"].notna().all()
            assert not rows["note"].str.startswith("failed").any()
    assert len(table) == 3


@pytest.mark.parametrize("how", ["torch", "numpy", "Python", "GPU"])
def test_a_lack_of_memory_is_known_whoever_tells_it(how, monkeypatch):
    monkeypatch.setattr(WithoutMemory, "how", how)
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        WithoutMemory(1, 2).fail()
    assert out_of_memory(caught.value).startswith("out of memory: ")


def test_out_of_memory_in_training(tmp_path):
    assert_the_others_finished(compare(WithoutMemory, tmp_path / "out"))
    text = (tmp_path / "out" / "comparison.md").read_text()
    assert "failed: out of memory" in text


@pytest.mark.parametrize("when", [pytest.param("construction", marks=pytest.mark.slow), "evaluation"])
def test_out_of_memory_before_and_after(when, tmp_path, monkeypatch):
    monkeypatch.setattr(WithoutMemory, "when", when)
    assert_the_others_finished(compare(WithoutMemory, tmp_path / "out"))
    assert_the_others_finished(compare(WithoutMemory, tmp_path / "out", resume=True))


def test_other_errors_are_no_lack_of_memory():
    assert out_of_memory(RuntimeError("shapes cannot be multiplied")) is None
    assert out_of_memory(ValueError("not enough memory")) is None


class Killed(WithoutMemory):
    when, how = "training", "killed"


@pytest.mark.slow
def test_a_process_that_the_system_ends(tmp_path):
    table = compare(Killed, tmp_path / "out", workers=2, seeds=(0, 1))
    notes = table.set_index("posterior")["note"]
    assert (notes["unlucky"] == "failed: the system ended its process, perhaps out of memory").all()
    assert table.set_index("posterior")["test_neg_elbo"].notna().sum() == 4
    assert table["test_neg_elbo"].notna().equals(table["posterior"] != "unlucky")


def trainer(checkpoints, engine):
    """A run whose ninth step, in the middle of an epoch, makes its parameters infinite, though its loss is not."""
    torch.manual_seed(0)
    model = pv.GenerativeModel(pv.nn.MLP(2, 8), pv.GaussianLikelihood(8, 3), 2)
    guide = pv.AmortizedGuide(pv.nn.MLP(3, 8), pv.DiagonalPosterior(8, 2))
    x = torch.randn(64, 3)

    def schedule(progress):
        return 1e300 if progress >= 8 / 20 else 1.0

    settings = TrainingSettings(epochs=10, batch_size=32, schedule=schedule, engine=engine)
    return Trainer([(model, guide)], x, pv.AnalyticELBO(), settings, checkpoints=checkpoints, progress=False)


@pytest.mark.parametrize("engine", ["eager", pytest.param("compiled", marks=pytest.mark.slow)])
def test_nan_ends_a_run_and_its_last_good_checkpoint_stays(engine, tmp_path):
    for _ in range(2):  # and so it does when it is gone on with
        with Checkpoints(tmp_path, seconds=0) as checkpoints:
            run = trainer(checkpoints, engine)
            with pytest.raises(NonFiniteLossError, match=r"at step 10 \(epoch 5\): first non-finite value: .*"):
                run.run()
        with Checkpoints(tmp_path) as checkpoints:
            state = checkpoints.load()["state"]["engine"]
        assert 0 < state["steps"] <= 8
        assert all(t.isfinite().all() for t in _tensors(state))


def _tensors(value):
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _tensors(item)


def test_a_second_fit_or_comparison_in_one_folder(tmp_path, capsys):
    np.save(tmp_path / "x.npy", simulated(60, 6).x.numpy())
    for name in ("fit", "compare"):
        with locked_folder(tmp_path / "run"), pytest.raises(SystemExit) as stop:
            main([name, str(tmp_path / "x.npy"), "--out", str(tmp_path / "run"), "--epochs", "1"])
        said, errors = capsys.readouterr()
        assert stop.value.code == 2
        assert "read 60 spectra" in said
        assert errors.startswith("error: another run is writing to ")
        assert errors.count("\n") == 1
    with locked_folder(tmp_path / "out"), pytest.raises(ValueError, match="another run is writing to"):
        compare(pv.DiagonalPosterior, tmp_path / "out")


def test_two_signals_to_a_fit(tmp_path):
    """The first writes a checkpoint, a second one ends it at once: no traceback, no torn file, and it goes on."""
    x = simulated(60, 6).x.numpy()
    np.save(tmp_path / "x.npy", x)
    out = tmp_path / "run"
    command = [sys.executable, "-m", "pyrovae", "fit", tmp_path / "x.npy", "--out", out, "--hidden", "8"]
    process = subprocess.Popen(
        [*command, "--engine", "eager", "--epochs", "100000", "--checkpoint-seconds", "0.05"],
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: list(out.glob("checkpoints/checkpoint-*.json")) or process.poll() is not None)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert "Traceback" not in errors
    assert process.returncode in (130, -signal.SIGTERM)
    assert not list(out.rglob(".partial-*"))
    with Checkpoints(out / "checkpoints") as checkpoints:
        assert checkpoints.load()["state"]["engine"]["steps"] > 0


def hold(folder):
    with Checkpoints(folder):
        (folder / "held").touch()
        signal.pause()


def test_a_lock_of_a_dead_process_holds_nobody_up(tmp_path):
    child = multiprocessing.get_context("spawn").Process(target=hold, args=(tmp_path,))
    child.start()
    wait_until((tmp_path / "held").exists)
    with pytest.raises(ValueError, match=r"another run is writing to .*; wait until it ends, or give another folder"):
        Checkpoints(tmp_path).__enter__()  # as a context is entered
    child.kill()
    child.join()
    with Checkpoints(tmp_path):
        pass
