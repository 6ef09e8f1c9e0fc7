"""Dense networks: their activations, and what they refuse."""

import pytest
import torch
from torch.nn import functional

import pyrovae as pv
from pyrovae.nn import MLP


def test_mlp_applies_its_activation_after_each_layer():
    network, x = MLP(3, 4, 2, activation="tanh"), torch.randn(5, 3)
    first, _, second, _ = network
    expected = torch.tanh(functional.linear(torch.tanh(x @ first.weight.T + first.bias), second.weight, second.bias))
    torch.testing.assert_close(network(x), expected)


def test_mlp_of_tanh_is_saved_and_loaded(tmp_path):
    model = pv.GenerativeModel(MLP(2, 4, activation="tanh"), pv.GaussianLikelihood(4, 3), latent_dim=2)
    guide = pv.AmortizedGuide(MLP(3, 4, activation="tanh"), pv.DiagonalPosterior(4, 2))
    pv.save(tmp_path / "model.safetensors", model, guide)
    loaded, _ = pv.load(tmp_path / "model.safetensors")
    z = torch.randn(6, 2)
    torch.testing.assert_close(loaded.decoder(z), model.decoder(z))


def test_mlp_names_the_nearest_activation():
    with pytest.raises(pv.InputError, match=r"unknown activation 'tan' .did you mean 'tanh'.*relu, tanh"):
        MLP(2, 3, activation="tan")
