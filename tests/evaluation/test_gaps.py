"""Inference gaps on linear-Gaussian models."""

import inspect
import math
import typing

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import kl_divergence

import pyrovae as pv
from experiments.truth.linear import train
from pyrovae.evaluation import LogMarginal
from pyrovae.evaluation.gaps import EncoderTraining, EncoderTrainingKeywords
from pyrovae.posteriors import POSTERIORS


@pytest.mark.parametrize(
    "family",
    ["diagonal", *(pytest.param(name, marks=pytest.mark.slow) for name in ("ar1", "low-rank", "full-covariance"))],
)
def test_the_approximation_gap_is_the_predicted_one(vae, family):
    x = vae.sample(40)
    found = pv.inference_gaps(
        vae.to_model(), vae.to_guide("isotropic"), x, {family: POSTERIORS[family]},
        log_p=LogMarginal.exact(vae.log_prob(x)),
    )[family]  # fmt: skip
    assert found.approximation.mean == pytest.approx(vae.gap(family), abs=0.01)
    kl = kl_divergence(found.refitted.posterior(), vae.posterior(x))
    assert kl.mean().item() == pytest.approx(vae.gap(family), abs=0.01)
    assert kl.min() > vae.gap(family) - 1e-6
    assert found.approximation.mean == pytest.approx(kl.mean().item(), abs=5 * found.approximation.stderr_monte_carlo)


@pytest.mark.slow
def test_gaps_of_an_encoder_that_is_off(vae):
    """Amortisation and generalisation gap of a guide whose mean is biased, against exact ELBOs."""
    x, train = vae.sample(30), vae.sample(60)
    model = vae.to_model()
    guide = vae.gaussian_guide(0.8 * vae.gain, vae.covariance)
    families = {"full-covariance": pv.FullCovariancePosterior, "diagonal": pv.DiagonalPosterior}
    before = [p.clone() for p in (*model.parameters(), *guide.parameters())]
    state = torch.get_rng_state()
    found = pv.inference_gaps(model, guide, x, families, train=train, epochs=60, batch_size=20, learning_rate=0.01)
    assert (torch.get_rng_state() == state).all()
    assert all((a == b).all() for a, b in zip(before, (*model.parameters(), *guide.parameters()), strict=True))
    assert found.log_p.mean == pytest.approx(vae.log_prob(x).mean().item(), abs=0.01)
    full, diagonal = found["full-covariance"], found["diagonal"]
    exact = vae.log_prob(x) - vae.elbo(guide, x)
    assert full.amortization.mean == pytest.approx(exact.mean().item(), abs=0.03)
    assert full.amortization.stderr_data == pytest.approx((exact.std() / math.sqrt(30)).item(), rel=0.2)
    expected = (vae.elbo(guide, train).mean() - vae.elbo(guide, x).mean()).item()
    assert full.generalization.mean == pytest.approx(expected, abs=5 * full.generalization.stderr_monte_carlo)
    assert diagonal.amortization is None
    assert diagonal.generalization is None
    on_train = (vae.log_prob(train) - vae.elbo(guide, train)).mean().item()
    parts = full.split
    assert sum(part.mean for part in parts.values()) == pytest.approx(exact.mean().item(), abs=0.05)
    assert parts["family"].mean == pytest.approx(0, abs=0.01)
    assert len(full.amortization_train.per_datum) == len(x)  # half of the training data
    spread = (vae.log_prob(train) - vae.elbo(guide, train)).std().item()
    assert parts["encoder on training data"].mean == pytest.approx(on_train, abs=4 * spread / math.sqrt(len(x)))
    with pytest.raises(pv.InputError, match="the guide's own family, not of diagonal"):
        diagonal.split  # noqa: B018
    assert 0 <= full.amortization_refitted.mean + 0.01 < full.amortization.mean / 2
    assert diagonal.amortization_refitted.mean > 0
    table = found.to_frame().set_index("family")
    assert math.isnan(table.loc["diagonal", "amortization"])
    assert table.loc["diagonal", "approximation"] == diagonal.approximation.mean
    assert "approximation" in str(found)
    assert f"{full.best_elbo.mean:.4f} ± " in str(found)
    with pytest.raises(KeyError, match="no family 'flow'; there are full-covariance, diagonal"):
        found["flow"]


@pytest.mark.slow
def test_the_loss_is_split_into_family_encoder_and_new_data(vae):
    """An encoder that is exact on the training data and 2 off elsewhere loses nothing there; the parts are exact."""

    class Off(torch.nn.Module):
        def forward(self, x):
            return torch.cat([x, (x[:, :1] > 40).to(x)], -1)  # whether it is a new datum

    train, x = vae.sample(12), vae.sample(10)
    x[:, 0] += 100
    guide = pv.AmortizedGuide(Off(), pv.FullCovariancePosterior(6, 3)).double()
    exact = vae.to_guide("full-covariance").posterior_head
    with torch.no_grad():
        for name in ("loc_head", "covariance_head"):
            head, right = getattr(guide.posterior_head, name), getattr(exact, name)
            head.weight.zero_()
            head.weight[:, :5] = right.weight
            head.bias.copy_(right.bias)
        guide.posterior_head.loc_head.weight[:, 5] = 2.0
    lost = 0.5 * (vae.precision * 4.0).sum().item()  # ½ δᵀPδ with δ = (2, 2, 2)
    found = pv.inference_gaps(
        vae.to_model(), guide, x, {"full-covariance": pv.FullCovariancePosterior}, train=train, epochs=1,
        log_p=LogMarginal.exact(vae.log_prob(x)), max_steps=600,
    )["full-covariance"]  # fmt: skip
    parts = found.split
    assert parts["family"].mean == pytest.approx(0, abs=0.02)
    assert parts["encoder on training data"].mean == pytest.approx(0, abs=0.02)
    assert parts["encoder on new data"].mean == pytest.approx(lost, rel=0.02, abs=0.05)
    assert sum(part.mean for part in parts.values()) == pytest.approx(lost, rel=0.02, abs=0.05)


def test_the_decoder_is_frozen_even_to_running_statistics(vae):
    class Running(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("count", torch.tensor(0.0))

        def forward(self, z):
            self.count += self.training
            return z

    decoder = torch.nn.Sequential(torch.nn.Linear(3, 3), Running(), torch.nn.Dropout(0.5))
    model = pv.GenerativeModel(decoder, pv.GaussianLikelihood(3, 5), 3)
    guide = pv.AmortizedGuide(torch.nn.Identity(), pv.DiagonalPosterior(5, 3))
    seen = []
    decoder[2].register_forward_hook(lambda module, *_: seen.append(module.training))
    families = {"diagonal": pv.DiagonalPosterior}
    x = vae.sample(20).float()
    pv.inference_gaps(model, guide, x, families, train=x, epochs=1, max_steps=50)
    pv.refit(model.double(), guide.double(), x.double(), pv.DiagonalPosterior, max_steps=50)
    assert all(p.grad is None for p in model.parameters())
    assert decoder[1].count == 0
    assert model.training
    assert not any(seen)


def test_a_gap_below_zero_is_reported_as_it_is(vae):
    x = vae.sample(10)
    low = LogMarginal.exact(vae.log_prob(x) - 1)
    found = pv.inference_gaps(vae.to_model(), vae.to_guide(), x, [pv.FullCovariancePosterior], log_p=low, max_steps=50)
    assert found["FullCovariancePosterior"].approximation.mean == pytest.approx(-1, abs=0.05)


def test_a_flow_of_its_own_for_every_datum(vae):
    x = vae.sample(6)
    found = pv.inference_gaps(vae.to_model(), vae.to_guide(), x, {"flow": pv.FlowPosterior}, max_steps=100)
    best = found["flow"].best_elbo
    assert ((vae.log_prob(x) - best.per_datum) > -5 * best.stderr_per_datum).all()
    assert (vae.log_prob(x) - best.per_datum).mean() < vae.gap("isotropic") + 0.5


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"num_particles": 0}, ValueError, "num_particles must be a positive integer, not 0"),
        ({"num_samples": 1}, ValueError, "num_samples must be an integer of at least 2, not 1"),
        ({"x": torch.zeros(4, 2)}, ValueError, r"cannot run on data of shape \(4, 2\)"),
        ({"families": ["diagonal"]}, TypeError, "the families must be classes or instances, not the name"),
        ({"families": []}, ValueError, "give at least one of the families"),
        ({"families": pv.DiagonalPosterior}, TypeError, r"a sequence such as \[DiagonalPosterior\]"),
        ({"families": [pv.FlowPosterior] * 2}, ValueError, "called alike"),
        ({"epochs": 0}, ValueError, "epochs must be a positive integer, not 0"),
        ({"epohcs": 3}, TypeError, r"inference_gaps\(\) has no setting 'epohcs' \(did you mean 'epochs'\?\)"),
        ({"learning_rate": 0.0}, ValueError, "learning_rate must be a positive number or a schedule, not 0.0"),
        ({"log_p": LogMarginal.exact(torch.zeros(3))}, ValueError, "log_p is of 3 data, x has 4"),
        ({"guide": lambda x: None}, ValueError, "latent site 'z' of the model is missing in the guide"),
    ],
)
def test_bad_input(vae, arguments, error, message):
    settings = {"model": vae.to_model(), "guide": vae.to_guide(), "x": vae.sample(4)}
    with pytest.raises(error, match=message):
        pv.inference_gaps(**settings | arguments)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["diagonal", "full-covariance"])
def test_diagonal_and_full_covariance_end_alike_at_two_dimensions(family):
    (reached,) = train(2, family, "analytic", free=True, steps=3000)
    assert -1e-9 < reached.total < 0.005


def test_a_family_that_is_not_reparameterised(vae):
    class NotReparameterised(pv.DiagonalPosterior):
        def forward(self, features):
            q = super().forward(features)
            return pyro.distributions.MultivariateNormal(q.mean, q.variance.diag_embed()).has_rsample_(False)

    with pytest.raises(pv.NoClosedFormError, match="'z' is not reparameterised"):
        pv.inference_gaps(vae.to_model(), vae.to_guide(), vae.sample(4), [NotReparameterised])


def test_the_keywords_are_the_fields_of_the_encoders_training():
    assert typing.get_type_hints(EncoderTrainingKeywords) == typing.get_type_hints(EncoderTraining)
    assert not EncoderTrainingKeywords.__required_keys__
    parameters = inspect.signature(pv.inference_gaps).parameters
    assert parameters["epochs"].default == 20
    assert parameters["batch_size"].default == 64
    assert parameters["learning_rate"].default == 1e-3


def test_log_p_is_right_where_no_gaussian_is_a_proposal():
    """A decoder that folds z has rings as posteriors; the density of |z|² is exp(−x/2)/2, hardly blurred."""

    class Fold(torch.nn.Module):
        def forward(self, z):
            return z[..., :1].square() + z[..., 1:].square()

    model = pv.GenerativeModel(Fold(), pv.GaussianLikelihood(1, 1, scale=0.02), 2).double()
    with torch.no_grad():
        model.likelihood.loc_head.weight.fill_(1.0)
        model.likelihood.loc_head.bias.zero_()
    guide = pv.AmortizedGuide(torch.nn.Identity(), pv.DiagonalPosterior(1, 2)).double()
    x = torch.full((4, 1), 2.0).double()
    found = pv.inference_gaps(model, guide, x, [pv.DiagonalPosterior], max_steps=50)
    assert (found.log_p.per_datum - (-1 - math.log(2))).abs().max() < 0.05 + 4 * found.log_p.stderr_per_datum.max()
    assert found.log_p.stderr_per_datum.max() < 0.15
    assert not found.log_p.unreliable.any()


@pytest.mark.slow
def test_a_pair_written_by_hand():
    """z ~ N(0, 1), x ~ N(z, 1): the family of q(z|x) holds the posterior, and the encoder's gap is a KL."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.4 * x, 0.6).to_event(1))

    x = torch.tensor([[0.3], [1.2]])
    found = pv.inference_gaps(model, guide, x, [pv.DiagonalPosterior], max_steps=60, num_samples=100)
    log_p = dist.Normal(0.0, 2**0.5).log_prob(x).mean().item()
    assert found.log_p.mean == pytest.approx(log_p, abs=0.02)
    assert found["DiagonalPosterior"].approximation.mean == pytest.approx(0, abs=0.02)
    with pytest.raises(TypeError, match="train= trains encoders"):
        pv.inference_gaps(model, guide, x, train=x)
