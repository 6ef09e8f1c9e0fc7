"""Pairs of programs, and what several test modules measure of them."""

import dataclasses

import pyro
import pyro.distributions as dist
import torch

import pyrovae as pv
from pyrovae.linear_gaussian.exact import LinearGaussianVAE
from pyrovae.training import Trainer


def make_pair(
    family=pv.DiagonalPosterior,
    n=3,
    d=2,
    *,
    likelihood=pv.GaussianLikelihood,
    hidden=(8,),
    dtype=torch.float64,
    seed=None,
    missing=False,
    prior=None,
    **settings,
):
    """A small model and guide; ``settings`` are the likelihood's, and a seed fixes the parameters."""
    if seed is not None:
        torch.manual_seed(seed)
    decoder = pv.nn.MLP(d, *hidden)
    model = pv.GenerativeModel(decoder, likelihood(hidden[-1], n, **settings), d, prior=prior, missing=missing)
    encoder = pv.nn.MLP(n, *hidden)
    guide = pv.AmortizedGuide(pv.nn.ImputeMissing(encoder) if missing else encoder, family(hidden[-1], d))
    return model.to(dtype), guide.to(dtype)


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


def linear_gaussian(d=2, n=3, sigma=0.7):
    """A linear-Gaussian VAE as programs, its guide at the exact posterior, and p(x)."""
    truth = LinearGaussianVAE(torch.randn(n, d), sigma, torch.randn(n))
    return truth.to_model(), truth.to_guide(), truth.marginal


def gradients(elbo, model, guide, x, repeats, seed=0):
    """Gradients of repeated losses in the guide's and the model's parameters, shape (repeats, num) each."""
    torch.manual_seed(seed)
    rows = []
    for _ in range(repeats):
        losses = elbo.differentiable_loss(model, guide, x)
        grads = [torch.autograd.grad(losses, list(p.parameters()), retain_graph=True) for p in (guide, model)]
        rows.append([torch.cat([g.flatten() for g in part]) for part in grads])
    return [torch.stack(part) for part in zip(*rows, strict=True)]


def loss_at(elbo_class, beta, model, guide, x, particles=1):
    elbo = elbo_class(beta=beta, num_particles=particles, vectorize_particles=True)
    torch.manual_seed(3)
    with torch.no_grad():
        return elbo.differentiable_loss(model, guide, x).item()


def as_graph(model, guide, x, elbo, settings):
    """Losses of a training whose traced step is run operation by operation, without the compiler."""
    trainer = Trainer([(model, guide)], x, elbo, dataclasses.replace(settings, engine="graph"), progress=False)
    assert trainer.engine.name == "graph"
    trainer.run()
    return trainer.histories[0].batch_loss


def rows_as_they_are(x):
    """The data's plate, and the data."""
    return pyro.plate("data", len(x)), x


def pair_of(rows=rows_as_they_are, latent=lambda z: z):
    """z ~ N(0, 1), x ~ N(z, 1), at what ``rows`` takes of the data, by the plate's index."""

    def model(x):
        index, observed = rows(x)
        with index:
            z = pyro.sample("z", dist.Normal(torch.zeros(x.shape[1]), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(latent(z), 1.0).to_event(1), obs=observed)

    def its_guide(x):
        index, observed = rows(x)
        with index:
            pyro.sample("z", dist.Normal(0.5 * observed, 0.8).to_event(1))

    return model, its_guide


MIXING = [
    lambda z: z.softmax(0),
    lambda z: z.cumsum(0),
    lambda z: z.flip(0),
    lambda z: z.sort(0).values,
    lambda z: z - z.mean(0),
]
"""Functions of latents (num, d) that are no functions of single rows."""
