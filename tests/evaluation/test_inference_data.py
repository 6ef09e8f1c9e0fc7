"""ArviZ's groups of a linear-Gaussian model, whose posterior and log p(x) are known exactly."""

import sys

import numpy as np
import pandas as pd
import pytest
import torch

import pyrovae as pv


@pytest.fixture
def az():
    """ArviZ, which takes seconds to import."""
    return pytest.importorskip("arviz")


@pytest.fixture
def x(linear):
    rows, columns = [f"sample {i}" for i in range(150)], ["900 nm", "910 nm", "920 nm"]
    return pd.DataFrame(linear.sample(150).numpy(), index=rows, columns=columns)


@pytest.fixture
def found(linear, x, az):
    return pv.to_inference_data(linear.to_model(), linear.to_guide("isotropic"), x)


@pytest.mark.slow
def test_loo_is_the_sum_of_log_p(linear, x, found, az):
    """The Monte Carlo error of one log p is about 0.01, whatever the guide; 5 standard errors: once in 10,000."""
    one = az.__version__ >= "1"  # which renamed what loo returns
    loo, truth = az.loo(found, pointwise=True), linear.log_prob(torch.tensor(x.to_numpy()))
    np.testing.assert_allclose(loo.elpd_i if one else loo.loo_i, truth, atol=0.06)
    assert (loo.elpd if one else loo.elpd_loo) == pytest.approx(truth.sum().item(), abs=5 * 0.015 * 150**0.5)
    assert loo.se == pytest.approx(150**0.5 * truth.std().item(), rel=0.02)
    assert float(np.max(loo.pareto_k)) < 0.5


@pytest.mark.slow
def test_draws_have_the_posteriors_moments_and_count_alike(linear, x, found):
    """Means of 150 × 1,000 resampled draws in 2 dimensions within 5.5 standard errors: once in 10,000."""
    z = found["posterior"]["z"]
    assert dict(z.sizes) == {"chain": 1, "draw": 1000, "datum": 150, "latent": 2}
    truth = linear.posterior(torch.tensor(x.to_numpy()))
    spread = truth.stddev.numpy()
    off = (z.to_numpy()[0].mean(0) - truth.mean.numpy()) / spread
    np.testing.assert_allclose(off, 0, atol=5.5 * (2.2 / 1000) ** 0.5)
    np.testing.assert_allclose(z.to_numpy()[0].std(0).mean(0), spread.mean(0), rtol=0.02)


@pytest.mark.slow
def test_compare_finds_the_better_model_by_the_paired_difference(linear, x, found, az):
    worse = pv.exact.LinearGaussianVAE(linear.loadings, 1.4, linear.offset)
    rounding = {"round_to": "none"} if az.__version__ >= "1" else {}
    both = {"worse": pv.to_inference_data(worse.to_model(), worse.to_guide(), x), "truth": found}
    table = az.compare(both, **rounding)
    values = torch.tensor(x.to_numpy())
    difference = linear.log_prob(values) - worse.log_prob(values)
    assert list(table.index) == ["truth", "worse"]
    assert abs(float(table["elpd_diff"]["worse"])) == pytest.approx(difference.sum().item(), abs=0.06 * 150**0.5)
    assert float(table["dse"]["worse"]) == pytest.approx(150**0.5 * difference.std().item(), rel=0.05)
    az.plot_compare(table)


@pytest.mark.slow
def test_a_data_frames_names_are_the_coordinates_and_a_tensor_has_none(linear, x, found):
    data = found["observed_data"]["x"]
    pd.testing.assert_frame_equal(
        data.to_pandas().rename_axis(index=None, columns=None), x, check_index_type=False, check_column_type=False
    )
    assert float(found["log_likelihood"]["x"].sel(datum="sample 3").mean()) == pytest.approx(
        linear.log_prob(torch.tensor(x.to_numpy()[3])).item(), abs=0.06
    )
    programs, before = (linear.to_model(), linear.to_guide()), torch.random.get_rng_state()
    plain = pv.to_inference_data(*programs, torch.tensor(x.to_numpy()[:4]), num_samples=100)
    assert torch.equal(before, torch.random.get_rng_state())
    assert "datum" not in plain["posterior"].coords


def test_without_arviz_one_line_names_the_extra(linear, x, monkeypatch):
    monkeypatch.setitem(sys.modules, "arviz", None)
    with pytest.raises(ImportError, match=r"pip install 'pyrovae\[arviz\]'"):
        pv.to_inference_data(linear.to_model(), linear.to_guide(), x)
