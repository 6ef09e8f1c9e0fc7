"""The linear-Gaussian VAE against closed forms, dense algebra and a grid."""

import math

import pytest
import torch
from scipy import stats
from scipy.optimize import minimize_scalar
from sklearn.decomposition import PCA

import pyrovae as pv
from pyrovae.linear_gaussian.exact import LinearGaussianVAE, best_decoder
from pyrovae.nn import class_of
from pyrovae.posteriors import POSTERIORS
from pyrovae.testing import dense_kl

GAUSSIAN = [name for name, make in POSTERIORS.items() if class_of(make).is_gaussian]


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


def test_maximum_likelihood_is_scikit_learns_pca():
    x = LinearGaussianVAE(torch.randn(6, 2), 0.5, torch.randn(6)).sample(300)
    found = LinearGaussianVAE.fit(x, 2)
    theirs = PCA(2).fit(x.numpy())
    covariance = torch.as_tensor(theirs.get_covariance()) * 299 / 300  # theirs divides by num − 1
    torch.testing.assert_close(found.marginal.covariance_matrix, covariance, rtol=1e-6, atol=1e-8)
    assert found.log_prob(x).mean().item() == pytest.approx(theirs.score(x.numpy()), abs=1e-4)
    assert found.log_prob(x).mean().item() >= theirs.score(x.numpy())
    mean, covariance = x.mean(0), torch.cov(x.T, correction=0)
    assert found.expected_log_prob(mean, covariance) == pytest.approx(found.log_prob(x).mean().item(), abs=1e-9)


def test_at_the_principal_axes_a_diagonal_family_loses_nothing(vae):
    turned = vae.principal_axes()
    torch.testing.assert_close(turned.marginal.covariance_matrix, vae.marginal.covariance_matrix)
    assert vae.gap("diagonal") > 1e-4
    assert turned.gap("diagonal") == pytest.approx(0, abs=1e-12)
    wide = LinearGaussianVAE(torch.randn(2, 4), 0.5)
    assert wide.principal_axes().gap("diagonal") == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    "family", [pytest.param(n, marks=pytest.mark.slow) if n in ("ar1", "low-rank") else n for n in GAUSSIAN]
)
def test_the_best_decoder_of_a_family(vae, family):
    """Its expected ELBO is no less than at maximum likelihood's decoder, nor than at any decoder near it."""
    covariance, d = vae.marginal.covariance_matrix, vae.latent_dim

    def nats_above_truth(other):
        entropy = vae.marginal.entropy().item()
        return -entropy - other.expected_log_prob(vae.offset, covariance) + other.gap(family)

    found = LinearGaussianVAE.from_moments(vae.offset, covariance, d, family)
    best = nats_above_truth(found)
    assert -1e-9 < best <= nats_above_truth(vae) + 1e-7
    for _ in range(5):
        loadings = found.loadings + 0.02 * torch.randn(d + 2, d)
        scale = found.noise_scale * math.exp(0.02 * torch.randn(()).item())
        assert nats_above_truth(LinearGaussianVAE(loadings, scale, vae.offset)) > best
    if family == "isotropic":
        roots = torch.linalg.eigvalsh(covariance)[2:].sqrt()
        assert best == pytest.approx(d * math.log(roots.mean() / roots.log().mean().exp()), abs=1e-9)
        u = LinearGaussianVAE.from_moments(vae.offset, covariance, d)
        searched = best_decoder(covariance, u.loadings, u.noise_scale, pv.IsotropicPosterior)
        assert nats_above_truth(LinearGaussianVAE(*searched, vae.offset)) == pytest.approx(best, abs=1e-7)
    elif family != "ar1" or d == 2:  # one shared AR(1) at d = 2 is a diagonal family, turned
        assert best == pytest.approx(0, abs=1e-7)


def test_the_exact_elbo_of_a_guide(vae):
    x = vae.sample(5)
    for family in GAUSSIAN:
        torch.testing.assert_close(vae.elbo(vae.to_guide(family), x), vae.best_elbo(family, x))
    guide = pv.AmortizedGuide(pv.nn.MLP(vae.n, 8), pv.AR1Posterior(8, vae.latent_dim)).double()
    sampled = pv.elbo_estimate(vae.to_model(), guide, x, num_samples=20_000)
    assert ((vae.elbo(guide, x) - sampled.per_datum).abs() < 5 * sampled.stderr_per_datum).all()


def test_from_a_model_and_back(vae):
    found = LinearGaussianVAE.from_model(vae.to_model().float())
    torch.testing.assert_close(found.loadings, vae.loadings, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.offset, vae.offset, rtol=1e-5, atol=1e-6)
    assert found.noise_scale == pytest.approx(vae.noise_scale)
    assert repr(found) == f"LinearGaussianVAE(n={vae.n}, latent_dim={vae.latent_dim}, noise_scale=0.6)"
    d = vae.latent_dim

    class Fold(torch.nn.Module):
        def forward(self, z):
            return z.abs()

    for model in (
        pv.GenerativeModel(Fold(), pv.GaussianLikelihood(d, 5), d),
        pv.GenerativeModel(pv.nn.MLP(d, 8), pv.GaussianLikelihood(8, 5), d),
        pv.GenerativeModel(torch.nn.Identity(), pv.BernoulliLikelihood(d, 5), d),
    ):
        with pytest.raises(ValueError, match="the model is not linear-Gaussian"):
            LinearGaussianVAE.from_model(model)


def test_bad_input_of_a_fit():
    x = torch.randn(20, 4)
    for latent_dim in (0, 4, 2.0):
        with pytest.raises(ValueError, match="latent_dim must be an integer from 1 to 3, below the data's 4"):
            LinearGaussianVAE.fit(x, latent_dim)
    with pytest.raises(ValueError, match=r"x must have shape \(num, n\) with num ≥ 2, not \(4,\)"):
        LinearGaussianVAE.fit(x[0], 2)
    with pytest.raises(ValueError, match="x holds 1 NaN"):
        LinearGaussianVAE.fit(torch.tensor([[0.0, math.nan, 1.0], [1.0, 2.0, 3.0]]), 2)
    with pytest.raises(ValueError, match="covariance must be a symmetric matrix"):
        LinearGaussianVAE.from_moments(torch.zeros(2), torch.tensor([[1.0, 2.0], [0.0, 1.0]]), 1)
    with pytest.raises(ValueError, match="span no more than 2 dimensions, so the noise would be 0"):
        LinearGaussianVAE.fit(x[:3], 2)


def test_the_lecture_notes_covariance_has_no_density():
    x = torch.tensor([[2.0, 1.0], [4.0, 3.0], [6.0, 5.0]])
    assert torch.cov(x.T).tolist() == [[4.0, 4.0], [4.0, 4.0]]
    with pytest.raises(ValueError, match="span no more than 1 dimensions"):
        LinearGaussianVAE.fit(x, 1)
