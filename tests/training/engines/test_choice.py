"""The engine that ``"auto"`` chooses: by the number of steps, the programs and what is installed."""

import sys

import pytest
import torch

import pyrovae as pv
from pyrovae.training import CannotCompileError, CannotTraceError, Trainer, TrainingSettings
from tests.training.runs import data, fit, make_pair


@pytest.mark.slow
def test_auto_compiles_what_pays(capsys):
    settings = TrainingSettings(epochs=50)  # 5 steps each
    for least_steps, engine, why in (
        (250, "compiled", "compiling pays for 250 steps"),
        (251, "eager", "250 steps are too few to compile; it pays from 251 on"),
    ):
        trainer = Trainer([make_pair()], data(), pv.MonteCarloELBO(), settings, least_steps=least_steps)
        assert trainer.engine.name == trainer.histories[0].engine == engine
        assert f"{engine} engine: {why}" in capsys.readouterr().err


@pytest.mark.slow
def test_replicas_that_are_not_compiled_are_one_graph():
    pairs = [make_pair("full-covariance", seed=seed) for seed in range(3)]
    for epochs, least_steps, engine in ((20, 301, "graph"), (20, 300, "compiled")):
        settings = TrainingSettings(epochs=epochs)  # 5 steps each
        trainer = Trainer(pairs, data(), pv.MonteCarloELBO(), settings, progress=False, least_steps=least_steps)
        assert trainer.engine.name == engine


def test_without_jax(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "jax", None)
    trainer = Trainer([make_pair()], data(), pv.AnalyticELBO(), TrainingSettings(epochs=50), least_steps=250)
    assert trainer.engine.name == "eager"
    assert "eager engine: jax is not installed" in capsys.readouterr().err
    with pytest.raises(CannotCompileError, match=r"jax is not installed .*pyrovae\[xla\].*; use engine='eager'$"):
        fit(*make_pair(), data(), pv.AnalyticELBO(), "compiled", epochs=50)


def test_programs_with_an_operation_that_is_not_known(capsys):
    x = torch.rand(64, 16)
    reason = "the compiled engine does not support convolution, convolution_backward"

    def pair():
        decoder = pv.nn.MLP(2, 8)
        model = pv.GenerativeModel(decoder, pv.BernoulliLikelihood(8, 16), 2)
        encoder = pv.nn.ConvEncoder(2, side=4)
        return model, pv.AmortizedGuide(encoder, pv.DiagonalPosterior(encoder.out_features, 2))

    with pytest.raises(CannotTraceError, match=f"{reason}; use engine='eager'"):
        fit(*pair(), x.round(), pv.AnalyticELBO(), "compiled", epochs=50)
    trainer = Trainer([pair()], x.round(), pv.AnalyticELBO(), TrainingSettings(epochs=50), least_steps=100)
    assert trainer.engine.name == "eager"
    assert f"eager engine: {reason}" in capsys.readouterr().err


def test_an_unknown_engine():
    with pytest.raises(ValueError, match="unknown engine 'fast'; choose one of auto, eager, compiled, graph"):
        fit(*make_pair(), data(), pv.AnalyticELBO(), "fast", epochs=1)
