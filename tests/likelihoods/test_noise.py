"""The Fisher information of p(x|z) in z, against dense derivatives."""

from functools import partial

import pytest
import torch

import pyrovae as pv
from pyrovae.distributions import covariance_of
from pyrovae.likelihoods import LIKELIHOODS, gram

HEADS = LIKELIHOODS | {
    "fixed": partial(pv.GaussianLikelihood, scale=0.3),
    "classes": partial(pv.CategoricalLikelihood, num_classes=3),
    "one-hot": partial(pv.CategoricalLikelihood, num_classes=2, one_hot=True),
}


def dense_fisher(likelihood, decoder, z):
    """JᵀWJ of one datum by its definition in the parameters of p(x|z): logits, or the mean and the covariance."""
    d = len(z)

    def derivative(function):
        return torch.autograd.functional.jacobian(function, z).reshape(-1, d)

    p = likelihood(decoder(z))
    if likelihood.is_gaussian:
        precision = torch.linalg.inv(covariance_of(p)).detach()
        mean = derivative(lambda z: likelihood(decoder(z)).mean)
        noise = derivative(lambda z: covariance_of(likelihood(decoder(z)))).T.reshape(d, likelihood.n, likelihood.n)
        moved = precision @ noise
        return mean.T @ precision @ mean + 0.5 * torch.einsum("iab,jba->ij", moved, moved)
    if likelihood.is_count:
        jacobian = derivative(lambda z: likelihood(decoder(z)).mean.log())
        dispersion = getattr(likelihood, "dispersion", torch.zeros(())).detach()
        weight = (p.mean / (1 + dispersion * p.mean)).detach().diag()
        return jacobian.T @ weight @ jacobian
    jacobian = derivative(lambda z: likelihood.logits_head(decoder(z)))
    logits = likelihood.logits_head(decoder(z)).detach()
    if isinstance(likelihood, pv.CategoricalLikelihood):
        q = logits.view(-1, likelihood.num_classes).softmax(-1)
        weight = torch.block_diag(*(row.diag() - row.outer(row) for row in q))
    elif isinstance(likelihood, pv.ContinuousBernoulliLikelihood):
        weight = p.base_dist.variance.detach().diag()
    else:
        weight = (logits.sigmoid() * (1 - logits.sigmoid())).diag()
    return jacobian.T @ weight @ jacobian


@pytest.mark.parametrize("name", HEADS)
def test_the_pulled_back_fisher_is_the_dense_one(name):
    torch.manual_seed(3)
    decoder, likelihood = pv.nn.MLP(3, 16, 8).double(), HEADS[name](8, 6).double()
    for parameter in likelihood.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    if likelihood.is_gaussian:
        likelihood.loc_head.set_units(torch.linspace(0.5, 2, 6).double())
    z = torch.randn(4, 3, dtype=torch.float64)
    jacobian = torch.stack([torch.autograd.functional.jacobian(decoder, row) for row in z])
    ours = likelihood.fisher(decoder(z), jacobian)
    expected = torch.stack([dense_fisher(likelihood, decoder, row) for row in z])
    assert ((ours - expected).abs().amax() / expected.abs().amax()).item() < 1e-12


@pytest.mark.parametrize("name", HEADS)
def test_what_is_not_observed_tells_nothing(name):
    torch.manual_seed(3)
    likelihood = HEADS[name](8, 6).double()
    features, eye = torch.randn(2, 8, dtype=torch.float64), torch.eye(8, dtype=torch.float64).expand(2, 8, 8)
    whole = likelihood.fisher(features, eye)
    torch.testing.assert_close(likelihood.fisher(features, eye, torch.ones(2, 6).bool()), whole)
    if name != "one-hot":
        nothing = likelihood.fisher(features, eye, torch.zeros(2, 6).bool())
        assert nothing.abs().max() < 1e-12
        one_missing = torch.tensor([[True] * 6, [True] * 5 + [False]])
        part = likelihood.fisher(features, eye, one_missing)
        torch.testing.assert_close(part[0], whole[0])
        assert (torch.linalg.eigvalsh(whole[1] - part[1]) > -1e-10).all()  # a channel more is never less information


def test_gram_is_the_weighted_product():
    columns, weights = torch.randn(2, 5, 3).double(), torch.rand(2, 5).double()
    torch.testing.assert_close(gram(columns, weights), columns.mT @ weights.diag_embed() @ columns)
