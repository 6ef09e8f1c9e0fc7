"""On a GPU everything is as on the CPU; skipped where there is none."""

import copy

import pyro
import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

import pyrovae as pv
from pyrovae.elbo import ESTIMATORS
from pyrovae.evaluation import Annealing, Importance, Quadrature
from pyrovae.likelihoods import LIKELIHOODS
from pyrovae.linear_gaussian.exact import LinearGaussianVAE
from pyrovae.posteriors import POSTERIORS
from pyrovae.training import Checkpoints, Trainer, TrainingSettings
from tests.pairs import make_pair

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")

GAUSSIAN_FAMILIES = [name for name in POSTERIORS if name != "flow"]
SAMPLED = ("monte-carlo", "sticking-the-landing", "importance-weighted")
"""Estimators of a family without closed forms."""


def on_gpu(*programs):
    """Copies of programs on the GPU."""
    return tuple(copy.deepcopy(program).cuda() for program in programs)


def data_of(model, num=64, seed=5):
    torch.manual_seed(seed)
    with torch.no_grad():
        return model.sample(num)


@pytest.fixture
def truth():
    """A linear-Gaussian model, whose log p(x) is known."""
    return LinearGaussianVAE(torch.tensor([[1.0, 0.3], [-0.4, 0.8], [0.5, 0.5]]), 0.7, torch.tensor([0.2, 0.0, -1.0]))


@pytest.mark.parametrize("name", GAUSSIAN_FAMILIES)
def test_a_posterior_has_the_same_density_and_divergence(name):
    torch.manual_seed(0)
    head, features = POSTERIORS[name](4, 5).double(), torch.randn(7, 4, dtype=torch.float64)
    q, on_cpu = copy.deepcopy(head).cuda()(features.cuda()), head(features)
    z = q.rsample()
    assert z.is_cuda
    torch.testing.assert_close(q.log_prob(z).cpu(), on_cpu.log_prob(z.cpu()))
    found, expected = (
        kl_divergence(p, Independent(Normal(torch.zeros_like(z), torch.ones_like(z)), 1))
        for p, z in ((q, z), (on_cpu, z.cpu()))
    )
    torch.testing.assert_close(found.cpu(), expected)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_a_likelihood_has_the_same_density(name):
    torch.manual_seed(0)
    head, features = LIKELIHOODS[name](4, 6).double(), torch.randn(7, 4, dtype=torch.float64)
    p = copy.deepcopy(head).cuda()(features.cuda())
    x = p.sample()
    assert x.is_cuda
    torch.testing.assert_close(p.log_prob(x).cpu(), head(features).log_prob(x.cpu()))


@pytest.mark.parametrize(
    ("family", "estimator"), [(f, e) for f in POSTERIORS for e in ESTIMATORS if f != "flow" or e in SAMPLED]
)
def test_training_lowers_the_loss(family, estimator):
    model, guide = make_pair(POSTERIORS[family], seed=1)
    x = pv.datasets.SYNTHETIC["rotated-gaussian"].sample(256, torch.Generator().manual_seed(0))
    x = torch.cat([x, x.sum(1, keepdim=True)], 1).double()
    history = pv.fit(
        model, guide, x, ESTIMATORS[estimator](), epochs=6, learning_rate=1e-2, device="cuda", progress=False
    )
    assert next(model.parameters()).is_cuda
    assert history.engine == "eager"
    assert history.epochs[-1].loss < history.epochs[0].loss - 0.1


def test_an_analytic_step_without_noise_is_the_cpus():
    """Means of z are taken for draws, so that nothing is random: the same parameters after ten steps."""
    x = torch.randn(64, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    class Mean(pv.DiagonalPosterior):
        def forward(self, features):
            q = super().forward(features)
            return pyro.distributions.Delta(q.mean, event_dim=1)

    found = []
    for device in ("cpu", "cuda"):
        model, guide = make_pair(Mean, seed=1)
        pv.fit(model, guide, x, pv.MonteCarloELBO(), epochs=5, device=device, progress=False)
        found.append([p.detach().cpu() for p in model.parameters()])
    for on_cpu, on_cuda in zip(*found, strict=True):
        torch.testing.assert_close(on_cpu, on_cuda, rtol=1e-9, atol=1e-9)


def test_the_graph_engine_draws_the_same_noise():
    losses = []
    for engine in ("eager", "graph"):
        model, guide = make_pair(seed=1)
        history = pv.fit(
            model, guide, data_of(model), pv.MonteCarloELBO(), epochs=3, engine=engine, device="cuda", progress=False
        )
        losses.append(history.batch_loss)
    assert losses[0] == pytest.approx(losses[1], rel=1e-9)


def test_native_code_is_refused_in_one_line():
    model, guide = make_pair(seed=1)
    with pytest.raises(pv.InputError, match=r"^[^\n]*CPU[^\n]*$"):
        pv.fit(model, guide, data_of(model), pv.AnalyticELBO(), epochs=2, engine="compiled", device="cuda")


def test_an_interrupted_run_goes_on_to_the_same_bits(tmp_path):
    def trainer(checkpoints=None):
        settings = TrainingSettings(epochs=4, seed=3, device="cuda")
        x = torch.randn(96, 3, generator=torch.Generator().manual_seed(0))
        pair = make_pair(seed=1, dtype=torch.float32)
        return Trainer([pair], x, pv.MonteCarloELBO(), settings, progress=False, checkpoints=checkpoints)

    whole, again = trainer(), trainer()
    whole.run()
    again.run()
    with Checkpoints(tmp_path) as checkpoints:
        trainer(checkpoints).run(max_steps=5)
    with Checkpoints(tmp_path) as checkpoints:
        rest = trainer(checkpoints)
        assert rest.steps == 5
        rest.run()
    for first, second, third in zip(*(t.engine.parameters[0] for t in (whole, again, rest)), strict=True):
        assert torch.equal(first, second)
        assert torch.equal(first, third)


@pytest.mark.parametrize("method", [Importance(2000), Quadrature(60), Annealing(8, num_temperatures=100)])
def test_log_p_is_exact(truth, method):
    torch.manual_seed(0)
    model, guide = on_gpu(truth.to_model(), truth.to_guide())
    x = truth.marginal.sample((20,))
    found = pv.log_marginal(model, guide, x.cuda(), method)
    error = found.per_datum.cpu() - truth.marginal.log_prob(x)
    assert error.abs().max() < (0.5 if isinstance(method, Annealing) else 0.02)


def test_every_report_runs(truth):
    model, guide = on_gpu(truth.to_model(), truth.to_guide())
    x = truth.marginal.sample((16,)).cuda()
    assert pv.elbo_terms(model, guide, x) is not None
    assert pv.elbo_estimate(model, guide, x).mean == pytest.approx(
        float(truth.marginal.log_prob(x.cpu()).mean()), abs=0.1
    )
    assert pv.gradient_statistics(model, guide, pv.AnalyticELBO(), x) is not None
    assert pv.collapse_report(model, guide, x) is not None
    assert pv.audit(model, guide, pv.AnalyticELBO(), x) is not None
    low, high = pv.sandwich(model, guide, 20, num_temperatures=50, num_samples=4).interval
    assert low <= high + 1


def test_gaps_are_those_of_the_cpu(truth):
    model, guide = truth.to_model(), truth.to_guide()
    x = truth.marginal.sample((8,))
    for m, g, data in ((model, guide, x), (*on_gpu(model, guide), x.cuda())):
        gaps = pv.inference_gaps(m, g, data, max_steps=300, num_samples=50, progress=False)
        assert abs(gaps["full-covariance"].approximation.mean) < 0.05


def test_the_callers_state_on_the_gpu_is_left_alone(truth):
    model, guide = on_gpu(truth.to_model(), truth.to_guide())
    x = truth.marginal.sample((8,)).cuda()
    calls = {
        "fit": lambda: pv.fit(model, guide, x, pv.AnalyticELBO(), epochs=1, progress=False),
        "log_marginal": lambda: pv.log_marginal(model, guide, x, Importance(10)),
        "elbo_estimate": lambda: pv.elbo_estimate(model, guide, x),
        "gradient_statistics": lambda: pv.gradient_statistics(model, guide, pv.AnalyticELBO(), x),
        "collapse_report": lambda: pv.collapse_report(model, guide, x),
        "inference_gaps": lambda: pv.inference_gaps(model, guide, x, max_steps=5, num_samples=10, progress=False),
        "sandwich": lambda: pv.sandwich(model, guide, 5, num_temperatures=5, num_samples=2),
        "audit": lambda: pv.audit(model, guide, pv.AnalyticELBO(), x),
        "LinearGaussianVAE.fit": lambda: LinearGaussianVAE.fit(x.cpu(), 2),
    }
    changed = []
    for name, call in calls.items():
        before = torch.cuda.get_rng_state().clone(), torch.get_rng_state().clone()
        call()
        if not all(map(torch.equal, before, (torch.cuda.get_rng_state(), torch.get_rng_state()))):
            changed.append(name)
    assert not changed


def test_a_model_is_saved_and_loaded(tmp_path):
    model, guide = on_gpu(*make_pair(seed=1))
    pv.save(tmp_path / "model.safetensors", model, guide)
    loaded, _ = pv.load(tmp_path / "model.safetensors")
    for saved, found in zip(model.parameters(), loaded.parameters(), strict=True):
        assert torch.equal(saved.cpu(), found.cpu())


def test_replicas_train_together():
    model, guide = make_pair(seed=1)
    replicas = pv.fit(
        model, guide, data_of(model), pv.AnalyticELBO(), epochs=100, num_replicas=3, device="cuda", progress=False
    )
    for replica in replicas:
        assert replica.history.engine == "graph"
        assert replica.history.epochs[-1].loss < replica.history.epochs[0].loss
