"""Preprocessing: fitted, undone, saved; log-likelihoods stay in the original units."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.signal import savgol_filter

import pyrovae as pv
from pyrovae.datasets import (
    MultiplicativeScatterCorrection,
    Pipeline,
    SavitzkyGolay,
    Standardize,
    StandardNormalVariate,
    simulated,
    split_randomly,
)
from tests.pairs import make_pair


def correlated(num=60, n=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num, n, generator=generator, dtype=torch.float64).cumsum(-1) + torch.arange(n) ** 2


@pytest.mark.parametrize(
    "make", [Standardize, lambda: Standardize(per="all"), lambda: Pipeline(Standardize("all"), Standardize())]
)
def test_log_likelihoods_are_in_the_original_units(make):
    """Log p(x) of a Gaussian fitted to y, plus the log-determinant, is scipy's density of x = f⁻¹(y)."""
    x = correlated()
    step = make().fit(x)
    assert step.comparable
    y = step.transform(x)
    torch.testing.assert_close(step.inverse(y), x)
    jacobian = torch.func.jacrev(lambda row: step.transform(row.unsqueeze(0)).squeeze(0))(x[3])
    expected = torch.linalg.slogdet(jacobian).logabsdet
    torch.testing.assert_close(step.log_abs_det_jacobian(x), expected.expand(60))
    mean, covariance = y.mean(0).numpy(), np.cov(y.T.numpy())
    in_y = stats.multivariate_normal(mean, covariance).logpdf(y.numpy())
    inverse = torch.linalg.inv(jacobian).numpy()
    in_x = stats.multivariate_normal(step.inverse(y.mean(0, keepdim=True))[0].numpy(), inverse @ covariance @ inverse.T)
    np.testing.assert_allclose(in_y + step.log_abs_det_jacobian(x).numpy(), in_x.logpdf(x.numpy()), rtol=1e-8)


def test_standardised_data_and_their_missing_values():
    x = correlated()
    y = Standardize().fit(x).transform(x)
    torch.testing.assert_close(y.mean(0), torch.zeros(8).double(), atol=1e-12, rtol=0)
    torch.testing.assert_close(y.std(0, correction=0), torch.ones(8).double())
    assert Standardize("all").fit(x).transform(x).std(correction=0).item() == pytest.approx(1)
    holed = x.clone()
    holed[0, 2], holed[:, 5] = math.nan, math.nan
    step = Standardize().fit(holed)
    np.testing.assert_allclose(step.mean[2], np.nanmean(holed[:, 2].numpy()))
    np.testing.assert_allclose(step.scale[2], np.nanstd(holed[:, 2].numpy()))
    assert (step.mean[5], step.scale[5]) == (0, 1)
    assert step.transform(holed).isnan().equal(holed.isnan())
    expected = -sum(math.log(s) for i, s in enumerate(step.scale) if i not in (2, 5))
    assert step.log_abs_det_jacobian(holed)[0].item() == pytest.approx(expected)
    with pytest.raises(ValueError, match=r"channel 1 \(counted from 0\) is constant in the training data"):
        Standardize().fit(torch.tensor([[1.0, 0.1, 3.0], [2.0, 0.1, 3.5]]))
    with pytest.raises(ValueError, match="has not been fitted"):
        Standardize().transform(x)
    with pytest.raises(ValueError, match="fitted on 8 channels, and x has 3"):
        step.transform(x[:, :3])


def test_one_deviation_of_all_channels_is_the_root_of_their_mean_square():
    x = correlated() * torch.logspace(-1, 1, 8, dtype=torch.float64) + 5 * torch.arange(8.0)
    step = Standardize("mean").fit(x)
    np.testing.assert_allclose(step.mean, x.mean(0))
    np.testing.assert_allclose(step.scale, [(x - x.mean(0)).square().mean().sqrt().item()] * 8)
    y = step.transform(x)
    assert y.square().mean().item() == pytest.approx(1)
    torch.testing.assert_close(y.std(0) / y.std(0).sum(), x.std(0) / x.std(0).sum())  # in proportion


def test_statistics_are_of_the_training_part_alone():
    spectra = simulated(100, 10)
    train, test = (spectra.take(part) for part in split_randomly(100, (0.5, 0.5)))
    before = Standardize().fit(train.x).config()
    test.x.mul_(1e3)
    assert Standardize().fit(train.x).config() == before
    np.testing.assert_allclose(before["mean"], train.x.double().numpy().mean(0))


def test_standard_normal_variate_and_scatter_correction():
    x = correlated()
    y = StandardNormalVariate().transform(x).numpy()
    np.testing.assert_allclose(y, stats.zscore(x.numpy(), axis=1))
    step = MultiplicativeScatterCorrection().fit(x)
    reference = x.numpy().mean(0)
    for row, corrected in zip(x.numpy(), step.transform(x).numpy(), strict=True):
        slope, offset = np.polyfit(reference, row, 1)
        np.testing.assert_allclose(corrected, (row - offset) / slope)
    clean = 2.5 * torch.tensor(reference) - 7
    torch.testing.assert_close(step.transform(clean.unsqueeze(0))[0], torch.tensor(reference))
    holed = x.clone()
    holed[:, 3] = math.nan
    others = [i for i in range(8) if i != 3]
    np.testing.assert_allclose(
        StandardNormalVariate().transform(holed).numpy()[:, others], stats.zscore(x.numpy()[:, others], axis=1)
    )
    short = MultiplicativeScatterCorrection(reference[others].tolist()).transform(x[:, others])
    torch.testing.assert_close(step.transform(holed)[:, others], short)
    with pytest.raises(ValueError, match=r"spectrum 1 \(counted from 0\) is constant"):
        StandardNormalVariate().transform(torch.tensor([[1.0, 2.0], [3.0, 3.0]]))


def test_savitzky_golay_is_scipys():
    x = correlated(5, 20)
    expected = savgol_filter(x.numpy(), 7, 3, deriv=1)
    np.testing.assert_allclose(SavitzkyGolay(7, 3, 1).transform(x).numpy(), expected)
    for arguments in ((6, 2, 0), (5, 5, 0), (5, 2, 3)):
        with pytest.raises(ValueError, match="odd window > degree ≥ derivative"):
            SavitzkyGolay(*arguments)
    with pytest.raises(ValueError, match="wider than the spectra"):
        SavitzkyGolay(21).transform(x)
    with pytest.raises(ValueError, match="no missing values"):
        SavitzkyGolay(5).transform(x.masked_fill(x == x[0, 0], math.nan))


@pytest.mark.parametrize(
    "step",
    [
        StandardNormalVariate(),
        MultiplicativeScatterCorrection(),
        SavitzkyGolay(5),
        Pipeline(Standardize(), SavitzkyGolay(5)),
    ],
)
def test_what_loses_dimensions_is_not_comparable(step):
    x = correlated()
    step.fit(x)
    assert not step.comparable
    with pytest.raises(ValueError, match="not comparable"):
        step.log_abs_det_jacobian(x)
    with pytest.raises(ValueError, match="cannot be undone"):
        step.inverse(step.transform(x))


def test_preprocessing_is_saved_with_the_model(tmp_path):
    x = correlated()
    steps = Pipeline(
        StandardNormalVariate(), MultiplicativeScatterCorrection(), SavitzkyGolay(5, 2), Standardize()
    ).fit(x)
    model, guide = make_pair(n=8, d=1, hidden=(4,))
    pv.save(tmp_path / "vae.safetensors", model, guide, preprocessing=steps)
    assert torch.equal(pv.load_preprocessing(tmp_path / "vae.safetensors").transform(x), steps.transform(x))
    assert torch.equal(pv.load(tmp_path / "vae.safetensors")[0].decoder[0].weight, model.decoder[0].weight)
    pv.save(tmp_path / "vae.safetensors", model, guide)
    assert pv.load_preprocessing(tmp_path / "vae.safetensors") is None
    with pytest.raises(TypeError, match="preprocessing must be of class Preprocessing"):
        pv.save(tmp_path / "vae.safetensors", model, guide, preprocessing=torch.nn.Identity())
    (tmp_path / "vae.json").write_text("[1")
    with pytest.raises(ValueError, match="cannot load"):
        pv.load_preprocessing(tmp_path / "vae.safetensors")
