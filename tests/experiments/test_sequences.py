"""The study of sequences: its script, and the arithmetic of its audit."""

import math

import pytest
import torch
from scipy.optimize import minimize

from experiments.sequences import GPVAEPosterior, clipped_gap
from pyrovae.exact import LinearGaussianStateSpace


@pytest.mark.parametrize("activation", ["sigmoid", "softplus"])
def test_the_released_structure_has_no_positive_correlation_of_neighbours(activation):
    """Against the inverse of B Bᵀ, entry by entry, at T = 3."""
    head = GPVAEPosterior(4, 3, activation).double()
    features = 3 * torch.randn(1000, 4).double()
    covariance = head(features).covariance_matrix
    raw = head.covariance_head(features)
    act = torch.sigmoid(raw) if activation == "sigmoid" else torch.log1p(raw.exp())
    (a, b, c), (u, v) = 1 + act.T[:3], act.T[3:]
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
