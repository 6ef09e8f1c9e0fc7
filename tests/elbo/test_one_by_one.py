"""Draws in one pass: the terms of draws one by one, or refused."""

import pyro
import pytest
import torch
from pyro.infer import SVI
from torch import nn

import pyrovae as pv
from pyrovae.elbo import ESTIMATORS
from tests.pairs import MIXING, make_pair, pair_of

X = torch.tensor([[0.3, 1.2], [1.0, -0.5], [-1.5, 0.1], [0.4, 0.4], [2.0, -1.0]])


@pytest.mark.parametrize("latent", [*MIXING, lambda z: z.softmax(1), lambda z: z[:, :1] + 0 * z])
@pytest.mark.parametrize("elbo_class", ESTIMATORS.values(), ids=ESTIMATORS)
def test_draws_in_one_pass_have_the_terms_of_draws_one_by_one_or_are_refused(latent, elbo_class):
    x = X
    pair = pair_of(latent=latent)
    elbo = elbo_class(3, vectorize_particles=True)
    for run in (lambda: elbo.loss(*pair, x), lambda: elbo.loss(*pair, x), lambda: pv.audit(*pair, elbo, x)):
        with pytest.raises(pv.InputError, match=r"^site 'x' has other terms for 3 draws in one pass than one by one"):
            run()
    elbo_class(3, vectorize_particles=False).loss(*pair, x)
    elbo_class(3, vectorize_particles=True).loss(*pair_of(latent=lambda z: z.softmax(-1)), x)


def test_dropout_and_noise_of_the_programs_are_no_mixing_of_draws():
    layer = nn.Dropout(0.5)
    for latent in (layer, lambda z: layer(z) + torch.randn_like(z)):
        assert pv.MonteCarloELBO(3, vectorize_particles=True).loss(*pair_of(latent=latent), X) > 0


@pytest.mark.parametrize("estimator", [pv.DoublyReparameterizedELBO, pv.ImportanceWeightedELBO])
def test_a_flow_can_be_trained_by_svi(estimator):
    """The check of the first step leaves Pyro's parameters as SVI needs them."""
    pyro.clear_param_store()
    model, guide = make_pair(pv.FlowPosterior)
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 1e-3}), estimator(num_particles=3))
    x = torch.randn(20, 3).double()
    assert all(svi.step(x) > 0 for _ in range(2))
