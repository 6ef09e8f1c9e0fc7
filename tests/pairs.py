"""Pairs of programs that several test modules use."""

import pyro
import pyro.distributions as dist
import torch

import pyrovae as pv


def make_pair(family=pv.DiagonalPosterior, n=3, d=2):
    """A small model and guide in float64."""
    model = pv.GenerativeModel(pv.nn.MLP(d, 8), pv.GaussianLikelihood(8, n), d).double()
    return model, pv.AmortizedGuide(pv.nn.MLP(n, 8), family(8, d)).double()


def dependent_pair(values):
    """Programs of two latent sites, the second centred on the first in both, and the guide's four parameters."""
    w = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in values]

    def model(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(torch.zeros(len(x)).double(), 1.0))
            b = pyro.sample("b", dist.Normal(a, 1.0))
            pyro.sample("x", dist.Normal(a + b, 0.5), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(w[0] * x, w[2].exp()))
            pyro.sample("b", dist.Normal(w[1] * a + 0.1 * x, w[3].exp()))

    return model, guide, w
