"""Annealed importance sampling, Pareto k̂ and memory, where log p(x) is known."""

import math
import subprocess
import sys
import warnings

import pyro
import pytest
import torch
from scipy import stats

import pyrovae as pv
from pyrovae.evaluation.annealing import _transition, path_from
from pyrovae.evaluation.pareto import pareto_k, reliable_below
from pyrovae.linear_gaussian.exact import LinearGaussianVAE


@pytest.fixture
def vae():
    return LinearGaussianVAE(torch.randn(5, 3), 0.6, torch.randn(5))


def test_the_sandwich_contains_the_truth(vae):
    """100 repeats of 20 data each."""
    found = pv.sandwich(vae.to_model(), vae.to_guide("diagonal"), 2000, num_samples=2, num_temperatures=60)
    truth = vae.log_prob(found.x).reshape(100, 20).mean(1)

    low, high = (side.per_datum.reshape(100, 20) for side in (found.lower, found.upper))
    low_error = found.lower.stderr_per_datum.reshape(100, 20).norm(dim=1) / 20
    high_error = (high - low).std(1) / math.sqrt(20)
    low, high = low.mean(1), high.mean(1)
    inside = (low - 2 * low_error <= truth) & (truth <= high + 2 * high_error)
    assert inside.sum() >= 95
    assert 0 < found.width < 0.1
    assert found.lower.mean < truth.mean() < found.upper.mean
    low, high = found.interval
    assert low < found.lower.mean
    assert found.upper.mean < high
    assert high - low < 0.1
    assert found.lower.acceptance.mean() == pytest.approx(0.8, abs=0.1)
    assert "≤" in str(found)


def test_weights_are_unbiased_both_ways(vae):
    """E[w] = p(x) forward and E[1/w] = 1/p(x) back, at so few temperatures that a wrong one would show."""
    model, guide = vae.to_model(), vae.to_guide("isotropic")
    with torch.random.fork_rng():
        _, x = model.simulate(1)
    z, x = vae.posterior(x).sample(torch.Size([20_000]))[:, 0], x.expand(20_000, -1)
    settings = {"method": "annealed", "num_samples": 1, "num_temperatures": 3}
    truth = vae.log_prob(x)
    for found, sign in (
        (pv.log_marginal(model, guide, x, **settings), 1),
        (pv.log_marginal(model, guide, x, reverse=True, latents=z, **settings), -1),
    ):
        ratio = (sign * (found.per_datum - truth)).exp()
        assert abs(ratio.mean() - 1) < 4.5 * ratio.std() / math.sqrt(len(ratio))
        assert ratio.std() / math.sqrt(len(ratio)) < 0.05


@pytest.mark.parametrize("method", ["annealed", "importance", "quadrature"])
def test_data_in_chunks_keep_their_guides_and_latents(vae, method, monkeypatch):
    """With a guide of every datum's own exact posterior every method is exact, if nothing is taken from another row."""
    z, x = vae.to_model().simulate(23)
    q = pv.evaluation.PerDatumGuide(pv.FullCovariancePosterior, vae.posterior(x).mean)
    factor = vae.to_guide().posterior_head.covariance_head.bias.detach()
    with torch.no_grad():
        q.head.covariance_head.bias.copy_(factor.expand(23, -1))
    monkeypatch.setattr("pyrovae.evaluation.weights._ROWS_AT_ONCE", 20)
    settings = {"num_points": 8, "num_samples": 4, "num_temperatures": 5, "center": "guide"}
    found = pv.log_marginal(vae.to_model(), q, x, method, **settings)
    torch.testing.assert_close(found.per_datum, vae.log_prob(x))
    if method == "annealed":
        settings |= {"reverse": True, "num_temperatures": 2}
        guide = vae.to_guide("diagonal")
        own, others = (
            pv.log_marginal(vae.to_model(), guide, x, method, latents=latents, **settings)
            for latents in (z, z.roll(1, 0))
        )
        off = [(found.per_datum - vae.log_prob(x)).abs().median() for found in (own, others)]
        assert off[0] < 1.5 < 3 < off[1]
    with pytest.raises(ValueError, match="for 23 data of its own, not for 20"):
        pv.log_marginal(vae.to_model(), q, x[3:], method, **{**settings, "reverse": False, "latents": None})


def test_a_model_with_dropout_is_simulated_as_it_is_evaluated():
    decoder = torch.nn.Sequential(pv.nn.MLP(2, 8), torch.nn.Dropout(0.5))
    model = pv.GenerativeModel(decoder, pv.GaussianLikelihood(8, 3, scale=0.3), 2)
    with torch.no_grad():
        model.likelihood.loc_head.weight.mul_(5)
    guide = pv.AmortizedGuide(pv.nn.MLP(3, 8), pv.DiagonalPosterior(8, 2))
    found = pv.sandwich(model, guide, 40, num_samples=4, num_temperatures=60, center="prior")
    assert model.training
    grid = pv.log_marginal(model, guide, found.x, "quadrature", num_points=100)
    low, high = found.interval
    assert low < grid.mean < high


def test_transitions_leave_the_posterior_as_it_is(vae):
    """At steps so long that a third of them is refused: without the refusals the spread would be wrong."""
    z, x = vae.to_model().simulate(1)
    posterior = vae.posterior(x)
    path = path_from(vae.to_model(), vae.to_guide("isotropic"), x, 10)
    z = posterior.sample(torch.Size([20_000]))
    start, moves = z, []
    for _ in range(5):
        z, moved = _transition(path, z, torch.tensor(1.0).double(), torch.full((1, 1), 1.1).double(), 3)
        moves.append(moved.mean().item())
    assert 0.3 < sum(moves) / 5 < 0.9
    assert (z != start).any(-1).double().mean() > 0.9
    z = z[:, 0]
    error = z.std(0) / math.sqrt(len(z))
    assert ((z.mean(0) - posterior.mean[0]).abs() < 4.5 * error).all()
    torch.testing.assert_close(torch.cov(z.T), vae.covariance, rtol=0.06, atol=0.02 * vae.covariance.max().item())


def test_annealing_finds_the_mode_that_the_guide_overlooks():
    """A decoder that folds z: importance sampling from a guide on one side loses log 2, the prior's chains do not."""

    class Fold(torch.nn.Module):
        def forward(self, z):
            return z.abs()

    model = pv.GenerativeModel(Fold(), pv.GaussianLikelihood(1, 1, scale=0.3), 1)
    guide = pv.AmortizedGuide(torch.nn.Identity(), pv.DiagonalPosterior(1, 1))
    with torch.no_grad():
        for layer in (model.likelihood.loc_head, guide.posterior_head.loc_head):
            layer.weight.fill_(1.0)
            layer.bias.zero_()
        guide.posterior_head.covariance_head.weight.zero_()
        guide.posterior_head.covariance_head.bias.fill_(math.log(math.expm1(0.45)))
    x = torch.tensor([[0.9], [1.2], [1.4]])
    grid = pv.log_marginal(model, guide, x, "quadrature", num_points=1000)
    settings = {"num_samples": 400, "num_temperatures": 60, "center": "prior"}
    chains = pv.log_marginal(model, guide, x, "annealed", **settings)
    assert ((chains.per_datum - grid.per_datum).abs() < 5 * chains.stderr_per_datum).all()
    assert chains.stderr_per_datum.max() < 0.05
    one_side = pv.log_marginal(model, guide, x, num_samples=1000)
    torch.testing.assert_close(one_side.per_datum[1:], grid.per_datum[1:] - math.log(2), atol=0.05, rtol=0)


def test_a_flows_bounds_and_a_nonlinear_model_on_a_grid():
    model = pv.GenerativeModel(pv.nn.MLP(2, 8), pv.GaussianLikelihood(8, 3, scale=0.4), 2)
    guide = pv.AmortizedGuide(pv.nn.MLP(3, 8), pv.FlowPosterior(8, 2))
    found = pv.sandwich(model, guide, 30, num_samples=4, num_temperatures=30)
    grid = pv.log_marginal(model, guide, found.x, "quadrature", num_points=100)
    low, high = found.interval
    assert low < grid.mean < high
    assert high - low < 0.5


@pytest.mark.parametrize("k", [0.2, 0.5, 0.9])
def test_pareto_k_of_weights_of_known_tail(k):
    """By inversion, and against scipy's maximum-likelihood fit of the same tail."""
    weights = (1 - torch.rand(20_000, 3, dtype=torch.float64)) ** -k
    found = pareto_k(weights.log())
    assert ((found - k).abs() < 0.2).all()
    tail = weights[:, 0].sort(descending=True).values[:425]
    fitted, *_ = stats.genpareto.fit((tail[:-1] - tail[-1]).numpy(), floc=0)
    assert found[0].item() == pytest.approx((fitted * 424 + 5) / 434, abs=0.05)


def test_pareto_k_of_few_or_equal_weights():
    assert pareto_k(torch.zeros(24, 2)).isnan().all()
    assert (pareto_k(torch.full((100, 2), -math.inf)) == math.inf).all()
    huge = pareto_k(40 * torch.randn(1000, 20))
    assert (huge > 2).all()
    few = torch.full((1000, 1), -math.inf)
    few[:3] = 0.0
    assert pareto_k(few) == math.inf
    assert (pareto_k(torch.zeros(100, 2)) == -math.inf).all()
    assert reliable_below(100) == pytest.approx(0.5)
    assert reliable_below(10**6) == 0.7


def test_a_narrow_guide_is_warned_of(vae):
    x, model = vae.sample(50), vae.to_model()
    narrow = vae.gaussian_guide(vae.gain, 0.05 * vae.covariance)
    with pytest.warns(pv.UnreliableEstimateWarning, match=r"of the data have a Pareto k̂ above 0\.67"):
        found = pv.log_marginal(model, narrow, x)
    assert found.unreliable.double().mean() > 0.8
    assert "with a bad k̂" in str(found)
    wide = vae.gaussian_guide(vae.gain, 1.5 * vae.covariance)
    with warnings.catch_warnings():
        warnings.simplefilter("error", pv.UnreliableEstimateWarning)
        assert pv.log_marginal(model, wide, x).unreliable.sum() <= 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_samples": 0}, "num_samples must be a positive integer, not 0"),
        ({"num_temperatures": 0}, "num_temperatures must be a positive integer"),
        ({"num_leapfrog": 1.5}, "num_leapfrog must be a positive integer"),
        ({"reverse": True}, "reverse=True and latents="),
        ({"latents": torch.zeros(4, 3)}, "reverse=True and latents="),
        ({"reverse": True, "latents": torch.zeros(4, 2)}, r"latents must have shape \(4, 3\), not \(4, 2\)"),
        ({"method": "importance", "reverse": True}, "reverse and latents belong to method='annealed'"),
        ({"x": torch.zeros(4, 2)}, r"cannot run on data of shape \(4, 2\)"),
        ({"guide": lambda x: None}, "method='annealed' needs a GenerativeModel and an AmortizedGuide"),
    ],
)
def test_bad_input(vae, arguments, message):
    settings = {"model": vae.to_model(), "guide": vae.to_guide(), "x": vae.sample(4), "method": "annealed"}
    with pytest.raises(ValueError, match=message):
        pv.log_marginal(**settings | arguments)
    with pytest.raises(TypeError, match="sandwich needs a GenerativeModel"):
        pv.sandwich(lambda x: None, vae.to_guide())
    with pytest.raises(ValueError, match="to simulate from the model, must be a positive integer, not 0"):
        pv.sandwich(vae.to_model(), vae.to_guide(), 0)


def test_a_guide_that_is_not_reparameterised(vae):
    class NotReparameterised(pv.DiagonalPosterior):
        def forward(self, features):
            q = super().forward(features)
            return pyro.distributions.MultivariateNormal(q.mean, q.variance.diag_embed()).has_rsample_(False)

    guide = pv.AmortizedGuide(torch.nn.Identity(), NotReparameterised(5, 3))
    with pytest.raises(pv.NoClosedFormError, match="'z' is not reparameterised"):
        pv.log_marginal(vae.to_model(), guide.double(), vae.sample(4))
    with pytest.raises(pv.NoClosedFormError, match="'z' is not reparameterised"):
        pv.inference_gaps(vae.to_model(), vae.to_guide(), vae.sample(4), [NotReparameterised])


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


def test_memory_is_bounded():
    """More than one chunk of data and many of draws, so that more of either costs no more."""
    script = MEMORY.format(num=1100, num_samples=900)
    result = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=True)
    assert float(result.stdout) < 1024
