"""The engine that ``"auto"`` chooses: by the number of steps, the programs and the compiler."""

import pytest

import pyrovae as pv
from pyrovae.training import CannotCompileError, Trainer, TrainingSettings
from tests.training.runs import data, fit, make_pair


@pytest.mark.slow
def test_auto_compiles_what_pays(capsys):
    settings = TrainingSettings(epochs=50)  # 5 steps each
    for least_steps, engine, why in (
        (250, "compiled", "250 steps pay for compiling"),
        (251, "eager", "250 steps do not pay for compiling, which takes 251"),
    ):
        trainer = Trainer([make_pair()], data(), pv.MonteCarloELBO(), settings, least_steps=least_steps)
        assert trainer.engine.name == trainer.histories[0].engine == engine
        assert f"{engine} engine: {why}" in capsys.readouterr().err


@pytest.mark.slow
def test_auto_does_not_depend_on_code_that_is_there(monkeypatch, tmp_path):
    settings = TrainingSettings(epochs=50)
    for _ in range(2):
        assert Trainer([make_pair()], data(), pv.MonteCarloELBO(), settings, progress=False).engine.name == "eager"
        fit(*make_pair(), data(), pv.MonteCarloELBO(), "compiled", epochs=1)


@pytest.mark.slow
def test_replicas_that_are_not_compiled_are_one_graph():
    pairs = [make_pair("full-covariance", seed=seed) for seed in range(3)]
    for epochs, least_steps, engine in ((20, 301, "graph"), (20, 300, "compiled")):
        settings = TrainingSettings(epochs=epochs)  # 5 steps each
        trainer = Trainer(pairs, data(), pv.MonteCarloELBO(), settings, progress=False, least_steps=least_steps)
        assert trainer.engine.name == engine


def test_without_a_compiler(monkeypatch, tmp_path, capsys):
    import torch._inductor.config  # noqa: F401, it remembers CXX from its import on

    monkeypatch.setenv("CXX", "/nonexistent")
    monkeypatch.setenv("PYROVAE_CACHE", str(tmp_path / "cache"))
    trainer = Trainer([make_pair()], data(), pv.AnalyticELBO(), TrainingSettings(epochs=50), least_steps=250)
    assert trainer.engine.name == "eager"
    assert "eager engine: there is no C++ compiler /nonexistent" in capsys.readouterr().err
    with pytest.raises(CannotCompileError, match="no C\\+\\+ compiler /nonexistent"):
        fit(*make_pair(), data(), pv.AnalyticELBO(), "compiled", epochs=50)
    assert not list((tmp_path / "cache").glob("*"))


def test_an_unknown_engine():
    with pytest.raises(ValueError, match="unknown engine 'fast'; choose one of auto, eager, compiled, graph"):
        fit(*make_pair(), data(), pv.AnalyticELBO(), "fast", epochs=1)
