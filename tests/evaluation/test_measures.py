"""Measures that choose epochs and learning rates."""

import pytest
import torch

import pyrovae as pv
from pyrovae.evaluation import RefinedELBO
from pyrovae.training.settings import describe


def test_the_refined_elbo_is_the_models_whatever_the_encoder(vae):
    """At a linear-Gaussian model it is mean log p(x), of data taken evenly from all, for a spoiled encoder too."""
    x = vae.sample(101)
    expected = vae.log_prob(x[::5]).mean().item()  # 21 of them
    spoiled = vae.to_guide("diagonal")
    with torch.no_grad():
        for parameter in spoiled.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    assert vae.elbo(spoiled, x).mean() < expected - 5
    model = vae.to_model()
    for guide in (vae.to_guide(), spoiled):
        before = [p.clone() for p in guide.parameters()]
        state = torch.get_rng_state()
        found = RefinedELBO(num_data=21)(model, guide, x)
        assert found == pytest.approx(expected, abs=0.01)
        assert torch.equal(torch.get_rng_state(), state)
        assert all(torch.equal(a, b) for a, b in zip(before, guide.parameters(), strict=True))


def test_fewer_data_than_it_takes_are_all_taken(vae):
    x = vae.sample(5)
    assert RefinedELBO()(vae.to_model(), vae.to_guide(), x) == pytest.approx(vae.log_prob(x).mean().item(), abs=0.01)


def test_a_checkpoint_knows_it_by_its_numbers():
    assert describe(RefinedELBO(num_data=3))["num_data"] == 3


@pytest.mark.parametrize("wrong", [{"num_data": 0}, {"num_steps": 0}, {"num_draws": 1}])
def test_bad_numbers(wrong):
    with pytest.raises(pv.InputError, match=f"{next(iter(wrong))} must be"):
        RefinedELBO(**wrong)
