"""Statistics of gradients, where the truth is known."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyrovae as pv
from pyrovae.elbo import ESTIMATORS
from pyrovae.evaluation._gradient_sums import GradientSums, Part
from pyrovae.posteriors import POSTERIORS
from tests.pairs import make_pair

PARTS = ["encoder location head", "encoder covariance head", "encoder body", "encoder", "decoder"]


PAIRS = [
    ("diagonal", "monte-carlo"),
    ("full-covariance", "monte-carlo"),
    ("isotropic", "doubly-reparameterized"),
    ("ar1-per-dimension", "doubly-reparameterized"),
    ("low-rank", "doubly-reparameterized"),
    pytest.param("flow", "doubly-reparameterized", marks=pytest.mark.slow),
]
"""Families whose operations differ, and the two ways in which estimators take gradients."""


@pytest.mark.parametrize(("family", "name"), PAIRS)
def test_gradient_statistics_under_vmap_and_one_by_one(family, name, monkeypatch):
    model, guide = make_pair(POSTERIORS[family])
    x = torch.randn(4, 3, dtype=torch.float64)
    mapped = pv.gradient_statistics(model, guide, ESTIMATORS[name](), x, 400)
    assert mapped.vectorized

    def refuse(*_, **__):
        raise RuntimeError("no vmap here")

    monkeypatch.setattr(torch, "vmap", refuse)
    looped = pv.gradient_statistics(model, guide, ESTIMATORS[name](), x, 150, seed=1)
    assert not looped.vectorized
    expected = [part for part in PARTS if family != "flow" or part != "encoder location head"]
    assert [part.part for part in mapped.parts] == expected
    for part in expected:
        a, b = mapped[part], looped[part]
        assert a.num_parameters == b.num_parameters
        assert abs(a.variance - b.variance) <= 5 * math.hypot(a.variance_stderr, b.variance_stderr)
        assert abs(a.snr - b.snr) <= 5 * math.hypot(a.snr_stderr, b.snr_stderr) + 0.1
        noise = math.sqrt(a.variance / 400 + b.variance / 150)
        assert (mapped.mean[part] - looped.mean[part]).norm() <= 3 * noise
    assert mapped.loss == pytest.approx(looped.loss, abs=5 * math.hypot(mapped.loss_stderr, looped.loss_stderr))


def test_gradient_statistics_are_the_plain_moments(linear):
    x, model, guide = linear.sample(3), linear.to_model(), linear.to_guide("diagonal")
    found = pv.gradient_statistics(model, guide, pv.MonteCarloELBO(), x, 40)
    parameters = [*model.parameters(), *guide.parameters()]
    sizes = [sum(p.numel() for p in program.parameters()) for program in (model, guide)]
    rows = []
    with pyro.validation_enabled(False):
        for _ in range(1500):
            loss = pv.MonteCarloELBO().differentiable_loss(model, guide, x) / 3
            rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)]))
    rows = torch.stack(rows)
    big = pv.gradient_statistics(model, guide, pv.MonteCarloELBO(), x, 1500)
    for part, gradients in zip(("decoder", "encoder"), rows.split(sizes, dim=1), strict=True):
        variance = gradients.var(0).sum().item()
        # the bound holds for both draws' noise; for the small number of repeats it tells if stderr is of the right size
        assert big[part].variance == pytest.approx(variance, abs=7 * big[part].variance_stderr)
        assert found[part].variance == pytest.approx(variance, abs=6 * found[part].variance_stderr)
        assert 3 < found[part].variance_stderr / big[part].variance_stderr < 30
        snr = (gradients.mean(0).norm() / math.sqrt(variance)).item()
        assert big[part].snr == pytest.approx(snr, abs=7 * big[part].snr_stderr + 0.02)
        assert big[part].variance_seconds == pytest.approx(big[part].variance * big.seconds)
    assert list(found.to_frame()["part"]) == [p for p in PARTS if p != "encoder body"]


def test_gradient_statistics_of_functions():
    x = torch.tensor([0.5, -1.0], dtype=torch.float64)

    def model(x):
        noise = pyro.param("noise", torch.tensor(0.6, dtype=torch.float64), constraint=dist.constraints.positive)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2).double(), 1.0))
            pyro.sample("x", dist.Normal(z, noise), obs=x)

    def guide(x):
        slope = pyro.param("slope", torch.tensor(0.3, dtype=torch.float64))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(slope * x, 0.8))

    found = pv.gradient_statistics(model, guide, pv.MonteCarloELBO(), x, 200)
    assert [(part.part, part.num_parameters) for part in found.parts] == [("guide", 1), ("decoder", 1)]
    assert found["guide"].variance > 0
    # dLoss/dslope = Σ x (slope x − (x − slope x)/noise² + …)/2: closed form of the mean
    expected = (0.3 * x.square() - x * (x - 0.3 * x) / 0.36).mean().item()
    assert found.mean["guide"].item() == pytest.approx(expected, abs=5 * math.sqrt(found["guide"].variance / 200))


def test_gradient_statistics_needs_two():
    model, guide = make_pair(pv.DiagonalPosterior)
    with pytest.raises(ValueError, match="num_repeats must be an integer of at least 2, not 1"):
        pv.gradient_statistics(model, guide, pv.AnalyticELBO(), torch.zeros(2, 3).double(), 1)


def test_gradient_statistics_of_a_shared_submodule_leaves_it_as_it_was():
    body = pv.nn.MLP(2, 2).double()
    model = pv.GenerativeModel(body, pv.GaussianLikelihood(2, 2), 2).double()
    guide = pv.AmortizedGuide(body, pv.DiagonalPosterior(2, 2)).double()
    before = list(model.parameters()) + list(guide.parameters())
    x = torch.randn(4, 2, dtype=torch.float64)
    found = pv.gradient_statistics(model, guide, pv.AnalyticELBO(), x, 20)
    after = list(model.parameters()) + list(guide.parameters())
    assert all(a is b for a, b in zip(before, after, strict=True))
    assert found["encoder body"].variance > 0


def test_gradient_statistics_of_parameters_in_pyros_store():
    """A PyroParam, and a pyro.param inside a module, go through the store, where vmap would not see them."""

    class Model(pyro.nn.PyroModule):
        def __init__(self):
            super().__init__(name="model")
            self.sigma = pyro.nn.PyroParam(torch.tensor(0.7).double(), constraint=dist.constraints.positive)

        def forward(self, x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(torch.zeros(len(x)).double(), 1.0))
                pyro.sample("x", dist.Normal(z, self.sigma), obs=x)

    class Guide(torch.nn.Module):
        def forward(self, x):
            slope = pyro.param("slope", torch.tensor(0.3).double())
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(slope * x, 0.8))

    x = torch.tensor([0.5, -1.0], dtype=torch.float64)
    found = pv.gradient_statistics(Model(), Guide(), pv.MonteCarloELBO(), x, 200)
    assert not found.vectorized
    assert [(part.part, part.num_parameters) for part in found.parts] == [("guide", 1), ("decoder", 1)]
    assert all(part.variance > 0 for part in found.parts)


def test_what_is_printed(linear):
    found = pv.gradient_statistics(linear.to_model(), linear.to_guide(), pv.MonteCarloELBO(), linear.sample(5), 20)
    assert "encoder covariance head" in str(found)
    assert "variance_seconds" in str(found)
    with pytest.raises(KeyError, match="no part 'encodr'; there are encoder location head"):
        found["encodr"]


def test_the_mean_gradient_is_without_the_noise_s_share():
    """Of gradients of mean 0 in 1,000 dimensions, 8 at a time: ‖ḡ‖² is 125 in mean, ‖E g‖² is 0."""
    parts = {Part.DECODER: torch.arange(1000)}
    torch.manual_seed(0)
    found = []
    for _ in range(20):
        rows = torch.cat([torch.zeros(8, 1), torch.randn(8, 1000)], 1)
        found.append(GradientSums(parts, iter([rows]), 8).statistics(Part.DECODER, 1.0))
    squares = torch.tensor([statistics.mean_norm**2 for statistics in found])
    assert squares.mean() < 10  # cut off at 0 its mean is 2.4, and its standard deviation 0.8 over 20
    assert max(statistics.snr for statistics in found) < 0.2  # 0.35 with the noise's share
