"""As much work as a datum needs: against exact values and grids, each step reached where it should be."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyrovae as pv
from pyrovae.evaluation import Automatic, Step, _from_prior
from pyrovae.evaluation._gauss_newton import Mixture
from pyrovae.evaluation._method import Problem
from pyrovae.evaluation.automatic import proposal_scale
from pyrovae.evaluation.importance import log_mean_weight
from pyrovae.exact import LinearGaussianVAE


def test_a_good_guide_is_not_refined(vae):
    x = vae.sample(30)
    found = pv.log_marginal(vae.to_model(), vae.to_guide(), x)
    assert set(found.steps) == {Step.GUIDE}
    assert not found.unreliable.any()
    torch.testing.assert_close(found.per_datum, vae.log_prob(x))
    assert found.bias_per_datum.abs().max() < 1e-9


def test_a_bad_guide_is_refined_to_the_exact_value(vae):
    """A narrow guide, of which importance sampling is wrong by nats; 5 standard errors of independent data."""
    x, model = vae.sample(60), vae.to_model()
    narrow = vae.gaussian_guide(vae.gain, 0.05 * vae.covariance)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    found, again = (pv.log_marginal(model, narrow, x, num_samples=4000) for _ in range(2))
    assert (torch.get_rng_state() == state).all()
    assert torch.equal(found.per_datum, again.per_datum)
    assert set(found.steps) == {Step.REFINED}
    assert not found.unreliable.any()
    error = found.per_datum - vae.log_prob(x)
    assert abs(error.mean()) < 0.005 + 5 * found.stderr_monte_carlo
    assert (error.abs() < 5 * found.stderr_per_datum + 1e-6).all()
    assert found.stderr_monte_carlo < 0.01
    assert "(60 refined)" in str(found)
    assert pv.log_marginal(model, narrow, x, "importance", num_samples=400).mean < vae.log_prob(x).mean() - 0.5


@pytest.mark.parametrize("alike", [True, False])
def test_the_error_of_the_mean_counts_that_data_share_draws_from_the_prior(alike):
    """Means of 40 seeds against the exact value; if draws were shared by all data, they would be off by 3 errors."""
    linear = LinearGaussianVAE(torch.tensor([[1.0, 0.3], [0.2, 0.8]]), 1.2, torch.zeros(2))
    x = linear.sample(1 if alike else 160).expand(160, 2)
    guide, truth = linear.gaussian_guide(linear.gain, 0.01 * linear.covariance), linear.log_prob(x).mean()
    found = [pv.log_marginal(linear.to_model(), guide, x, num_samples=200, seed=seed) for seed in range(40)]
    assert all(set(each.steps) == {Step.PRIOR} for each in found)
    off = torch.tensor([(each.mean - truth) / each.stderr_monte_carlo for each in found])
    assert 0.6 < off.square().mean() < 1.6  # a χ² of 40 over 40 is outside with a probability of 0.02


def test_draws_from_the_prior_are_weighed_for_some_data_at_a_time(monkeypatch):
    """For 60,000 data at once they took 0.9 GB."""
    tables = []

    def weighed(log_w):
        tables.append(log_w.numel())
        return log_mean_weight(log_w)

    monkeypatch.setattr(_from_prior, "log_mean_weight", weighed)
    linear = LinearGaussianVAE(torch.tensor([[1.0, 0.3], [0.2, 0.8]]), 1.2, torch.zeros(2))
    pv.log_marginal(linear.to_model(), linear.to_guide(), linear.sample(9000), num_samples=30)
    assert max(tables) <= 2**21


def test_the_factor_of_shared_draws_is_that_of_the_mean_weights():
    log_w = torch.randn(5, dtype=torch.float64) + torch.randn(200, 5, dtype=torch.float64)
    *_, effective, _, _ = log_mean_weight(log_w)
    off = log_w.exp() / log_w.exp().mean(0) - 1
    expected = off.sum(1).square().sum().sqrt() / off.square().sum().sqrt()
    assert _from_prior.sharing_factor(log_w, effective) == pytest.approx(max(1.0, expected.item()))
    alike = log_w[:, :1].expand(200, 5)
    assert _from_prior.sharing_factor(alike, effective[:1].expand(5)) == pytest.approx(math.sqrt(5))
    assert _from_prior.sharing_factor(0 * alike, torch.full((5,), 200.0)) == 1


@pytest.mark.parametrize(("offset", "is_single"), [(0.0, True), (1e5, False)])
def test_draws_from_the_prior_are_in_float32_where_that_does_not_matter(offset, is_single, monkeypatch):
    """The values against the exact ones in float64; beside an offset of 100,000, float32 has errors of 0.01 in x."""
    loading, mean = torch.tensor([[1.0, 0.3], [0.2, 0.8]]).double(), torch.full((2,), offset, dtype=torch.float64)
    linear = LinearGaussianVAE(loading, 0.5, mean)
    dtypes, conditional = [], pv.GenerativeModel.conditional

    def seen(model, z):
        if len(z) > 512:
            dtypes.append(z.dtype)
        return conditional(model, z)

    monkeypatch.setattr(pv.GenerativeModel, "conditional", seen)
    x = linear.sample(90)
    with torch.no_grad():
        value, stderr, *_ = _from_prior.from_prior(Problem.of(linear.to_model(), linear.to_guide(), x))
    found = ~value.isnan()
    assert found.sum() > 70
    assert dtypes.count(torch.float32) == (len(dtypes) if is_single else 1)
    assert ((value - linear.log_prob(x))[found].abs() < 5 * stderr[found]).all()


def test_a_guide_that_will_nearly_do_is_not_chosen_by_its_luck(linear):
    """Data whose weights look good by chance are scored by other draws: else their mean is too low by 0.2 nats."""
    x = linear.sample(300)
    found = pv.log_marginal(linear.to_model(), linear.to_guide("isotropic"), x, num_samples=200)
    error = (found.per_datum - linear.log_prob(x)).mean().item()
    assert abs(error) < 0.01 + 4 * found.stderr_monte_carlo


def nonlinear_pair(scale=0.3):
    torch.manual_seed(2)
    decoder = torch.nn.Sequential(torch.nn.Linear(2, 16), torch.nn.Tanh())
    model = pv.GenerativeModel(decoder, pv.GaussianLikelihood(16, 6, scale=scale), 2).double()
    with torch.no_grad():
        decoder[0].weight.mul_(2.0)
        model.likelihood.loc_head.weight.mul_(2.0)
    return model, pv.AmortizedGuide(pv.nn.MLP(6, 8), pv.DiagonalPosterior(8, 2)).double()


def test_a_nonlinear_model_of_two_latents_agrees_with_the_grid():
    model, guide = nonlinear_pair()
    x = model.sample(60)
    found = pv.log_marginal(model, guide, x)
    grid = pv.log_marginal(model, guide, x, "quadrature", num_points=300)
    assert grid.quadrature_error.max() < 1e-3
    assert abs(found.mean - grid.mean) < 0.01
    assert found.unreliable.double().mean() < 0.05


class Bend(torch.nn.Module):
    """A ridge that bends: x determines z₂ + exp(z₁), so that p(z|x) is no Gaussian."""

    def forward(self, z):
        return (z[..., 1:] + z[..., :1].exp()).expand(*z.shape[:-1], 2)


class Ring(torch.nn.Module):
    """All z of one length."""

    def forward(self, z):
        return z.square().sum(-1, keepdim=True)


class BendInTen(torch.nn.Module):
    """A bend of two latents, and eight that x shows as they are."""

    def forward(self, z):
        return torch.cat([Bend()(z[..., :2]), z[..., 2:]], dim=-1)


def pair_of(decoder, n, scale, latent_dim=2):
    """A model whose mean of x is the decoder's output, and a guide that knows nothing."""
    model = pv.GenerativeModel(decoder, pv.GaussianLikelihood(n, n, scale=scale), latent_dim).double()
    with torch.no_grad():
        model.likelihood.loc_head.weight.copy_(torch.eye(n))
        model.likelihood.loc_head.bias.zero_()
    return model, pv.AmortizedGuide(pv.nn.MLP(n, 8), pv.DiagonalPosterior(8, latent_dim)).double()


class Squares(torch.nn.Module):
    """Four modes, (±z₁, ±z₂)."""

    def forward(self, z):
        return z.square()


@pytest.mark.parametrize("scale", [0.05, 0.3])
def test_several_modes_are_found_or_the_value_is_not_trusted(scale):
    """A proposal with one of the four modes is low by log 4 and has a good k̂."""
    model, guide = pair_of(Squares(), 2, scale)
    x = torch.tensor([[1.0, 1.0], [2.0, 0.7], [0.8, 3.0], [4.0, 1.5]]).double()
    found = pv.log_marginal(model, guide, x)
    # each axis: the density of a squared normal, blurred by the noise, on a fine grid
    z = torch.linspace(-6, 6, 200_001).double()
    weights = dist.Normal(0.0, 1.0).log_prob(z) + math.log(12 / 200_000)
    truth = torch.stack([(dist.Normal(z.square(), scale).log_prob(v) + weights).logsumexp(0) for v in x.flatten()])
    error = found.per_datum - truth.view(4, 2).sum(-1)
    assert found.unreliable.sum() <= 1
    assert (error[~found.unreliable].abs() < 0.05 + 4 * found.stderr_per_datum[~found.unreliable]).all()


@pytest.mark.parametrize("scale", [0.02, pytest.param(0.3, marks=pytest.mark.slow)])
def test_a_ring_is_right_or_not_trusted(scale):
    """Gaussians on a part of a ring have good weights there, and a value that is more than a nat too low."""
    torch.manual_seed(0)
    model, guide = pair_of(Ring(), 1, scale)
    x = torch.tensor([1.0, 2.0, 8.0, 10.0, 14.0]).double().unsqueeze(1)
    found = pv.log_marginal(model, guide, x)
    # |z|² is exponential with rate ½; with the noise added, an exponentially modified Gaussian
    of_noise = torch.special.log_ndtr((x - scale**2 / 2) / scale)
    truth = (math.log(0.5) + 0.5 * (scale**2 / 2 - x) + of_noise).squeeze(1)
    trusted = ~found.unreliable
    assert trusted[:2].all()  # the prior's draws are enough
    error = (found.per_datum - truth)[trusted]
    assert (error.abs() < 0.05 + 4 * found.stderr_per_datum[trusted]).all()


@pytest.mark.slow
def test_a_guide_that_knows_one_of_two_modes_is_found_out():
    """Its weights are good, and its value is low by log 2; draws from the prior say so."""

    class Fold(torch.nn.Module):
        def forward(self, z):
            return z.square()

    model, guide = pair_of(Fold(), 1, 0.02, latent_dim=1)
    x = torch.tensor([[0.5], [1.0], [2.0]]).double()
    one_mode, _ = pv.refit(model, guide, x, pv.DiagonalPosterior, max_steps=500)
    alone = pv.log_marginal(model, one_mode, x, "importance")
    found = pv.log_marginal(model, one_mode, x)
    truth = -x / 2 - 0.5 * (2 * math.pi * x).log()  # chi-squared of one degree of freedom, hardly blurred
    assert (alone.pareto_k < 0.5).all()
    torch.testing.assert_close(alone.per_datum, truth.squeeze(1) - math.log(2), atol=0.02, rtol=0)
    assert not found.unreliable.any()
    error = (found.per_datum - truth.squeeze(1)).abs()
    assert (error < 0.02 + 4 * found.stderr_per_datum).all()
    assert found.stderr_per_datum.max() < 0.1


def test_a_mixture_is_torchs():
    """Draws and densities of the proposal against MixtureSameFamily; 5 standard errors of 4,000 draws."""
    torch.manual_seed(0)
    loc, raw = torch.randn(3, 2, 2).double(), torch.randn(3, 2, 2, 2).double()
    factor = raw.tril(-1) + raw.diagonal(dim1=-2, dim2=-1).abs().add(0.3).diag_embed()
    log_weights = torch.tensor([[0.3, 0.7], [0.9, 0.1], [1.0, 0.0]]).double().log()
    q = Mixture.of_tensors(loc, factor, log_weights)
    parts = dist.MultivariateNormal(loc, scale_tril=factor)
    truth = dist.MixtureSameFamily(dist.Categorical(log_weights.exp()), parts)
    z, log_q = q.sample(4000)
    torch.testing.assert_close(log_q, truth.log_prob(z))
    error = (z.mean(0) - truth.mean) / (truth.variance / 4000).sqrt()
    assert error.abs().max() < 5
    torch.testing.assert_close(q.of(slice(1, 3)).log_prob(z[:, 1:]), log_q[:, 1:])


@pytest.mark.slow
def test_what_no_gaussian_fits_is_annealed():
    model, guide = pair_of(Bend(), 2, 0.1)
    x = torch.tensor([[0.5, 0.55], [1.5, 1.4], [2.5, 2.5], [3.5, 3.5]], dtype=torch.float64)
    found = pv.log_marginal(model, guide, x)
    grid = pv.log_marginal(model, guide, x, "quadrature", num_points=1000)
    annealed = torch.tensor([step == Step.ANNEALED for step in found.steps])
    assert {Step.ANNEALED, Step.PRIOR} & set(found.steps)
    assert (found.pareto_k[annealed].isnan()).all()
    error = (found.per_datum - grid.per_datum)[~found.unreliable]
    assert (error.abs() < 0.5).all()  # what the second annealing may have moved


@pytest.mark.slow
def test_annealing_with_more_latents_than_the_prior_can_check():
    model, guide = pair_of(BendInTen(), 10, 0.1, latent_dim=10)
    x = torch.randn(3, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[:, :2] = torch.tensor([[0.5, 0.55], [1.5, 1.4], [3.5, 3.5]])
    found = pv.log_marginal(model, guide, x)
    assert Step.ANNEALED in found.steps
    assert "annealed" in str(found)
    of_two = pv.log_marginal(*pair_of(Bend(), 2, 0.1), x[:, :2], "quadrature", num_points=1000).per_datum
    truth = of_two + dist.Normal(0.0, math.sqrt(1.01)).log_prob(x[:, 2:]).sum(1)
    trusted = ~found.unreliable
    assert trusted.any()
    assert ((found.per_datum - truth)[trusted].abs() < 0.5).all()


def test_hand_written_programs_go_through_the_same_steps():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2).double(), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(2 * z, 0.5).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.3 * x, 0.05).to_event(1))

    x = 2 * torch.randn(10, 2, dtype=torch.float64)
    found = pv.log_marginal(model, guide, x, num_samples=300)
    assert Step.REFINED in found.steps
    assert set(found.steps) <= {Step.REFINED, Step.PRIOR}
    truth = dist.Normal(0.0, math.sqrt(4.25)).log_prob(x).sum(-1)
    assert ((found.per_datum - truth).abs() < 5 * found.stderr_per_datum + 0.01).all()


def bent(noise):
    """x ~ N(4z², noise): p(z|x) has the modes ±√x/2."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(4 * z**2, noise), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.sqrt() / 2, noise / (4 * x.sqrt())))

    return model, guide


def bent_twice(noise):
    """The same of a positive latent's logarithm, behind a latent on which it depends and that changes nothing."""

    def model(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(torch.zeros(len(x)), 1.0))
            z = pyro.sample("z", dist.LogNormal(0 * a, 1.0))
            pyro.sample("x", dist.Normal(4 * z.log() ** 2, noise), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("a", dist.Normal(torch.zeros(len(x)), 1.0))
            pyro.sample("z", dist.LogNormal(x.sqrt() / 2, noise / (4 * x.sqrt())))

    return model, guide


@pytest.mark.parametrize("pair_of", [bent, bent_twice])
@pytest.mark.parametrize(("noise", "num"), [(1.0, 8), (0.2, 8), (0.5, 300)])
def test_modes_that_a_guide_by_hand_does_not_know_are_counted(pair_of, noise, num):
    """Right by a sum over a grid. The guide's mode alone is ln 2 lower, with a small error."""
    x = torch.linspace(1.0, 6.0, num)
    z = torch.linspace(-6, 6, 40001).double()
    terms = dist.Normal(4 * z**2, noise).log_prob(x.double().unsqueeze(-1)) + dist.Normal(0.0, 1.0).log_prob(z)
    right = terms.logsumexp(-1) + math.log(12 / 40000)
    found = pv.log_marginal(*pair_of(noise), x)
    assert ((found.per_datum - right).abs() < 5 * found.stderr_per_datum + 0.05)[~found.unreliable].all()
    assert found.unreliable.double().mean() < 0.1
    assert found.mean == pytest.approx(right.mean().item(), abs=0.05)


def test_batch_norm_in_the_decoder_after_a_bad_look():
    """Few draws have no k̂, and a posterior for each datum can be refined like an encoder's."""
    model, _ = nonlinear_pair()
    x = model.sample(5)
    q = pv.evaluation.PerDatumGuide(pv.DiagonalPosterior, torch.zeros(5, 2).double())
    found = pv.log_marginal(model, q, x, Automatic(num_samples=10))
    assert Step.GUIDE not in found.steps
    grid = pv.log_marginal(model, q, x, "quadrature", num_points=300).per_datum
    assert (found.per_datum - grid).abs().max() < 1.5


def test_a_proposal_loses_a_fifth_of_its_draws_whatever_the_dimension():
    for d in (1, 8, 50):
        scale = proposal_scale(d)
        z = scale * torch.randn(4000, 2, d).double()
        log_w = (-0.5 * z.square() + 0.5 * (z / scale).square() + math.log(scale)).sum(-1)
        share = (2 * log_w.logsumexp(0) - (2 * log_w).logsumexp(0)).exp().mean() / 4000
        assert 0.75 < share < 0.9


@pytest.mark.parametrize("option", [{"num_samples": 0}, {"num_temperatures": 0}])
def test_settings_that_cannot_be(option):
    with pytest.raises(ValueError, match="must be a positive integer"):
        Automatic(**option)
