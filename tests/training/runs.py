"""Programs, data and short trainings that several test modules of the training use."""

import pyro
import pyro.distributions as dist
import torch

import pyrovae as pv
from pyrovae.posteriors import POSTERIORS
from tests import pairs

LIKELIHOODS = {"gaussian": pv.GaussianLikelihood, "bernoulli": pv.BernoulliLikelihood}


def make_pair(family="diagonal", likelihood="gaussian", d=2, seed=1):
    return pairs.make_pair(POSTERIORS[family], 3, d, likelihood=LIKELIHOODS[likelihood], hidden=(16,), seed=seed)


def data(num=160, seed=0, likelihood="gaussian"):
    x = torch.randn(num, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    x[:, 1] += x[:, 0]
    return x if likelihood == "gaussian" else (x > 0).double()


def fit(model, guide, x, elbo, engine, **settings):
    return pv.fit(model, guide, x, elbo, engine=engine, progress=False, **settings)


def replicas(engine="auto", num=3, pair=None, x=None, elbo=None, **settings):
    pair = make_pair("full-covariance") if pair is None else pair
    elbo = pv.MonteCarloELBO() if elbo is None else elbo
    return fit(*pair, data() if x is None else x, elbo, engine, num_replicas=num, seed=5, **settings)


def functions():
    """A model and a guide of two dependent latent sites, with parameters in the store, one of them constrained."""

    def model(x):
        width = pyro.param("width", torch.tensor(0.5).double(), constraint=dist.constraints.positive)
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(torch.zeros(len(x)).double(), 1.0))
            b = pyro.sample("b", dist.Normal(a, 1.0))
            pyro.sample("x", dist.Normal((a + b).unsqueeze(-1) * torch.ones(3).double(), width).to_event(1), obs=x)

    def guide(x):
        w = pyro.param("w", lambda: torch.zeros(3).double())
        v = pyro.param("v", lambda: torch.zeros(2).double())
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(x @ w, v[0].exp()))
            pyro.sample("b", dist.Normal(v[1] * a + x[:, 0], 0.5))

    return model, guide
