"""Convolutional networks: shapes, training, saving."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import pyrovae as pv
from pyrovae.training import TrainingSettings
from tests.pairs import as_graph


@pytest.mark.parametrize(
    ("side", "smallest"), [(28, (14, 7, 4)), (8, (4, 2, 1)), (7, (4, 2, 1)), (1, (1, 1, 1)), (33, (17, 9, 5))]
)
@pytest.mark.parametrize("images", [1, 3])
def test_shapes(side, smallest, images):
    for depth in (1, 2, 3):
        channels = (4, 6, 5)[:depth]
        encoder = pv.nn.ConvEncoder(*channels, side=side, in_channels=images)
        decoder = pv.nn.ConvDecoder(2, *channels[::-1], side=side, out_channels=images)
        n = images * side**2
        assert encoder.out_features == channels[-1] * smallest[depth - 1] ** 2
        assert decoder.out_features == n
        for batch in ((), (3,), (2, 3)):
            assert encoder(torch.randn(*batch, n)).shape == (*batch, encoder.out_features)
            assert decoder(torch.randn(*batch, 2)).shape == (*batch, n)


def test_a_datum_does_not_see_the_others_and_pixels_lie_row_by_row():
    encoder, decoder = pv.nn.ConvEncoder(4, 6, side=8), pv.nn.ConvDecoder(2, 6, 4, side=8)
    x, z = torch.randn(2, 3, 64), torch.randn(2, 3, 2)
    torch.testing.assert_close(encoder(x)[1, 2], encoder(x[1, 2]))
    torch.testing.assert_close(decoder(z)[1, 2], decoder(z[1, 2]))
    first = next(layer for layer in encoder.modules() if isinstance(layer, nn.Conv2d))
    expected = nn.functional.conv2d(x[0].view(3, 1, 8, 8), first.weight, first.bias, stride=2, padding=1)
    torch.testing.assert_close(encoder.layers[:2](x[0]), expected)
    # a pixel in a corner reaches the features of its own corner alone
    image = torch.zeros(1, 64, requires_grad=True)
    pv.nn.ConvEncoder(2, side=8)(image).view(2, 4, 4)[:, 0, 0].sum().backward()
    assert image.grad.view(8, 8)[2:].abs().max() == 0
    assert image.grad.view(8, 8)[:, 2:].abs().max() == 0


def make_pair(side=8):
    torch.manual_seed(0)
    encoder, decoder = pv.nn.ConvEncoder(3, 4, side=side), pv.nn.ConvDecoder(2, 4, 3, side=side)
    likelihood = pv.BernoulliLikelihood(decoder.out_features, side**2)
    model = pv.GenerativeModel(decoder, likelihood, 2)
    return model.double(), pv.AmortizedGuide(encoder, pv.DiagonalPosterior(encoder.out_features, 2)).double()


def test_saved_and_loaded(tmp_path):
    model, guide = make_pair()
    pv.save(tmp_path / "vae.safetensors", model, guide)
    other_model, other_guide = pv.load(tmp_path / "vae.safetensors")
    x, z = torch.rand(5, 64).double().round(), torch.randn(5, 2).double()
    assert torch.equal(model.conditional(z).log_prob(x), other_model.conditional(z).log_prob(x))
    assert torch.equal(guide.posterior(x).log_prob(z), other_guide.posterior(x).log_prob(z))


def test_the_graph_is_the_eager_engine_and_replicas_are_single_runs():
    x = pv.datasets.split_digits("static").train[:64]
    settings = {"epochs": 2, "progress": False}
    eager = pv.fit(*make_pair(), x, pv.AnalyticELBO(), engine="eager", **settings)
    losses = as_graph(*make_pair(), x.double(), pv.AnalyticELBO(), TrainingSettings(epochs=2))
    np.testing.assert_allclose(losses, eager.batch_loss, atol=1e-10, rtol=0)
    together = pv.fit(*make_pair(), x, pv.AnalyticELBO(), num_replicas=2, engine="graph", **settings)
    alone = pv.fit(*make_pair(), x, pv.AnalyticELBO(), engine="eager", num_replicas=1, seed=1, **settings)
    assert together[1].history.engine == "graph"
    np.testing.assert_allclose(together[1].history.batch_loss, alone[0].history.batch_loss, atol=1e-10, rtol=0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pv.nn.ConvEncoder(side=8), "give at least one number of channels"),
        (lambda: pv.nn.ConvEncoder(0, side=8), "each of the channels must be a positive integer, not 0"),
        (lambda: pv.nn.ConvEncoder(4, side=0), "side must be a positive integer, not 0"),
        (lambda: pv.nn.ConvDecoder(2, side=8), "give at least one number of channels"),
        (lambda: pv.nn.ConvDecoder(0, 4, side=8), "in_features must be a positive integer, not 0"),
        (lambda: pv.nn.ConvDecoder(2, 4, side=8, out_channels=1.5), "out_channels must be a positive integer, not 1.5"),
    ],
)
def test_sizes_that_cannot_be(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_imputation():
    impute = pv.nn.ImputeMissing(torch.nn.Identity(), fill=[1.0, 2.0], indicate=True)
    x = torch.tensor([[math.nan, 5.0], [3.0, math.nan]])
    assert impute(x).tolist() == [[1, 5, 1, 0], [3, 2, 0, 1]]
    with pytest.raises(ValueError, match="fill must be a finite number"):
        pv.nn.ImputeMissing(torch.nn.Identity(), fill=math.nan)
