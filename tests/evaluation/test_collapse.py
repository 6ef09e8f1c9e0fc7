"""Collapse reports, where everything is known."""

import math

import pytest
import torch
from torch.distributions import kl_divergence

import pyrovae as pv
from pyrovae.linear_gaussian.exact import LinearGaussianVAE


def test_a_collapse_report_where_everything_is_known(vae):
    """At the exact posterior of the model's own data I(x; z) = ½ log det P and the aggregate posterior is the prior."""
    x = vae.sample(2000)
    found = pv.collapse_report(vae.to_model(), vae.to_guide(), x, num_samples=2)
    information = 0.5 * torch.logdet(vae.precision).item()
    assert found.mutual_information.mean == pytest.approx(information, abs=0.15)
    assert found.aggregate_kl.mean == pytest.approx(0, abs=0.15)
    exact = kl_divergence(vae.to_guide().posterior(x), vae.to_model().prior_distribution()).mean().item()
    assert found.kl.mean == pytest.approx(exact, abs=5 * found.kl.stderr)
    assert found.kl.mean == pytest.approx(found.mutual_information.mean + found.aggregate_kl.mean)
    assert found.spectrum.sum().item() + found.correlation == pytest.approx(exact)
    means = vae.to_guide().posterior(x).mean
    torch.testing.assert_close(found.signal, torch.linalg.eigvalsh(torch.cov(means.T)).flip(0))
    torch.testing.assert_close(found.signal + found.noise, torch.ones(3).double(), atol=0.1, rtol=0)
    assert found.active == 3
    assert found.ar1 is None
    assert "3 of 3 latent directions active" in str(found)


def test_a_collapse_report_does_not_change_when_the_latent_space_is_turned(vae):
    x = vae.sample(500)
    turn = torch.linalg.qr(torch.randn(3, 3).double()).Q
    turned = LinearGaussianVAE(vae.loadings @ turn, vae.noise_scale, vae.offset)
    a, b = (pv.collapse_report(v.to_model(), v.to_guide(), x) for v in (vae, turned))
    torch.testing.assert_close(a.spectrum, b.spectrum)
    torch.testing.assert_close(a.signal, b.signal)
    assert a.correlation == pytest.approx(b.correlation, abs=1e-9)


def test_a_unit_that_the_decoder_ignores_is_reported(vae):
    loadings = vae.loadings.clone()
    loadings[:, 2] = loadings[:, 1]  # in no coordinate is a unit idle, in one direction it is
    folded = LinearGaussianVAE(loadings, 0.6)
    found = pv.collapse_report(folded.to_model(), folded.to_guide(), folded.sample(500))
    assert found.active == 2
    assert found.spectrum[2] < 1e-6
    assert list(found.to_frame()["signal"] > 0.01) == [True, True, False]


@pytest.mark.parametrize("family", [pv.FlowPosterior, pv.LowRankPosterior, pv.IsotropicPosterior])
def test_a_collapse_report_of_other_families_in_float32(vae, family):
    model = pv.GenerativeModel(torch.nn.Identity(), pv.GaussianLikelihood(3, 5), 3)
    guide = pv.AmortizedGuide(torch.nn.Identity(), family(5, 3))
    found = pv.collapse_report(model, guide, vae.sample(60), num_samples=20)
    assert found.kl.mean == pytest.approx(found.mutual_information.mean + found.aggregate_kl.mean)
    assert math.isnan(found.correlation) == (family is pv.FlowPosterior)
    if family is not pv.FlowPosterior:
        assert found.spectrum.sum().item() + found.correlation == pytest.approx(found.kl.mean, abs=5 * found.kl.stderr)
    with pytest.raises(TypeError, match="needs a GenerativeModel and an AmortizedGuide"):
        pv.collapse_report(model, lambda x: None, vae.sample(5))


def test_ar1_quantiles_and_another_prior(vae):
    prior = torch.distributions.Independent(torch.distributions.Normal(torch.ones(3), 2 * torch.ones(3)), 1)
    model = pv.GenerativeModel(torch.nn.Identity(), pv.GaussianLikelihood(3, 5), 3, prior=prior)
    guide = pv.AmortizedGuide(torch.nn.Identity(), pv.AR1Posterior(5, 3))
    with torch.no_grad():
        for parameter in guide.parameters():
            parameter.zero_()
        guide.posterior_head.loc_head.bias.fill_(1.0)
        guide.posterior_head.covariance_head.bias.copy_(torch.tensor([math.log(math.expm1(2.0)), math.atanh(0.6)]))
    found = pv.collapse_report(model, guide, torch.randn(50, 5))
    assert found.ar1.loc["correlation"].tolist() == pytest.approx([0.6] * 5, abs=1e-2)
    assert found.ar1.loc["scale"].tolist() == pytest.approx([2.0] * 5, abs=1e-3)
    assert found.active == 0
    assert found.mutual_information.mean == pytest.approx(0, abs=1e-6)
    torch.testing.assert_close(found.noise, torch.ones(3).double(), atol=1e-3, rtol=0)
    assert "AR(1), quantiles" in str(found)
    with pytest.raises(ValueError, match="at least two data"):
        pv.collapse_report(model, guide, torch.randn(1, 5))
