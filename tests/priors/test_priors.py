"""Priors meet their contract; log p(x) and the ELBO with them against dense truths."""

import math
from functools import partial

import pyro.distributions as dist
import pytest
import torch
from torch import nn

import pyrovae as pv
from pyrovae.elbo import ESTIMATORS
from pyrovae.exact import LinearGaussianStateSpace
from pyrovae.priors import AR1Prior, MixturePrior, StandardNormalPrior, VampPrior
from pyrovae.testing import check_prior, dense_kl


def vamp(d):
    return VampPrior(pv.nn.MLP(3, 8), pv.FullCovariancePosterior(8, d), 3, num_components=4)


PRIORS = {
    "standard": (StandardNormalPrior, True),
    "ar1": (partial(AR1Prior, correlation=-0.6), True),
    "ar1-learned": (AR1Prior, True),
    "ar1-two-channels": (partial(AR1Prior, channels=2), True),
    "mixture": (partial(MixturePrior, num_components=3), False),
    "vamp": (vamp, False),
}


@pytest.mark.parametrize("name", PRIORS)
def test_contract(name):
    make, gaussian = PRIORS[name]
    check_prior(make, gaussian=gaussian, latent_dims=(4, 6) if name == "ar1-two-channels" else (2, 6))


class _WrongWeights(MixturePrior):
    """Draws from components of other weights than its density has."""

    def forward(self):
        p = super().forward()
        p.sample = lambda shape=(): self.loc[0] + torch.randn(*shape, self.latent_dim, dtype=self.loc.dtype)
        return p


class _NotNormalised(StandardNormalPrior):
    def forward(self):
        p = super().forward()
        p.log_prob = lambda z: -0.5 * z.square().sum(-1)
        p.expand = lambda shape: p
        return p


class _Forgets(AR1Prior):
    """A learned ρ that the density does not depend on."""

    def forward(self):
        return pv.AR1Normal(self.loc, self.eye[0], fisher_z=self.raw_fisher_z.detach() + 0 * self.raw_fisher_z)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_WrongWeights, "the mean of the draws is not the declared one"),
        (_NotNormalised, "does not integrate to 1"),
        (_Forgets, "raw_fisher_z receives a zero gradient"),
    ],
)
def test_the_contract_finds(make, message):
    with pytest.raises(AssertionError, match=message):
        check_prior(make)


def test_ar1_covariances():
    expected = 0.9 ** (torch.arange(4)[:, None] - torch.arange(4)).abs()
    torch.testing.assert_close(AR1Prior(4, 0.9)().covariance_matrix, expected)
    two = AR1Prior(6, channels=2)
    with torch.no_grad():
        two.raw_fisher_z.copy_(torch.tensor([0.3, -1.2]))
    blocks = two().covariance_matrix.reshape(3, 2, 3, 2)
    assert blocks[:, 0, :, 1].abs().max() < 1e-6
    for channel, raw in enumerate((0.3, -1.2)):
        rho = math.tanh(8 * math.tanh(raw / 8))
        powers = rho ** (torch.arange(3)[:, None] - torch.arange(3)).abs()
        torch.testing.assert_close(blocks[:, channel, :, channel], powers)
    assert AR1Prior(4)().correlation.item() == pytest.approx(0.5, abs=1e-3)


def test_bad_input():
    for arguments, message in (
        ({"latent_dim": 0}, "latent_dim must be a positive integer"),
        ({"latent_dim": 5, "channels": 2}, "must be a multiple of channels=2, not 5"),
        ({"latent_dim": 5, "correlation": 1.0}, "a number between −1 and 1, or 'learned', not 1.0"),
        ({"latent_dim": 5, "correlation": "lerned"}, "or 'learned', not 'lerned'"),
    ):
        with pytest.raises(ValueError, match=message):
            AR1Prior(**arguments)
    with pytest.raises(ValueError, match="a VampPrior needs a Gaussian family, and FlowPosterior is not one"):
        VampPrior(pv.nn.MLP(3, 8), pv.FlowPosterior(8, 2), 3)
    with pytest.raises(ValueError, match=r"x must have shape \(4, 3\), not \(2, 3\)"):
        vamp(2).set_pseudo_inputs(torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"event shape \(3,\)"):
        pv.GenerativeModel(nn.Identity(), pv.GaussianLikelihood(3, 4), 3, prior=AR1Prior(2, 0.5))


def linear(prior, n=4, scale=0.7):
    """A linear decoder with this prior, in float64."""
    d = prior.latent_dim
    return pv.GenerativeModel(nn.Identity(), pv.GaussianLikelihood(d, n, scale=scale), d, prior=prior).double()


def marginal(model):
    """p(x): a mixture of the Gaussians that a linear decoder makes of the prior's."""
    with torch.no_grad():
        p, head = model.prior_distribution(), model.likelihood.loc_head
        noise = 0.49 * torch.eye(len(head.bias)).double()
        mean, covariance = (
            (p.mean, p.covariance_matrix) if hasattr(p, "covariance_matrix") else (p.mean, p.variance.diag())
        )
        weights = torch.ones(1).double()
        if isinstance(p, dist.MixtureSameFamily):
            weights, parts = p.mixture_distribution.probs, p.component_distribution
            mean, covariance = (
                parts.mean,
                parts.covariance_matrix if hasattr(parts, "covariance_matrix") else parts.variance.diag_embed(),
            )
        mean, covariance = mean.reshape(len(weights), -1), covariance.reshape(len(weights), *covariance.shape[-2:])
        return dist.MixtureSameFamily(
            dist.Categorical(weights),
            dist.MultivariateNormal(mean @ head.weight.T + head.bias, head.weight @ covariance @ head.weight.T + noise),
        )


@pytest.mark.parametrize("method", ["auto", "importance", "quadrature", "annealed", "annealed-from-the-prior"])
@pytest.mark.parametrize("name", PRIORS)
def test_log_marginal_is_that_of_dense_algebra(name, method):
    model = linear(PRIORS[name][0](2))
    guide = pv.AmortizedGuide(nn.Identity(), pv.FullCovariancePosterior(4, 2)).double()
    x = model.sample(4)
    settings = {"annealed": {"num_temperatures": 100}, "importance": {"num_samples": 20_000}}.get(
        method.split("-")[0], {}
    )
    if method == "annealed-from-the-prior":
        settings["center"] = "prior"
    found = pv.log_marginal(model, guide, x, method=method.split("-")[0], **settings)
    expected = marginal(model).log_prob(x)
    assert ((found.per_datum - expected).abs() < 5 * found.stderr_per_datum.nan_to_num(0.0) + 0.02).all(), (
        found.per_datum,
        expected,
    )


@pytest.mark.parametrize("name", PRIORS)
def test_refine_finds_the_posterior(name):
    model = linear(PRIORS[name][0](2))
    guide = pv.AmortizedGuide(nn.Identity(), pv.FullCovariancePosterior(4, 2)).double()
    x = model.sample(5)
    refined = pv.refine(model, guide, x)
    log_p = marginal(model).log_prob(x)
    assert (refined.elbo.per_datum <= log_p + 5 * refined.elbo.stderr_per_datum + 1e-9).all()
    assert refined.by_gradient == (not PRIORS[name][1])
    if PRIORS[name][1]:
        torch.testing.assert_close(refined.elbo.per_datum, log_p, rtol=0, atol=1e-9)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("name", PRIORS)
def test_estimators_give_the_elbo(name, estimator):
    """Within 5 standard errors of 200 losses: a right one fails with probability below 1e-6 a case."""
    model = linear(PRIORS[name][0](2))
    guide = pv.AmortizedGuide(nn.Identity(), pv.FullCovariancePosterior(4, 2)).double()
    x = model.sample(3)
    elbo = (
        ESTIMATORS[estimator](num_particles=1)
        if "weighted" in estimator or "doubly" in estimator
        else ESTIMATORS[estimator]()
    )
    if not PRIORS[name][1] and estimator == "analytic":
        with pytest.raises(
            pv.NoClosedFormError,
            match=r"no closed form for KL\(CholeskyNormal ‖ MixtureSameFamily\) at site 'z'; use Monte",
        ):
            elbo.loss(model, guide, x)
        return
    with torch.no_grad():
        q = guide.posterior(x)
        z = q.sample((100_000,))
        log_joint = model.prior_distribution().log_prob(z) + model.conditional(z).log_prob(x)
        terms = (log_joint - q.log_prob(z)).sum(-1)
        losses = torch.tensor([elbo.loss(model, guide, x) for _ in range(200)]).double()
    error = math.hypot(terms.std() / 100_000**0.5, losses.std() / 200**0.5)
    assert abs(losses.mean() + terms.mean()) < 5 * error
    if PRIORS[name][1] and estimator == "analytic":
        audited = pv.audit(model, guide, elbo, x, strict=True)
        kl = dense_kl(q, model.prior_distribution()).mean().item()
        assert next(s for s in audited.sites if s.site == "z").nats_per_datum == pytest.approx(-kl, rel=1e-9)


def test_the_state_space_models_prior_is_ar1():
    chain = LinearGaussianStateSpace(5, 0.8, 1.0, 0.5)
    torch.testing.assert_close(
        chain.prior.covariance_matrix, AR1Prior(5, 0.8).double()().covariance_matrix, rtol=1e-6, atol=1e-7
    )


@pytest.mark.parametrize("name", PRIORS)
def test_saved_loaded_trained_and_replicated(name, tmp_path):
    prior = PRIORS[name][0](2)
    model = pv.GenerativeModel(pv.nn.MLP(2, 8), pv.GaussianLikelihood(8, 3), 2, prior=prior)
    guide = pv.AmortizedGuide(pv.nn.MLP(3, 8), pv.DiagonalPosterior(8, 2))
    if name == "ar1-two-channels":
        pytest.skip("at d = 2 it has one step and nothing to learn")
    before = [p.detach().clone() for p in prior.parameters()]
    pv.fit(model, guide, torch.randn(64, 3), pv.MonteCarloELBO(), epochs=1, batch_size=32, progress=False)
    for old, new in zip(before, prior.parameters(), strict=True):
        assert not torch.equal(old, new)
    pv.save(tmp_path / "vae.safetensors", model, guide)
    loaded, _ = pv.load(tmp_path / "vae.safetensors")
    z = torch.randn(5, 2)
    assert torch.equal(loaded.prior_distribution().log_prob(z), model.prior_distribution().log_prob(z))


@pytest.mark.parametrize("name", ["ar1-learned", "mixture", "vamp"])
def test_replicas_start_and_train_their_own_prior(name):
    """Each replica is the single run of its seed."""
    x = torch.randn(64, 3)

    def fitted(seed, num):
        prior = PRIORS[name][0](2)
        model = pv.GenerativeModel(pv.nn.MLP(2, 8), pv.GaussianLikelihood(8, 3), 2, prior=prior)
        guide = pv.AmortizedGuide(pv.nn.MLP(3, 8), pv.DiagonalPosterior(8, 2))
        settings = {"epochs": 2, "batch_size": 32, "progress": False, "engine": "eager"}
        return pv.fit(model, guide, x, pv.MonteCarloELBO(), num_replicas=num, seed=seed, **settings)

    losses = []
    for replica in fitted(3, 2):
        (alone,) = fitted(replica.seed, 1)
        torch.testing.assert_close(dict(replica.model.named_parameters()), dict(alone.model.named_parameters()))
        losses.append(replica.history.batch_loss)
    assert losses[0] != losses[1]


def test_the_standard_prior_gives_the_default_models_numbers():
    losses = []
    for prior in (None, StandardNormalPrior(2)):
        torch.manual_seed(0)
        model = pv.GenerativeModel(pv.nn.MLP(2, 8), pv.GaussianLikelihood(8, 3), 2, prior=prior)
        guide = pv.AmortizedGuide(pv.nn.MLP(3, 8), pv.AR1Posterior(8, 2))
        history = pv.fit(model, guide, torch.randn(64, 3), pv.AnalyticELBO(), epochs=2, batch_size=32, progress=False)
        losses.append(history.to_frame()["loss"].tolist())
    assert losses[0] == losses[1]


def test_a_vamp_prior_starts_anew_at_the_data_that_were_given():
    x = torch.randn(4, 3)
    prior = vamp(2)
    prior.set_pseudo_inputs(x)
    with torch.no_grad():
        prior.pseudo_inputs += 1
    prior.reset_parameters()
    assert torch.equal(prior.pseudo_inputs, x)


def test_a_vamp_prior_like_a_guide_starts_at_its_posteriors():
    guide = pv.AmortizedGuide(pv.nn.MLP(3, 8), pv.FullCovariancePosterior(8, 2))
    x = torch.randn(4, 3)
    p, q = VampPrior.like(guide.encoder, guide.posterior_head, x)(), guide.posterior(x)
    z = torch.randn(6, 2)
    expected = q.log_prob(z.unsqueeze(1)).logsumexp(-1) - math.log(4)
    torch.testing.assert_close(p.log_prob(z), expected)
