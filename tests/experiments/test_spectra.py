"""The study of spectra: its script, its parts against truths known another way, its benchmark."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

import pyrovae as pv
from experiments.benchmarks.spectra import fill_at_once, fill_by_datum, identity_log_prob
from experiments.spectra import reading, recovery
from experiments.spectra.checks import autocorrelation, check
from experiments.spectra.questions import counts, short_training
from experiments.spectra.sets import split
from experiments.spectra.study import Found
from pyrovae.datasets import Standardize, simulated
from pyrovae.distributions import tril_position
from pyrovae.linear_gaussian.exact import LinearGaussianVAE

TINY = [
    "--epochs", 2, "--hidden", 8, "--latent-dim", 2, "--samples", 30, "--batch-size", 50, "--data-sets", 1,
    "--recovery-epochs", 1, "--trainings", 1, "--repeats", 1, "--workers", 1,
]  # fmt: skip


@pytest.mark.slow
def test_the_script(tmp_path, run):
    result = run(
        "experiments.spectra", *TINY, "--num", 100, "--channels", 12, "--seeds", 2, "--learning-rates", 1e-3, 1e-2,
        "--posteriors", "diagonal", "--likelihoods", "gaussian", "ar1", "--out", tmp_path / "out",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    for row in (
        "diagonal, gaussian",
        "diagonal, ar1",
        "PCA",
        "probabilistic PCA",
        "factor analysis",
        "linear, ar1",
        "the truth",
    ):
        assert f"| {row} " in result.stdout
    for words in ("Is it wrong to expect", "Must the Cholesky diagonal", "Why is it slow", "The sign of the loss"):
        assert words in result.stdout
    runs = pd.read_csv(tmp_path / "out" / "simulated-runs.csv")
    assert len(runs) == 4
    assert runs["coverage"].between(0, 1).all()
    assert runs.groupby("likelihood")["learning_rate"].nunique().eq(1).all()
    rates = pd.read_csv(tmp_path / "out" / "simulated" / "rates.csv")
    best = rates.loc[rates.groupby("likelihood")["validation_loss"].idxmin()].set_index("likelihood")
    assert runs.set_index("likelihood")["learning_rate"].to_dict() == best["learning_rate"].to_dict()
    assert "cannot be trusted" in result.stdout
    assert "**Too few: " in result.stdout  # 15 test spectra
    for picture in ("bands", "residuals", "latent", "sweeps", "noise-correlation"):
        assert (tmp_path / "out" / f"simulated-{picture}.png").stat().st_size > 5000


@pytest.mark.slow
def test_files_of_ones_own(tmp_path, run):
    spectra = simulated(60, 8, seed=1)
    for name, extra in (("random", {}), ("timed", {"datetime": pd.date_range("2026-01-01", periods=60, freq="6h")})):
        columns = {f"{900 + 2 * i}": spectra.x[:, i] for i in range(8)}
        table = pd.DataFrame({**extra, "fat": range(60), **columns}).sample(frac=1, random_state=0)
        table.to_csv(tmp_path / f"{name}.csv", index=False)
    result = run(
        "experiments.spectra", *TINY, "--parts", "spectra", "--data", tmp_path / "random.csv", tmp_path / "timed.csv",
        "--seeds", 1, "--learning-rates", 1e-2, "--posteriors", "diagonal", "--likelihoods", "low-rank",
        "gaussian-per-datum", "--color", "fat", "--out", tmp_path / "out",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "## Spectra: random" in result.stdout
    assert "split in blocks of whole days by datetime (15 days, none in two parts)" in result.stdout
    assert "| diagonal, gaussian-per-datum " in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--likelihoods", "bernoulli"], "unknown --likelihoods 'bernoulli'"),
        (["--posteriors", "fullcovariance"], "did you mean 'full-covariance'?"),
        (["--data", "nowhere.csv"], "there is no file nowhere.csv"),
        (["--seeds", "0"], "--seeds must be a positive integer, not 0"),
        (["--parts", "all"], "unknown --parts 'all'"),
    ],
)
def test_bad_input(tmp_path, arguments, message, run):
    result = run("experiments.spectra", *TINY, *arguments, "--out", tmp_path / "out")
    assert (result.returncode, result.stderr.count("\n")) == (2, 1), result.stderr
    assert message in result.stderr


def test_blocks_of_days_are_in_order():
    spectra = simulated(60, 8)
    times = pd.date_range("2026-01-01", periods=60, freq="6h")[::-1]
    timed = pv.datasets.Spectra(spectra.x, spectra.axis, "nm", pd.DataFrame({"datetime": times.astype(str)}))
    parts = split("x", timed, "datetime", [])
    assert parts.train.targets["datetime"].max() < parts.validation.targets["datetime"].min()
    assert parts.validation.targets["datetime"].max() < parts.test.targets["datetime"].min()


def test_checks_of_the_true_model_find_what_it_is():
    """A linear-Gaussian model with its exact posterior: everything that a check says is known."""
    torch.manual_seed(0)
    vae = LinearGaussianVAE(torch.randn(12, 2), 0.4, torch.randn(12))
    x = vae.sample(1500)
    step = Standardize("mean", mean=[0.0] * 12, scale=[1.0] * 12)
    found = check(vae.to_model(), vae.to_guide(), step, x, samples=50)
    torch.testing.assert_close(found.marginal.per_datum, vae.log_prob(x))  # weights at the posterior are all alike
    m = found.metrics
    assert m["num_untrusted"] == 0
    terms = pv.elbo_terms(vae.to_model(), vae.to_guide(), x)  # four standard errors: a false alarm in 16,000
    assert m["lost_by_encoder"] == pytest.approx(0, abs=4 * terms.estimate.stderr_monte_carlo)
    assert (m["sigma"], m["rho"]) == (pytest.approx(0.4), pytest.approx(0, abs=1e-12))
    # the band is of q(z|x) p(x'|z) at the x it was given: variance 2a − a² of the σ² I, a = A C Aᵀ / σ² there
    hat = (vae.loadings @ vae.covariance @ vae.loadings.T / 0.16).diagonal()
    half = 1.6449 * torch.sqrt(0.16 * (1 + hat))
    truth = torch.special.ndtr(half / torch.sqrt(0.16 * (1 - hat))) * 2 - 1
    assert m["coverage"] == pytest.approx(truth.mean().item(), abs=0.01)
    expected = 0.4 * (1 - hat).mean().sqrt().item()
    assert m["rmse"] == pytest.approx(expected, rel=0.03)


def test_what_is_better_is_told_by_the_rules_of_recommend():
    """Cells by validation alone: the one that is best on the test spectra is another."""
    runs = pd.DataFrame(
        [("diagonal", "gaussian", 1.0), ("diagonal", "ar1", 3.0), ("full-covariance", "ar1", 2.0)],
        columns=["posterior", "likelihood", "validation_loss"],
    )
    noise = torch.randn(3, 50, generator=torch.Generator().manual_seed(0)).double()
    shifts = {"diagonal, gaussian": 0.0, "diagonal, ar1": 5.0, "full-covariance, ar1": 2.0}
    found = Found(
        runs,
        pd.DataFrame(),
        {},
        {name: [pv.evaluation.LogMarginal.exact(row + shift) for row in noise] for name, shift in shifts.items()},
        None,
        {},
    )
    assert reading.name_of(reading.best_cell(runs)) == "diagonal, gaussian"
    (row,) = reading.gains(found)
    assert row[:2] == ("ar1", "gaussian")
    assert row[2].gain == pytest.approx(2.0)
    assert row[2].low <= row[2].gain <= row[2].high
    advice = reading.advice_of(found)
    assert (advice.choice, advice.num_seeds) == ("diagonal, ar1", 3)
    assert reading.chosen(advice).gain == pytest.approx(5.0)


def test_autocorrelation_is_that_of_the_noise():
    noise = pv.distributions.AR1Normal(torch.zeros(50), torch.linspace(0.5, 5, 50), correlation=torch.tensor([0.7]))
    torch.manual_seed(0)
    assert autocorrelation(noise.sample(torch.Size([2000])).double()) == pytest.approx(0.7, abs=0.01)


def test_standard_errors_are_those_of_maximum_likelihood():
    """Against the spread of the maximum-likelihood ρ and σ where all else is known to be nothing: plain AR(1) noise."""
    truth = recovery.spectra(0, 10).truth
    sigma, rho = recovery.standard_errors(truth, 1000)
    n = recovery.CHANNELS
    # known in closed form without latents; with three of sixty directions to be told from noise it is a little more
    alone = math.sqrt((1 - 0.9**2) / (1000 * (n - 1)))
    assert alone < rho < 3 * alone
    assert recovery.standard_errors(truth, 4000)[1] == pytest.approx(rho / 2)
    assert 0.01 / math.sqrt(2 * n * 1000) < sigma < 0.01 * 0.02


@pytest.mark.slow
def test_the_noise_is_recovered_and_ar1_gains_what_the_truth_implies(monkeypatch):
    monkeypatch.setattr(recovery, "NUM_TRAIN", 2000)
    monkeypatch.setattr(recovery, "NUM_TEST", 2000)
    data = recovery.spectra(2, 4000)
    train, test = data.x.double().split(2000)
    fitted = recovery.fit_linear(train, "ar1", 3, epochs=200, seed=0, engine="eager")
    of_sigma, of_rho = recovery.standard_errors(data.truth, 2000)
    assert abs(fitted.correlation - 0.9) < 3 * of_rho
    assert abs(fitted.noise_scale - 0.01) < 3 * of_sigma
    ppca = LinearGaussianVAE.fit(train, 3).log_prob(test)
    implied = (data.truth.log_prob(test) - ppca).mean().item()
    gain = (fitted.marginal.log_prob(test) - ppca).mean().item()
    assert implied > 30
    assert gain == pytest.approx(implied, abs=0.5)


def test_what_is_compared_is_the_same():
    torch.manual_seed(0)
    raw = torch.randn(3, 10)
    torch.testing.assert_close(fill_by_datum(raw, 4), fill_at_once(raw, 4, tril_position(4)))
    x, x_hat = torch.randn(2, 3, 7, dtype=torch.float64)
    torch.testing.assert_close(identity_log_prob(x_hat, x, True), identity_log_prob(x_hat, x, False))


def test_a_relu_diagonal_breaks_at_once_and_ours_does_not():
    assert short_training("ReLU", 1e-3, 0)["broke_at"] == 1
    assert short_training("softplus + 1e-6 (pyrovae)", 1e-3, 0)["broke_at"] is None
    wrong, right = (short_training("softplus", 1e-3, 0, sign)["log_likelihood"] for sign in (1.0, -1.0))
    assert wrong < -1e6 < right
    table = counts(pd.DataFrame([short_training("ReLU", rate, 0) for rate in (1e-3, 1e-2)]))
    assert table.iloc[0, 1:3].tolist() == ["1 of 1", "1 of 1"]


@pytest.mark.slow
def test_the_benchmark(tmp_path, run):
    result = run(
        "experiments.benchmarks.spectra", "--batch-size", 4, "--latent-dim", 3, "--channels", 6, "--many-channels", 12,
        "--repeats", 1, "--engine", "eager", "--out", tmp_path / "out",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    table = pd.read_csv(tmp_path / "out" / "spectra.csv")
    assert len(table) == 11
    assert np.isfinite(table["ratio"]).all()
    assert set(table["bar"].dropna()) == {"≥ 40", "≤ 1.5", "≤ 3"}
