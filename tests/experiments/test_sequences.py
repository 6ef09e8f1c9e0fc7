"""The study of sequences: its script, and the arithmetic of its audit."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import minimize

from experiments.sequences import GPVAEPosterior, Settings, clipped_gap, timings
from experiments.series import FAMILIES
from pyrovae.distributions import covariance_of
from pyrovae.exact import LinearGaussianStateSpace


@pytest.mark.parametrize("activation", ["sigmoid", "softplus"])
def test_the_released_structure_has_no_positive_correlation_of_neighbours(activation):
    """Against the inverse of B Bᵀ, entry by entry, at T = 3."""
    head = GPVAEPosterior(3 * 4, 3 * 2, channels=2, activation=activation).double()
    features = 3 * torch.randn(1000, 3 * 4).double()
    both = head(features).covariance_matrix.unflatten(-1, (3, 2)).unflatten(-3, (3, 2))
    assert (both[:, :, 0, :, 1] == 0).all()  # channels are independent
    covariance = both[:, :, 1, :, 1]
    raw = head.covariance_head(features.unflatten(-1, (3, 4)))[..., 1::2]  # of the second channel
    act = torch.sigmoid(raw) if activation == "sigmoid" else torch.log1p(raw.exp())
    (a, b, c), (_, u, v) = 1 + act[..., 0].T, act[..., 1].T
    # B⁻¹ by hand: Σ = B⁻ᵀ B⁻¹
    first, second, third = (
        (1 / a, 0 * a, 0 * a),
        (-u / (a * b), 1 / b, 0 * a),
        (u * v / (a * b * c), -v / (b * c), 1 / c),
    )
    rows = (first, second, third)
    for i in range(3):
        for j in range(3):
            expected = sum(rows[i][k] * rows[j][k] for k in range(3))
            torch.testing.assert_close(covariance[:, i, j], expected)
    assert (covariance.diagonal(1, dim1=-2, dim2=-1) < 0).all()
    if activation == "sigmoid":
        assert (covariance.diagonal(dim1=-2, dim2=-1) > 0.25).all()


@pytest.mark.parametrize("noise", [1.0, 0.3])
@pytest.mark.parametrize("most", [2.0, math.inf])
def test_its_best_member_at_three_steps(noise, most):
    """Against a search over the five entries of B, by dense algebra, from several starts."""
    truth = LinearGaussianStateSpace(3, 0.9, 1.0, noise)
    bounds = [(1, min(most, 50))] * 3 + [(0, min(most - 1, 50))] * 2

    def kl(entries):
        b = torch.tensor(entries)
        factor = b[:3].diag() + b[3:].diag(1)
        precision = factor @ factor.T
        trace = (truth.precision * torch.linalg.inv(precision)).sum() - 3
        return 0.5 * (trace + torch.logdet(precision) - torch.logdet(truth.precision)).item()

    generator = torch.Generator().manual_seed(0)
    starts = [[low + (min(high, 3) - low) * torch.rand((), generator=generator).item() for low, high in bounds]]
    starts += [[1.5, 1.5, 1.5, 0.5, 0.5], [1.1, 1.1, 1.1, 0.01, 0.01]]
    best = min((minimize(kl, start, bounds=bounds, method="L-BFGS-B") for start in starts), key=lambda found: found.fun)
    assert clipped_gap(truth.precision, most) == pytest.approx(best.fun, abs=1e-5)
    assert best.x[3:].max() < 1e-4
    if most == math.inf:
        assert clipped_gap(truth.precision, most) == pytest.approx(truth.gap("diagonal"), abs=1e-9)


def test_the_numbers_of_the_audit():
    """What was found by reading the released code, by another program."""
    for noise, expected in ((1.0, 11.46), (0.3, 30.06), (0.1, 275.9)):
        truth = LinearGaussianStateSpace(24, 0.9, 1.0, noise)
        assert clipped_gap(truth.precision, 2.0) == pytest.approx(expected, abs=0.05)
    with pytest.raises(ValueError, match="neighbours correlate negatively"):
        clipped_gap(LinearGaussianStateSpace(3, -0.9, 1.0, 1.0).precision, 2.0)


def test_one_length_has_no_exponent():
    table, exponents = timings(Settings(timed=(5,)))
    assert (table["T"].tolist(), exponents) == ([5], {})


@pytest.mark.slow
def test_sequences(tmp_path, run):
    small = ("--seeds", 2, "--updates", 125, "--steps", 5, 12, "--trained", 5, "--timed", 10, 20)
    result = run("experiments.sequences", *small, "--out", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert {path.name for path in (tmp_path / "out").glob("*.csv")} == {
        "predicted.csv",
        "trained.csv",
        "audit.csv",
        "timings.csv",
    }
    assert result.stdout.count("## ") == 4
    assert run("experiments.sequences", "--correlation", 1).returncode == 2


@pytest.mark.slow
def test_series(tmp_path, run):
    """Of a file, and of images that turn: every family is trained, and fills in the gaps."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(60, 12, generator=g).cumsum(1)
    path = tmp_path / "series.csv"
    path.write_text("\n".join([",".join(map(str, range(12)))] + [",".join(f"{v:.4f}" for v in row) for row in x]))
    small = ("--seeds", 2, "--epochs", 1, "--channels", 2, "--width", 8, "--samples", 30)
    for how in (("--data", path), ("--num-images", 50, "--frames", 3)):
        out = tmp_path / how[0].strip("-")
        result = run("experiments.series", *small, *how, "--out", out)
        assert result.returncode == 0, result.stderr
        runs = pd.read_csv(out / "runs.csv")
        assert list(runs["family"]) == [name for name in FAMILIES for _ in range(2)]
        assert np.isfinite(runs[["log_prob", "elbo", "rmse"]]).all(axis=None)
        assert (runs["log_prob"] > runs["elbo"] - 1).all()
        assert runs["inside"].between(0.4, 1).all()
    assert run("experiments.series", "--gap", 0).returncode == 2


@pytest.mark.parametrize("family", FAMILIES)
def test_families_of_channels_are_what_they_say(family):
    """Which covariances of steps and channels are 0."""
    q = FAMILIES[family](5 * 4, 5 * 2, channels=2)(3 * torch.randn(7, 5 * 4))
    covariance = covariance_of(q).unflatten(-1, (5, 2)).unflatten(-3, (5, 2))  # (num, t, i, s, j)
    between_channels, between_steps = covariance[:, :, 0, :, 1], covariance[:, 0, 0, 1:, 0]
    assert (between_channels.abs().max() > 1e-3) == (family == "markov")
    assert (between_steps.abs().max() > 1e-3) == (family != "diagonal")
