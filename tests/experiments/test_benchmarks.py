"""Every benchmark runs with its smallest settings."""

import pandas as pd
import pytest


@pytest.mark.slow
def test_benchmarks(tmp_path, run):
    result = run(
        "experiments.benchmarks.distributions", "--dims", 4, 8, "--repeats", 3, "--out", tmp_path / "distributions"
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "distributions" / "cost.png").exists()
    assert result.stdout.count("| full-covariance ") == 3
    result = run(
        "experiments.benchmarks.estimators", "--repeats", 2, "--batch-sizes", 4, "--particles", 3, "--posteriors",
        "diagonal", "--out", tmp_path / "estimators",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "doubly-reparameterized, K = 3" in result.stdout
    result = run(
        "experiments.benchmarks.training_step", "--repeats", 1, "--seconds", 0.01, "--no-images", "--no-memory",
        "--no-compiled", "--out", tmp_path / "training",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    table = pd.read_csv(tmp_path / "training" / "training_step.csv")
    assert len(table) >= 4 * 3
    assert set(table["implementation"]) >= {"PyTorch by hand", "pyrovae eager", "stock Pyro SVI.step"}
    assert (table["seconds"] > 0).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "tpu"], "choose one of cpu, cuda"),
        (["--dims", "1"], "--dims must be an integer of at least 2, not 1"),
    ],
)
def test_bad_input_of_a_benchmark(arguments, message, run):
    result = run("experiments.benchmarks.distributions", *arguments)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert message in result.stderr


@pytest.mark.slow
def test_start(tmp_path, run):
    result = run("experiments.benchmarks.start", "--repeats", 1, "--out", tmp_path / "start")
    assert result.returncode == 0, result.stderr
    table = pd.read_csv(tmp_path / "start" / "start.csv").set_index("start")
    assert table.loc["import pyro", "ratio"] == 1
    assert table.index.tolist() == ["import pyro", "pyrovae.fit", "pyrovae --help"]
