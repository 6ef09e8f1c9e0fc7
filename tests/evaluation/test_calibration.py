"""Ranks of simulated z: uniform under the exact posterior of a linear model, and not under a wrong q."""

import pytest
import torch

import pyrovae as pv
from tests.pairs import make_pair


def narrower(linear, factor):
    """The exact posterior with standard deviations multiplied."""
    return linear.gaussian_guide(linear.gain, factor**2 * linear.covariance)


def test_the_exact_posterior_is_calibrated(linear):
    """The smallest p-value of 30 simulations is below 0.0002 once in 160."""
    found = [pv.calibration(linear.to_model(), linear.to_guide(), num=300, num_draws=99, seed=s) for s in range(30)]
    assert min(each.p_value for each in found) > 2e-4
    small = sum(p < 0.1 for each in found for p in each.p_values.values())
    assert 1 <= small <= 20  # 90 tests: 9 expected, dependent within a simulation


@pytest.mark.parametrize("factor", [0.8, 1.25])
def test_a_q_too_narrow_or_too_wide_by_a_fifth_is_rejected(linear, factor):
    for seed in range(3):
        found = pv.calibration(linear.to_model(), narrower(linear, factor), seed=seed)
        assert found.p_value < 0.01


def test_coverage_is_that_of_the_narrower_gaussian(linear):
    """P(|ε| < 1.645 · 0.8) = 0.812; 2,000 data, within 5 standard errors: fails once in 500,000."""
    found = pv.calibration(linear.to_model(), narrower(linear, 0.8), num_draws=999)
    for share in found.coverage(0.9).values():
        assert share == pytest.approx(0.812, abs=5 * (0.812 * 0.188 / 2000) ** 0.5)
    assert list(found.coverage()) == ["z_1", "z_2"]


def test_the_rank_of_log_q_sees_correlations_that_no_dimension_shows():
    """A q with the right marginals and without their correlation of 0.9."""
    truth = pv.exact.LinearGaussianVAE(torch.tensor([[1.0, 1.0]]), 0.3, torch.zeros(1))
    marginals = truth.covariance.diagonal().diag()
    p_values = pv.calibration(truth.to_model(), truth.gaussian_guide(truth.gain, marginals)).p_values
    assert min(p_values["z_1"], p_values["z_2"]) > 0.01
    assert p_values["log q(z|x)"] < 1e-6


def test_the_callers_state_stays_and_the_seed_decides():
    model, guide = make_pair(pv.FlowPosterior, dtype=torch.float32)
    before = torch.random.get_rng_state()
    found = [pv.calibration(model, guide, num=200, seed=seed).ranks for seed in (0, 0, 1)]
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert found[0].shape == (200, 3)
    assert ((found[0] > 0) & (found[0] < 1)).all()


def test_the_picture_and_the_words(linear):
    found = pv.calibration(linear.to_model(), linear.to_guide(), num=200)
    assert [text.get_text() for text in found.plot().axes[0].get_legend().get_texts()] == ["z_1", "z_2", "log q(z|x)"]
    assert "90 % intervals hold" in str(found)
    with pytest.raises(pv.InputError, match="num must be an integer of at least 100"):
        pv.calibration(linear.to_model(), linear.to_guide(), num=10)
    with pytest.raises(pv.InputError, match="level must be between 0 and 1"):
        found.coverage(90)
