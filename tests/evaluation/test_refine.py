"""Posteriors refined datum by datum, where the best one is known, and where only a fallback is left."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import kl_divergence

import pyrovae as pv
from pyrovae.evaluation._density import density_of
from pyrovae.evaluation._gauss_newton import Gaussians, antithetic, climb, of_precision
from pyrovae.evaluation._target import DensityTarget, ModelTarget, gaussian_precision, with_jacobian
from pyrovae.likelihoods import LIKELIHOODS, Likelihood
from tests.pairs import make_pair


def linear_model(prior=None, likelihood=pv.GaussianLikelihood, n=5, d=3, **options):
    torch.manual_seed(3)
    model = pv.GenerativeModel(torch.nn.Identity(), likelihood(d, n, **options), d, prior=prior).double()
    return model, pv.AmortizedGuide(torch.nn.Identity(), pv.DiagonalPosterior(n, d)).double()


def test_one_step_gives_a_linear_gaussian_models_posterior(vae):
    model, guide, x, state = vae.to_model(), vae.to_guide("isotropic"), vae.sample(40), torch.get_rng_state()
    refined = pv.refine(model, guide, x, num_steps=1)
    assert (torch.get_rng_state() == state).all()
    assert (refined.elbo.per_datum - vae.log_prob(x)).abs().max() < 1e-10
    exact = dist.MultivariateNormal(vae.posterior(x).mean, vae.covariance.expand(40, 3, 3))
    assert kl_divergence(refined.posterior, exact).abs().max() < 1e-10
    assert not refined.by_gradient
    lost = (vae.log_prob(x) - vae.elbo(vae.to_guide("isotropic"), x)).mean().item()
    assert refined.lost_by_encoder.mean == pytest.approx(lost, abs=5 * refined.guide_elbo.stderr_monte_carlo)
    assert f"guide's q is kept for {int(refined.stayed.sum())}" in str(refined)


GAUSSIAN_PRIORS = {
    "ar1": pv.distributions.AR1Normal(torch.ones(3).double(), torch.tensor([0.5]).double(), 0.8),
    "dense": dist.MultivariateNormal(torch.ones(3).double(), 0.3 * torch.eye(3).double() + 0.5),
    "low-rank": pv.distributions.LowRankNormal(
        torch.zeros(3).double(), torch.ones(3, 1).double(), torch.ones(3).double()
    ),
}


@pytest.mark.parametrize("prior", GAUSSIAN_PRIORS)
@pytest.mark.parametrize("likelihood", ["gaussian-per-dimension", "ar1", "low-rank", "full-covariance"])
def test_gaussian_priors_and_noise_of_any_form(prior, likelihood):
    """Log p(x) − ELBO is 0, from dense algebra."""
    p_z = GAUSSIAN_PRIORS[prior]
    model, guide = linear_model(p_z, LIKELIHOODS[likelihood])
    with torch.no_grad():
        x = model.sample(20)
        loadings, noise = model.likelihood.loc_head.matrix, model.likelihood.noise_covariance()
        covariance = loadings @ p_z.covariance_matrix.double() @ loadings.T + noise
        center = model.likelihood.loc_head(p_z.mean.double())
        log_p = dist.MultivariateNormal(center, covariance).log_prob(x)
    refined = pv.refine(model, guide, x, num_steps=1)
    assert not refined.by_gradient
    assert (refined.elbo.per_datum - log_p).abs().max() < 1e-10


def test_missing_values():
    model, guide = linear_model(n=4)
    model.missing, guide.encoder = True, pv.nn.ImputeMissing(guide.encoder)
    with torch.no_grad():
        x = model.sample(6)
        x[0, 1], x[1, 2:], x[2] = math.nan, math.nan, math.nan
        covariance = model.likelihood.loc_head.matrix @ model.likelihood.loc_head.matrix.T + torch.eye(4).double() * (
            model.likelihood.noise_scale**2
        )
    refined = pv.refine(model, guide, x, num_steps=1)
    for row, elbo in zip(x, refined.elbo.per_datum.tolist(), strict=True):
        seen = ~row.isnan()
        p = dist.MultivariateNormal(model.likelihood.loc_head.bias.detach()[seen], covariance[seen][:, seen])
        assert elbo == pytest.approx(p.log_prob(row[seen]).item() if seen.any() else 0.0, abs=1e-10)


class NoFisher(pv.GaussianLikelihood):
    fisher = Likelihood.fisher


def test_a_likelihood_without_fisher_is_refined_by_gradient():
    model, guide = linear_model(likelihood=NoFisher, initial_scale=0.3)
    reference, _ = linear_model(initial_scale=0.3)
    x = model.sample(10)
    refined, exact = pv.refine(model, guide, x), pv.refine(reference, guide, x)
    assert refined.by_gradient
    assert (exact.elbo.per_datum - refined.elbo.per_datum).abs().max() < 0.01
    assert refined.lost_by_encoder.mean > 1


def test_a_prior_that_is_not_gaussian():
    weights = dist.Categorical(torch.tensor([0.4, 0.6]).double())
    parts = dist.Normal(torch.tensor([[-2.0, 0.0], [2.0, 1.0]]).double(), 0.7).to_event(1)
    model, guide = linear_model(dist.MixtureSameFamily(weights, parts), d=2, initial_scale=2.0)
    x = model.sample(8)
    refined = pv.refine(model, guide, x)
    assert refined.by_gradient
    truth = pv.log_marginal(model, guide, x, "quadrature", num_points=300).per_datum
    gap = truth - refined.elbo.per_datum
    assert gap.min() > -5 * refined.elbo.stderr_per_datum.max()
    assert gap.mean() < 0.5 < (truth - refined.guide_elbo.per_datum).mean()


def test_a_flow_as_the_guide(vae):
    guide = pv.AmortizedGuide(torch.nn.Identity(), pv.posteriors.FlowPosterior(5, 3)).double()
    x = vae.sample(5)
    refined = pv.refine(vae.to_model(), guide, x)
    assert (refined.elbo.per_datum - vae.log_prob(x)).abs().max() < 1e-10


def test_where_refining_does_harm_the_guides_q_stays(vae):
    """A fisher that is wrong makes q far too narrow."""

    class Wrong(pv.GaussianLikelihood):
        def fisher(self, features, jacobian, observed=None):
            return 1e8 * jacobian.mT @ jacobian

    model, guide, x = vae.to_model(), vae.to_guide("diagonal"), vae.sample(6)
    wrong = Wrong(3, 5, scale=vae.noise_scale).double()
    wrong.load_state_dict(model.likelihood.state_dict())
    model.likelihood = wrong
    refined = pv.refine(model, guide, x, num_steps=1)
    assert refined.stayed.all()
    torch.testing.assert_close(refined.posterior.mean, guide.posterior(x).mean)
    torch.testing.assert_close(refined.posterior.variance, guide.posterior(x).variance)
    assert torch.equal(refined.elbo.per_datum, refined.guide_elbo.per_datum)


def test_far_from_a_sharp_likelihood():
    """From an encoder that knows nothing, σ = 1e-3 a channel: undamped steps would diverge."""
    torch.manual_seed(0)
    decoder = torch.nn.Sequential(torch.nn.Linear(2, 32), torch.nn.Tanh(), torch.nn.Linear(32, 32), torch.nn.Tanh())
    model = pv.GenerativeModel(decoder, pv.GaussianLikelihood(32, 20, scale=1e-3), 2).double()
    guide = pv.AmortizedGuide(pv.nn.MLP(20, 8), pv.DiagonalPosterior(8, 2)).double()
    z, x = model.simulate(20)
    refined = pv.refine(model, guide, x)
    assert refined.guide_elbo.per_datum.max() < -1e3
    # where q is this narrow the decoder is linear: Laplace's log p(x) at the true z is nearly exact
    (precision,) = ModelTarget(model, x).precision(z.unsqueeze(0))
    (value,) = ModelTarget(model, x).log_joint(climb(ModelTarget(model, x), z).loc.unsqueeze(0))
    laplace = value - 0.5 * torch.logdet(precision) + math.log(2 * math.pi)
    assert (refined.elbo.per_datum - laplace).abs().max() < 0.05


@pytest.mark.parametrize(("scale", "dtype"), [(0.1, torch.float32), (1e-6, torch.float64)])
def test_networks_run_in_float32_only_where_rounding_is_no_danger(scale, dtype):
    """Rounding moves a mean by 1e-7, a tenth of the sharper likelihood's σ a channel."""
    model, guide = linear_model(initial_scale=scale)
    x = model.sample(4)
    target, start = ModelTarget(model, x), pv.refine(model, guide, x).posterior
    fast = target.in_single(start.mean.unsqueeze(0), start.scale_tril)
    assert fast.x.dtype == dtype
    assert fast.slope(start.mean.unsqueeze(0))[1].dtype == torch.float64
    assert next(model.parameters()).dtype == torch.float64


def test_networks_stay_in_their_modes_and_batch_norm_sees_rows():
    torch.manual_seed(0)
    decoder = torch.nn.Sequential(
        torch.nn.Linear(2, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.5), torch.nn.ReLU()
    )
    model = pv.GenerativeModel(decoder, pv.BernoulliLikelihood(8, 6), 2)
    guide = pv.AmortizedGuide(pv.nn.MLP(6, 8), pv.DiagonalPosterior(8, 2))
    x, before = model.sample(7), {k: v.clone() for k, v in model.state_dict().items()}
    first, again = (pv.refine(model, guide, x) for _ in range(2))
    assert model.training
    assert decoder[1].training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(first.posterior.loc, again.posterior.loc)
    assert first.posterior.loc.dtype == torch.float64
    grid = pv.log_marginal(model, guide, x, "quadrature", num_points=200).per_datum
    assert (grid - first.elbo.per_datum).mean() < 0.02


def test_hand_written_programs():
    """A latent in a plate inside the data's, and a positive one: log p(x) by quadrature over the positive one."""

    def model(x):
        with pyro.plate("data", len(x), dim=-2):
            scale = pyro.sample("scale", dist.LogNormal(torch.zeros(()).double(), 0.5))
            with pyro.plate("channels", 3, dim=-1):
                a = pyro.sample("a", dist.Normal(torch.zeros(()).double(), scale))
                pyro.sample("x", dist.Normal(a, 0.5), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-2):
            pyro.sample("scale", dist.LogNormal(torch.zeros(len(x), 1).double(), 0.3))
            with pyro.plate("channels", 3, dim=-1):
                pyro.sample("a", dist.Normal(0.5 * x, 0.6))

    x = torch.randn(4, 3, dtype=torch.float64)
    log_scale = torch.linspace(-4, 4, 2001).double()
    p = dist.Normal(torch.zeros(()).double(), (log_scale.mul(2).exp() + 0.25).sqrt().view(-1, 1, 1)).log_prob(x).sum(-1)
    weights = dist.Normal(0.0, 0.5).log_prob(log_scale) + math.log(8 / 2000)
    truth = (p + weights.unsqueeze(-1)).logsumexp(0)
    refined = pv.refine(model, guide, x)
    assert refined.posterior.event_shape == (4,)
    assert refined.by_gradient
    gap = truth - refined.elbo.per_datum
    assert (gap > -5 * refined.elbo.stderr_per_datum).all()
    assert gap.mean() < 0.15 < (truth - refined.guide_elbo.per_datum).mean()


def test_the_density_of_hand_written_programs_is_the_models():
    model, guide = make_pair(pv.DiagonalPosterior)
    x, z = torch.randn(5, 3).double(), torch.randn(7, 5, 2).double()
    target = DensityTarget(density_of(lambda x: model(x), lambda x: guide(x), x, slice(0, 5), 1000), x)
    for draws in (7, 1):
        expected = ModelTarget(model, x).log_joint(z[:draws])
        torch.testing.assert_close(target.log_joint(z[:draws]), expected)
    torch.testing.assert_close(target.slope(z)[1], ModelTarget(model, x).slope(z)[1])


def test_a_jacobian_is_autograds():
    network, rows = pv.nn.MLP(3, 7, 5).double(), torch.randn(4, 3).double()
    value, jacobian = with_jacobian(network, rows)
    expected = torch.stack([torch.autograd.functional.jacobian(network, row) for row in rows])
    torch.testing.assert_close(jacobian, expected)
    torch.testing.assert_close(value, network(rows).detach())


def test_which_priors_are_gaussian():
    for prior in GAUSSIAN_PRIORS.values():
        torch.testing.assert_close(
            gaussian_precision(prior), torch.linalg.inv(prior.covariance_matrix.double()), rtol=1e-4, atol=1e-4
        )
    mixture = dist.MixtureSameFamily(dist.Categorical(torch.ones(2)), dist.Normal(torch.zeros(2, 3), 1.0).to_event(1))
    assert gaussian_precision(mixture) is not None  # two equal parts are one Gaussian
    assert gaussian_precision(dist.Laplace(torch.zeros(3), 1.0).to_event(1)) is None
    assert gaussian_precision(dist.StudentT(30.0, torch.zeros(3), 1.0).to_event(1)) is None


def test_gaussians_of_precisions():
    raw = torch.randn(5, 3, 3).double()
    precision = raw @ raw.mT + torch.eye(3)
    q = of_precision(torch.zeros(5, 3).double(), precision)
    torch.testing.assert_close(q.scale_tril @ q.scale_tril.mT, torch.linalg.inv(precision))
    assert (q.scale_tril.triu(1) == 0).all()
    noise = antithetic(6, q.loc)
    expected = dist.MultivariateNormal(q.loc, scale_tril=q.scale_tril).log_prob(q.at(noise))
    torch.testing.assert_close(q.log_prob_of(noise), expected)
    wide = Gaussians(q.loc, 2 * q.scale_tril)
    torch.testing.assert_close(
        wide.where(torch.arange(5) > 2, q).scale_tril[[0, 4]], torch.stack([q.scale_tril[0], wide.scale_tril[4]])
    )


@pytest.mark.parametrize(("option", "message"), [({"num_steps": 0}, "num_steps"), ({"num_draws": 1}, "num_draws")])
def test_settings_that_cannot_be(vae, option, message):
    with pytest.raises(ValueError, match=message):
        pv.refine(vae.to_model(), vae.to_guide(), vae.sample(2), **option)
