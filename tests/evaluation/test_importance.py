"""Log p(x) and the ELBO by importance sampling, where they are known; the warning and the memory; log-weights."""

import math
import subprocess
import sys
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyrovae as pv
from pyrovae.evaluation._method import Problem
from pyrovae.evaluation.importance import draw_log_weights, log_mean_weight, over_log_weights
from pyrovae.posteriors import POSTERIORS
from pyrovae.programs import evaluating


def test_log_marginal_is_exact_at_the_exact_posterior(linear):
    x = linear.sample(7)
    found = pv.log_marginal(linear.to_model(), linear.to_guide(), x, "importance", num_samples=5)
    torch.testing.assert_close(found.per_datum, linear.log_prob(x), rtol=1e-9, atol=1e-9)
    assert found.stderr_monte_carlo < 1e-8
    assert found.effective_sample_size.min() > 5 - 1e-9
    assert found.stderr_data == pytest.approx((linear.log_prob(x).std() / math.sqrt(7)).item())


def test_log_marginals_intervals_cover(linear):
    x, model, guide = linear.sample(20), linear.to_model(), linear.to_guide("diagonal")
    truth = linear.log_prob(x).mean().item()
    inside = 0
    for seed in range(200):
        found = pv.log_marginal(model, guide, x, "importance", num_samples=400, seed=seed)
        inside += abs(found.mean - truth) <= 1.96 * found.stderr_monte_carlo
    assert 180 <= inside <= 196


def test_log_marginal_in_chunks_is_log_mean_exp(linear):
    x, model, guide = linear.sample(1100), linear.to_model(), linear.to_guide("isotropic")
    state = torch.get_rng_state()
    found = pv.log_marginal(model, guide, x, "importance", num_samples=100)  # two chunks of data, four of draws
    assert (torch.get_rng_state() == state).all()
    assert found.per_datum.shape == (1100,)
    assert (found.per_datum - linear.log_prob(x)).abs().mean() < 0.1
    assert found.mean == pytest.approx(linear.log_prob(x).mean().item(), abs=5 * found.stderr_monte_carlo + 0.01)


def test_log_marginal_of_nested_plates_and_its_gain_of_doubling():
    def model(x):
        with pyro.plate("data", len(x), dim=-2):
            a = pyro.sample("a", dist.Normal(torch.zeros(()).double(), 1.0))
            with pyro.plate("channels", 3, dim=-1):
                pyro.sample("x", dist.Normal(a, 0.5), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-2):
            pyro.sample("a", dist.Normal(0.8 * x.mean(1, keepdim=True), 0.4))

    x = torch.randn(4, 3, dtype=torch.float64)
    covariance = torch.ones(3, 3).double() + 0.25 * torch.eye(3).double()
    truth = dist.MultivariateNormal(torch.zeros(3).double(), covariance).log_prob(x)
    found = pv.log_marginal(model, guide, x, "importance", num_samples=4000, max_plate_nesting=2)
    torch.testing.assert_close(found.per_datum, truth, atol=0.1, rtol=0)
    few = pv.log_marginal(model, guide, x, "importance", num_samples=4, max_plate_nesting=2)
    assert (few.gain_of_doubling >= 0).all()
    assert few.gain_of_doubling.mean() > 10 * found.gain_of_doubling.mean()
    torch.testing.assert_close(pv.log_marginal(model, guide, x, num_samples=4000).per_datum, truth, atol=0.1, rtol=0)


def test_a_narrow_guide_is_warned_of(vae):
    x, model = vae.sample(50), vae.to_model()
    narrow = vae.gaussian_guide(vae.gain, 0.05 * vae.covariance)
    with pytest.warns(pv.UnreliableEstimateWarning, match=r"of the data have a Pareto k̂ above 0\.67") as caught:
        found = pv.log_marginal(model, narrow, x, "importance")
    assert caught[0].filename == __file__
    assert found.unreliable.double().mean() > 0.8
    assert "unreliable" in str(found)
    wide = vae.gaussian_guide(vae.gain, 1.5 * vae.covariance)
    with warnings.catch_warnings():
        warnings.simplefilter("error", pv.UnreliableEstimateWarning)
        found = pv.log_marginal(model, wide, x, "importance")
    assert found.unreliable.sum() <= 2
    assert str(found).startswith("log p(x) ≥ ")


def test_a_guide_that_is_not_reparameterised(vae):
    class NotReparameterised(pv.DiagonalPosterior):
        def forward(self, features):
            q = super().forward(features)
            return pyro.distributions.MultivariateNormal(q.mean, q.variance.diag_embed()).has_rsample_(False)

    guide = pv.AmortizedGuide(torch.nn.Identity(), NotReparameterised(5, 3))
    with pytest.raises(pv.NoClosedFormError, match="'z' is not reparameterised"):
        pv.log_marginal(vae.to_model(), guide.double(), vae.sample(4))


MEMORY = """
import resource, torch, pyrovae as pv
torch.set_num_threads(1)
model = pv.GenerativeModel(pv.nn.MLP(8, 16), pv.GaussianLikelihood(16, 64), 8)
guide = pv.AmortizedGuide(pv.nn.MLP(64, 16), pv.DiagonalPosterior(16, 8))
x = torch.rand({num}, 64)
pv.elbo_terms(model, guide, x[:10])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
pv.log_marginal(model, guide, x, num_samples={num_samples})
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.slow
def test_memory_is_bounded():
    """More than one chunk of data and many of draws, so that more of either costs no more."""
    script = MEMORY.format(num=1100, num_samples=900)
    result = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=True)
    assert float(result.stdout) < 1024


def test_the_elbo_at_the_exact_posterior_is_log_p(vae):
    x = vae.sample(6)
    found = pv.elbo_estimate(vae.to_model(), vae.to_guide(), x, num_samples=3)
    torch.testing.assert_close(found.per_datum, vae.log_prob(x))
    assert found.stderr_per_datum.max() < 1e-8


def test_the_elbo_of_another_guide(vae):
    x, guide = vae.sample(6), vae.to_guide("diagonal")
    found = pv.elbo_estimate(vae.to_model(), guide, x, num_samples=4000)
    assert ((found.per_datum - vae.elbo(guide, x)).abs() < 5 * found.stderr_per_datum).all()


@pytest.mark.parametrize("max_rows", [1, 20, 64, 10_000])
def test_every_datum_has_all_its_draws(vae, max_rows):
    x, seen = vae.sample(9), []

    def shape(log_w):
        seen.append(log_w.shape[1])
        return (torch.full(log_w.shape[1:], float(len(log_w))),)

    model, guide = vae.to_model(), vae.to_guide()
    with torch.no_grad(), evaluating(model, guide, x, seed=0):
        (num,) = over_log_weights(shape, Problem(model, guide, x, max_rows=max_rows), 13)
    assert num.tolist() == [13.0] * 9
    assert sum(seen) == 9
    assert max(seen) <= max_rows


def test_summaries_of_weights():
    log_w = torch.tensor([[1.0, 1.0], [3.0, 1.0], [2.0, 1.0], [6.0, 1.0]]).double().log()
    per_datum, stderr, effective, gain, k = log_mean_weight(log_w)
    torch.testing.assert_close(per_datum.exp(), torch.tensor([3.0, 1.0]).double())
    torch.testing.assert_close(effective, torch.tensor([144 / 50, 4.0]).double())
    # the delta method: the standard error of the mean weight over the mean
    expected = (log_w.exp().std(0) / math.sqrt(4) / log_w.exp().mean(0)).tolist()
    assert stderr.tolist() == pytest.approx(expected)
    assert gain.tolist() == pytest.approx([math.log(3) - (math.log(2) + math.log(4)) / 2, 0.0])
    assert k.isnan().all()


@pytest.mark.parametrize(("d", "scale", "least"), [(4, 0.8, 0.9), (4, 0.6, 0.82), (4, 0.5, 0.75), (16, 0.7, 0.82)])
def test_intervals_cover_where_weights_have_no_variance(d, scale, least):
    """N(0, I_d) from N(0, scale² I_d), 300 times 1,000 draws: k̂ of 0.4, 0.7, 0.8 and 0.8. The log mean weight is 0.

    The relative variance alone covers 0.94, 0.75, 0.57 and 0.67.
    """
    z = torch.randn(1000, 300, d, dtype=torch.float64)
    log_w = (-0.5 * (scale * z).square() + 0.5 * z.square() + math.log(scale)).sum(-1)
    value, stderr, effective, *_ = log_mean_weight(log_w)
    assert (value.abs() <= 1.96 * stderr).double().mean() >= least
    variance_alone = (1 / effective - 1 / 1000).mul(1000 / 999).sqrt()
    assert (stderr >= variance_alone - 1e-12).all()


def test_one_draw_has_no_error(vae):
    with pytest.raises(ValueError, match="num_samples must be an integer of at least 2, not 1"):
        pv.elbo_estimate(vae.to_model(), vae.to_guide(), vae.sample(3), num_samples=1)
    per_datum, stderr, effective, gain, k = log_mean_weight(torch.zeros(1, 3).double())
    assert (per_datum == 0).all()
    assert (effective == 1).all()
    assert all(values.isnan().all() for values in (stderr, gain, k))


def test_sums_of_weights_far_apart_have_all_digits():
    log_w = torch.tensor([[0.0, -800.0, 900.0], [1.0, -801.0, -900.0], [0.5, -math.inf, 899.0]], dtype=torch.float64)
    value, _, effective, gain, _ = log_mean_weight(log_w)
    first, second = log_w.logsumexp(0), (2 * log_w).logsumexp(0)
    torch.testing.assert_close(value, first - math.log(3))
    torch.testing.assert_close(effective, (2 * first - second).exp())
    halves = log_w[:2].logsumexp(0) - math.log(2), log_w[2]
    torch.testing.assert_close(gain, value - 0.5 * (halves[0] + halves[1]))
    assert log_mean_weight(log_w[:1])[0].tolist() == [0.0, -800.0, 900.0]


@pytest.mark.parametrize("family", ["diagonal", "full-covariance"])
def test_dense_programs_have_the_weights_of_their_traces(family):
    torch.manual_seed(0)
    model = pv.GenerativeModel(pv.nn.MLP(2, 8), pv.GaussianLikelihood(8, 3), latent_dim=2).double()
    guide = pv.AmortizedGuide(pv.nn.MLP(3, 8), POSTERIORS[family](8, 2)).double()
    x = model.sample(20)
    problem = Problem.of(model, guide, x)
    assert problem.is_dense
    with torch.no_grad(), evaluating(model, guide, x, 1):
        (found,) = over_log_weights(lambda log_w: (log_w.T,), problem, 6)
    with torch.no_grad(), evaluating(model, guide, x, 1):
        torch.testing.assert_close(found, draw_log_weights(problem, guide, x, 6).T)


@pytest.mark.parametrize(("scale", "is_single"), [(0.3, True), (1e-6, False)])
def test_rough_weights_are_in_float32_where_that_does_not_matter(scale, is_single):
    torch.manual_seed(0)
    model = pv.GenerativeModel(pv.nn.MLP(2, 8), pv.GaussianLikelihood(8, 3, scale=scale), latent_dim=2).double()
    guide = pv.AmortizedGuide(pv.nn.MLP(3, 8), pv.DiagonalPosterior(8, 2)).double()
    x = model.sample(20)
    problem, found = Problem.of(model, guide, x), []
    for rough in (False, True):
        with torch.no_grad(), evaluating(model, guide, x, 1):
            found += over_log_weights(lambda log_w: (log_w.T,), problem, 6, rough=rough)
    assert torch.equal(*found) != is_single
    torch.testing.assert_close(*found, rtol=0, atol=0.01)
