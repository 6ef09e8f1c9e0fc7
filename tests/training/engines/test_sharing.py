"""The parts of a batch add up to the batch, or are refused."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import pyrovae as pv
from pyrovae.elbo import ESTIMATORS
from pyrovae.errors import InputError
from pyrovae.programs import unregistered
from pyrovae.training.engines._sharing import PartialLoss, SharedLoss
from tests.training.runs import data, functions, make_pair


def parameters_of(pair):
    return [p for program in pair for p in program.parameters()]


def loss_and_slopes(loss, parameters):
    slopes = torch.autograd.grad(loss, parameters, allow_unused=True)
    return loss.item(), [torch.zeros_like(p) if s is None else s for s, p in zip(slopes, parameters, strict=True)]


@pytest.mark.parametrize("num", [33, 2])
@pytest.mark.parametrize(
    ("family", "elbo"),
    [
        ("full-covariance", "analytic"),
        ("full-covariance", "monte-carlo"),
        ("ar1", "analytic"),
        ("ar1", "monte-carlo"),
        ("low-rank", "importance-weighted"),
        ("flow", "doubly-reparameterized"),
        ("diagonal", "sticking-the-landing"),
    ],
)
def test_parts_add_up(family, elbo, num):
    """Loss and gradient of the whole batch, and the generator's state after it; of 2 data, a third process has none."""
    pair, x, elbo = make_pair(family), data(num), ESTIMATORS[elbo]()
    parameters = parameters_of(pair)
    torch.manual_seed(0)
    with unregistered():
        whole, slopes = loss_and_slopes(elbo.differentiable_loss(*pair, x), parameters)
    after = torch.get_rng_state()
    for size in (2, 3):
        loss, sums = 0.0, [torch.zeros_like(p) for p in parameters]
        for rank in range(size):
            partial = PartialLoss(pair, parameters, size, rank)
            torch.manual_seed(0)
            part = partial.part(elbo, x)
            with unregistered():
                value, own = loss_and_slopes(partial(elbo, x[part.rows], part, part.noise(x.device)), parameters)
            assert torch.equal(torch.get_rng_state(), after)
            loss, sums = loss + value, [a + b for a, b in zip(sums, own, strict=True)]
        assert loss == pytest.approx(whole, rel=1e-12)
        for found, true in zip(sums, slopes, strict=True):
            torch.testing.assert_close(found, true, atol=1e-12, rtol=1e-12)


def test_a_subsampled_plate_counts_each_row_once():
    class Rows(nn.Module):
        """Two programs in one: a plate of all data, of which x is a batch."""

        def __init__(self, is_guide):
            super().__init__()
            self.w, self.is_guide = nn.Parameter(torch.ones(3).double()), is_guide

        def forward(self, x):
            with pyro.plate("data", 500, subsample=x):
                if self.is_guide:
                    pyro.sample("z", dist.Normal(x @ self.w, 0.3))
                else:
                    z = pyro.sample("z", dist.Normal(torch.zeros(len(x)).double(), 1.0))
                    pyro.sample("x", dist.Normal(z.unsqueeze(-1) * self.w, 1.0).to_event(1), obs=x)

    pair, x, elbo = (Rows(False), Rows(True)), data(10), pv.MonteCarloELBO()
    torch.manual_seed(0)
    whole = elbo.differentiable_loss(*pair, x).item()
    values = []
    for rank in range(3):
        partial = PartialLoss(pair, parameters_of(pair), 3, rank)
        torch.manual_seed(0)
        part = partial.part(elbo, x)
        values.append(partial(elbo, x[part.rows], part, part.noise(x.device)).item())
    assert sum(values) == pytest.approx(whole, rel=1e-12)


class Encoder(nn.Module):
    """An encoder of batches, whose last layer may mix the rows."""

    def __init__(self, last):
        super().__init__()
        self.first, self.last = nn.Linear(3, 16).double(), last

    def forward(self, x):
        return self.last(self.first(x))


def test_what_changes_a_buffer_is_refused():
    guide = pv.AmortizedGuide(Encoder(nn.BatchNorm1d(16).double()), pv.DiagonalPosterior(16, 2).double())
    pair = (make_pair()[0], guide)
    before = [b.clone() for b in guide.buffers()]
    with pytest.raises(
        InputError, match=r"a buffer of a module changes in training, .*BatchNorm; train .* in one proc"
    ):
        PartialLoss(pair, parameters_of(pair), 2, 0).part(pv.AnalyticELBO(), data(20))
    assert all(torch.equal(a, b) for a, b in zip(guide.buffers(), before, strict=True))


def test_a_site_outside_of_the_plate_is_refused():
    class Program(nn.Module):
        def __init__(self, is_guide):
            super().__init__()
            self.w, self.is_guide = nn.Parameter(torch.ones(()).double()), is_guide

        def forward(self, x):
            scale = pyro.sample("scale", dist.LogNormal(self.w if self.is_guide else torch.ones(()).double(), 1.0))
            with pyro.plate("data", len(x)):
                if not self.is_guide:
                    pyro.sample("x", dist.Normal(torch.zeros(3).double(), scale).to_event(1), obs=x)

    pair = (Program(False), Program(True))
    with pytest.raises(InputError, match="site 'scale' is outside the data's plate, so no rows own it"):
        PartialLoss(pair, parameters_of(pair), 2, 0).part(pv.AnalyticELBO(), data(20))


def test_functions_are_refused():
    with pytest.raises(InputError, match="processes share the training of modules only"):
        PartialLoss(functions(), [torch.zeros(1)], 2, 0)


def test_noise_without_an_axis_of_rows_is_refused():
    class Shuffled(nn.Module):
        def forward(self, x):
            return x + torch.randn(2 * len(x)).double()[: len(x)].unsqueeze(-1)

    guide = pv.AmortizedGuide(Encoder(Shuffled()), pv.DiagonalPosterior(16, 2).double())
    pair = (make_pair()[0], guide)
    with pytest.raises(InputError, match="the programs' noise has no axis of rows"):
        PartialLoss(pair, parameters_of(pair), 2, 0).part(pv.AnalyticELBO(), data(20))


def test_a_loss_that_mixes_rows_is_refused():
    with pytest.raises(InputError, match=r"the loss of a batch, 10, is not the sum of its rows' losses, 10\.001"):
        SharedLoss.check_sum(10.001, 10.0, 2, torch.float64)
    SharedLoss.check_sum(10.001, 10.0, 20, torch.float32)
    SharedLoss.check_sum(float("nan"), 10.0, 20, torch.float32)  # the run says why
