"""The linear-Gaussian VAE against closed forms, dense algebra and a grid."""

import math

import pytest
import torch
from scipy import stats
from scipy.optimize import minimize_scalar

import pyrovae as pv
from pyrovae.exact import LinearGaussianVAE
from pyrovae.posteriors import POSTERIORS
from pyrovae.testing import dense_kl

GAUSSIAN = [name for name in POSTERIORS if name != "flow"]


@pytest.fixture(params=[2, 4], ids="d{}".format)
def vae(request):
    d = request.param
    return LinearGaussianVAE(torch.randn(d + 2, d), 0.6, torch.randn(d + 2))


def test_log_prob_and_posterior(vae):
    x = vae.sample(5)
    covariance = (vae.loadings @ vae.loadings.T + 0.36 * torch.eye(vae.n)).numpy()
    expected = stats.multivariate_normal(vae.offset.numpy(), covariance).logpdf(x.numpy())
    torch.testing.assert_close(vae.log_prob(x), torch.as_tensor(expected))
    z = torch.randn(5, vae.latent_dim, dtype=torch.float64)
    joint = vae.to_model().prior_distribution().log_prob(z) + vae.to_model().conditional(z).log_prob(x)
    torch.testing.assert_close(joint - vae.posterior(x).log_prob(z), vae.log_prob(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("family", GAUSSIAN)
def test_gap_is_the_kl_of_the_guide_and_nothing_near_it_is_better(vae, family):
    x, gap, guide = vae.sample(3), vae.gap(family), vae.to_guide(family)
    with torch.no_grad():
        kl = dense_kl(guide.posterior(x), vae.posterior(x))
        torch.testing.assert_close(kl, torch.full_like(kl, gap), rtol=0, atol=1e-9)
        torch.testing.assert_close(vae.best_elbo(family, x), vae.log_prob(x) - gap)
        bias = guide.posterior_head.covariance_head.bias
        best = bias.clone()
        for _ in range(20):
            bias.copy_(best + 0.01 * torch.randn_like(best))
            assert dense_kl(guide.posterior(x), vae.posterior(x)).min() >= gap - 1e-9


def test_gaps_in_closed_form(vae):
    precision, d = vae.precision, vae.latent_dim
    assert vae.gap("full-covariance") == pytest.approx(0, abs=1e-12)
    diagonal = 0.5 * (precision.diagonal().log().sum() - torch.logdet(precision)).item()
    assert vae.gap("diagonal") == pytest.approx(diagonal, abs=1e-12)
    isotropic = 0.5 * (-torch.logdet(precision) - d * math.log(d / precision.trace())).item()
    assert vae.gap("isotropic") == pytest.approx(isotropic, abs=1e-12)
    if d == 2:
        assert vae.gap("ar1-per-dimension") == pytest.approx(0, abs=1e-9)


def test_shared_ar1_by_one_parameter(vae):
    """THEORY.md, section 5: the best σ² at a ρ is d / tr(P R(ρ)), which leaves a minimisation over ρ."""
    d = vae.latent_dim
    distance = (torch.arange(d)[:, None] - torch.arange(d)).abs()

    def kl(rho):
        unit = torch.as_tensor(rho, dtype=torch.float64) ** distance
        return (
            0.5
            * (
                -torch.logdet(vae.precision) - torch.logdet(unit) - d * math.log(d / (vae.precision * unit).sum())
            ).item()
        )

    best = min(
        minimize_scalar(kl, bounds=(low, low + 0.2), method="bounded", options={"xatol": 1e-10}).fun
        for low in torch.linspace(-0.999, 0.799, 19).tolist()
    )
    assert vae.gap("ar1") == pytest.approx(best, abs=1e-8)


def test_a_family_of_ones_own_and_what_cannot_be_had(vae):
    assert vae.gap(pv.DiagonalPosterior) == pytest.approx(vae.gap("diagonal"), abs=1e-9)
    with pytest.raises(ValueError, match="unknown family 'dense'"):
        vae.gap("dense")
    with pytest.raises(ValueError, match="FlowPosterior has no covariance_head"):
        vae.gap("flow")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.randn(3), 1.0), r"loadings must have shape \(n, d\), not \(3,\)"),
        ((torch.randn(3, 2), 0.0), "noise_scale must be a positive number"),
        ((torch.randn(3, 2), 1.0, torch.zeros(2)), r"offset must have shape \(3,\), not \(2,\)"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        LinearGaussianVAE(*arguments)
