"""Networks for series: what each step sees, shapes, saving; series with gaps and of different lengths."""

import math

import pytest
import torch
from torch import nn

import pyrovae as pv
from pyrovae.exact import LinearGaussianStateSpace
from pyrovae.nn import MLP, DilatedConvolutionEncoder, RecurrentEncoder, Stepwise, StepwiseLocHead


def reach(network, num_steps, channels):
    """Which steps of the input each step of the output depends on, shape (T, T), by finite differences."""
    x = torch.randn(channels * num_steps).double()
    moved = x.repeat(num_steps, 1).unflatten(-1, (num_steps, channels))
    moved[torch.arange(num_steps), torch.arange(num_steps)] += 1.0
    with torch.no_grad():
        change = network.double()(moved.flatten(-2)) - network(x)
    return change.unflatten(-1, (num_steps, -1)).abs().amax(-1).T > 0


def distance(num_steps):
    return (torch.arange(num_steps)[:, None] - torch.arange(num_steps)).abs()


@pytest.mark.parametrize("window", [0, 1, 3])
def test_a_decoder_sees_a_step_or_a_window(window):
    network = Stepwise(nn.Sequential(nn.Linear(2 * (2 * window + 1), 8), nn.Tanh()), 7, window)
    assert torch.equal(reach(network, 7, 2), distance(7) <= window)


@pytest.mark.parametrize("num_steps", [1, 2, 7, 9])
def test_encoders_see_the_whole_series(num_steps):
    for network in (RecurrentEncoder(2, 8, num_steps), DilatedConvolutionEncoder(2, 8, num_steps)):
        assert reach(network, num_steps, 2).all()
        for batch in ((), (3,), (2, 3)):
            assert network(torch.randn(*batch, 2 * num_steps).double()).shape == (*batch, network.out_features)


@pytest.mark.parametrize("num_layers", [0, 1, 2, 3])
def test_the_reach_of_dilated_convolutions(num_layers):
    network = DilatedConvolutionEncoder(1, 8, 12, num_layers)
    assert torch.equal(reach(network, 12, 1), distance(12) <= 2**num_layers - 1)


def test_a_stepwise_head_is_a_block_diagonal_map():
    head, features = StepwiseLocHead(8, 12, 4), torch.randn(5, 8)
    torch.testing.assert_close(head(features), features @ head.matrix.T + head.bias.repeat(4))
    assert torch.equal(head.matrix != 0, torch.block_diag(*[torch.ones(3, 2)] * 4) != 0)


def test_bad_input():
    with pytest.raises(ValueError, match="a series of 4 steps cannot have 6 numbers"):
        Stepwise(MLP(2, 3), 4)(torch.zeros(1, 6))
    with pytest.raises(ValueError, match="in_features must be a multiple of 4, the number of steps, not 6"):
        pv.GaussianLikelihood(6, 8, num_steps=4)
    with pytest.raises(ValueError, match="the noise of a series cannot have scale='per-datum'"):
        pv.GaussianLikelihood(8, 8, scale="per-datum", num_steps=4)
    for make in (RecurrentEncoder, DilatedConvolutionEncoder):
        with pytest.raises(ValueError, match="in_channels must be a positive integer"):
            make(0, 8, 4)


def series(num_steps, scale=0.5):
    """Two channels a step that see one latent, by a network; an untrained pair that takes gaps."""
    prior = pv.priors.AR1Prior(num_steps, 0.8)
    decoder = Stepwise(MLP(1, 4), num_steps)
    likelihood = pv.GaussianLikelihood(4 * num_steps, 2 * num_steps, scale=scale, num_steps=num_steps)
    model = pv.GenerativeModel(decoder, likelihood, num_steps, prior=prior, missing=True)
    encoder = pv.nn.ImputeMissing(RecurrentEncoder(2, 4, num_steps))
    return model, pv.AmortizedGuide(encoder, pv.MarkovPosterior(8 * num_steps, num_steps))


def test_trained_saved_and_loaded(tmp_path):
    model, guide = series(5)
    x = model.sample(40).masked_fill(torch.rand(40, 10) < 0.2, math.nan)
    history = pv.fit(model, guide, x, pv.AnalyticELBO(), epochs=3, batch_size=20, progress=False)
    assert all(math.isfinite(loss) for loss in history.batch_loss)
    pv.save(tmp_path / "vae.safetensors", model, guide)
    again, its_guide = pv.load(tmp_path / "vae.safetensors")
    z = torch.randn(3, 5)
    assert torch.equal(again.conditional(z).mean, model.conditional(z).mean)
    assert torch.equal(its_guide.posterior(x[:3]).mean, guide.posterior(x[:3]).mean)


def test_gaps_and_lengths_are_exact():
    """Log p(x) of what was observed, against the state space; the end of a shorter series counts nothing."""
    chain, short = (LinearGaussianStateSpace(steps, 0.8, 1.3, 0.5) for steps in (6, 4))
    head = pv.GaussianLikelihood(6, 6, scale=0.5, num_steps=6)
    model = pv.GenerativeModel(nn.Identity(), head, 6, prior=pv.priors.AR1Prior(6, 0.8), missing=True).double()
    with torch.no_grad():
        head.loc_head.weight.fill_(1.3)
        head.loc_head.bias.zero_()
    encoder = pv.nn.ImputeMissing(DilatedConvolutionEncoder(1, 4, 6))
    guide = pv.AmortizedGuide(encoder, pv.MarkovPosterior(24, 6)).double()
    x = chain.sample(4)
    x[0, 4:] = x[1, 0] = x[2, 2:4] = math.nan
    exact = chain.log_prob(x)
    assert exact[0].item() == pytest.approx(short.log_prob(x[0, :4]).item(), abs=1e-10)
    refined = pv.refine(model, guide, x)
    torch.testing.assert_close(refined.elbo.per_datum, exact, rtol=0, atol=1e-6)
