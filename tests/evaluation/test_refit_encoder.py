"""Encoders that are trained again at a frozen model, where the best one is known."""

import inspect

import pyro
import pytest
import torch

import pyrovae as pv
from pyrovae.evaluation import EncoderStage
from pyrovae.evaluation._encoder_data import Draws, Jittered
from pyrovae.evaluation.refit_encoder import EncoderRefitting
from tests.pairs import make_pair

FAST = {"num_draws": 1000, "epochs": 30, "batch_size": 100, "learning_rate": 0.1, "progress": False}


def spoil(guide, by=0.3, seed=0):
    """Move every parameter at random."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in guide.parameters():
            parameter += by * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    return guide


@pytest.mark.parametrize(("family", "with_data"), [("diagonal", False), ("full-covariance", True)])
def test_a_spoiled_encoder_comes_back_to_the_familys_best(vae, family, with_data):
    """The best ELBO is exact; before, the encoder is more than 10 nats below it."""
    train, validation, test = vae.sample(200), vae.sample(200), vae.sample(500)
    guide = spoil(vae.to_guide(family))
    best = vae.best_elbo(family, test).mean().item()
    assert vae.elbo(guide, test).mean().item() < best - 10
    found = pv.refit_encoder(vae.to_model(), guide, train if with_data else None, validation=validation, **FAST)
    assert found.stage != EncoderStage.ORIGINAL
    assert 0 <= best - vae.elbo(found.guide, test).mean().item() < 0.1
    exact = vae.elbo(found.guide, validation) - vae.elbo(guide, validation)
    assert found.gain.mean == pytest.approx(exact.mean().item(), abs=5 * found.gain.stderr_monte_carlo)
    assert list(found.elbo) == list(EncoderStage)[: 3 if with_data else 2]


def test_an_encoder_that_overfits_few_data_is_brought_back(vae):
    """Trained on 12 data, an encoder has lost more than a nat on new ones; refitting gives nine tenths of it back."""
    model = vae.to_model().requires_grad_(False)
    guide = pv.AmortizedGuide(pv.nn.MLP(5, 64), pv.FullCovariancePosterior(64, 3)).double()
    train, validation, test = vae.sample(12), vae.sample(100), vae.sample(500)
    training = {"epochs": 300, "learning_rate": 0.03, "progress": False}
    pv.fit(lambda x: model(x), guide, train, pv.AnalyticELBO(), **training)
    log_p = vae.log_prob(test).mean().item()
    lost = log_p - vae.elbo(guide, test).mean().item()
    assert lost > 1
    found = pv.refit_encoder(model, guide, train, validation=validation, **FAST | {"learning_rate": 0.01})
    assert log_p - vae.elbo(found.guide, test).mean().item() < 0.1 * lost


def test_the_original_is_kept_where_no_other_is_better(vae):
    """Nothing beats the exact posterior."""
    guide = vae.to_guide()
    found = pv.refit_encoder(vae.to_model(), guide, vae.sample(50), validation=vae.sample(50), **FAST)
    assert found.stage == EncoderStage.ORIGINAL
    assert found.guide is not guide
    for kept, given in zip(found.guide.parameters(), guide.parameters(), strict=True):
        assert torch.equal(kept, given)
    assert found.gain.mean == 0
    assert "kept: original" in str(found)


def test_validation_data_choose_not_training_data(vae):
    """An encoder that is right for the validation data alone stays."""
    far = vae.sample(100) + 40.0
    guide = vae.to_guide()
    with torch.no_grad():
        guide.posterior_head.loc_head.bias += 8.0
        wanted = vae.posterior(far).mean.mean(0)
        guide.posterior_head.loc_head.weight.zero_()
        guide.posterior_head.loc_head.bias.copy_(wanted)
    train = vae.sample(100)
    spoiled = vae.elbo(guide, train).mean() < vae.elbo(vae.to_guide(), train).mean() - 10
    assert spoiled
    settings = {**FAST, "num_draws": 200, "epochs": 1, "learning_rate": 1.0}
    found = pv.refit_encoder(vae.to_model(), guide, train, validation=far, **settings)
    best = max(found.elbo, key=lambda stage: found.elbo[stage].mean)
    assert found.stage == best


def test_seeds_reproduce_and_the_callers_state_stays(vae):
    model, guide = make_pair(pv.DiagonalPosterior, n=5, d=3, dtype=torch.float32, seed=2)
    model.decoder.add_module("dropout", torch.nn.Dropout(0.5))
    train, validation = vae.sample(60).float(), vae.sample(40).float()
    before = [p.detach().clone() for p in (*model.parameters(), *guide.parameters())]
    pyro.get_param_store().setdefault("the caller's", torch.ones(2))
    names = sorted(pyro.get_param_store().keys())
    state, seen = torch.get_rng_state(), []
    model.decoder.dropout.register_forward_hook(lambda module, *_: seen.append(module.training))
    settings = {"validation": validation, "num_draws": 300, "epochs": 3, "progress": False}
    found = [pv.refit_encoder(model, guide, train, seed=seed, **settings) for seed in (1, 1, 2)]
    values = [torch.cat([p.flatten() for p in each.guide.parameters()]) for each in found]
    assert torch.equal(values[0], values[1])
    assert not torch.equal(values[0], values[2])
    assert found[0].elbo[EncoderStage.DRAWS].mean != found[2].elbo[EncoderStage.DRAWS].mean
    assert torch.equal(torch.get_rng_state(), state)
    assert sorted(pyro.get_param_store().keys()) == names
    after = [*model.parameters(), *guide.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))
    assert all(p.grad is None and p.requires_grad for p in after)
    assert model.training
    assert found[0].guide.training
    assert not any(seen)


def test_an_interrupted_refit_resumes_to_the_same_bits(vae, tmp_path):
    model, guide = vae.to_model(), spoil(vae.to_guide("diagonal"))
    train, validation = vae.sample(60), vae.sample(40)
    settings = {**FAST, "num_draws": 300, "epochs": 3, "validation": validation}
    whole = pv.refit_encoder(model, guide, train, **settings)
    first = pv.refit_encoder(model, guide, None, checkpoint=tmp_path, **settings)  # the first stage alone
    rest = pv.refit_encoder(model, guide, train, checkpoint=tmp_path, **settings)
    assert first.elbo[EncoderStage.DRAWS].mean == whole.elbo[EncoderStage.DRAWS].mean
    assert sorted(path.name for path in tmp_path.iterdir()) == ["draws", "jittered"]
    for one, other in zip(whole.guide.parameters(), rest.guide.parameters(), strict=True):
        assert torch.equal(one, other)
    with pytest.raises(pv.InputError, match="seed 0, not 5"):
        pv.refit_encoder(model, guide, train, checkpoint=tmp_path, seed=5, **settings)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"num_draws": 0}, ValueError, "num_draws must be a positive integer, not 0"),
        ({"num_samples": 1}, ValueError, "num_samples must be an integer of at least 2, not 1"),
        ({"guide": lambda x: None}, TypeError, "needs a GenerativeModel and an AmortizedGuide"),
        ({"validation": torch.zeros(0, 5)}, ValueError, "validation is empty"),
        ({"validation": torch.full((2, 5), torch.nan)}, ValueError, "validation holds 10 NaN"),
        ({"x_train": torch.zeros(3, 4)}, ValueError, r"x_train must have shape \(num, 5\), not \(3, 4\)"),
        ({"validation": torch.zeros(3, 4)}, ValueError, r"validation must have shape \(num, 5\), not \(3, 4\)"),
        ({"epohcs": 3}, TypeError, r"refit_encoder\(\) has no setting 'epohcs' \(did you mean 'epochs'\?\)"),
        ({"measure": None}, TypeError, r"refit_encoder\(\) has no setting 'measure'"),
    ],
)
def test_bad_input(vae, arguments, error, message):
    settings = {"model": vae.to_model(), "guide": vae.to_guide(), "validation": vae.sample(4), "progress": False}
    with pytest.raises(error, match=message) as caught:
        pv.refit_encoder(**settings | arguments)
    assert isinstance(caught.value, pv.InputError)


def test_the_keywords_are_the_fields_of_its_training():
    parameters = inspect.signature(pv.refit_encoder).parameters
    assert parameters["epochs"].default == EncoderRefitting().epochs == 100
    assert "transform" not in parameters


@pytest.mark.parametrize(
    ("likelihood", "settings"),
    [
        (pv.BernoulliLikelihood, {}),
        (pv.ContinuousBernoulliLikelihood, {}),
        (pv.CategoricalLikelihood, {"num_classes": 3}),
        (pv.CategoricalLikelihood, {"num_classes": 3, "one_hot": True}),
        (pv.AR1GaussianLikelihood, {}),
    ],
)
def test_what_is_trained_on_is_in_the_likelihoods_support(likelihood, settings):
    model, guide = make_pair(pv.DiagonalPosterior, n=6, d=2, likelihood=likelihood, seed=0, **settings)
    x, generator = model.sample(3), torch.Generator().manual_seed(0)
    made = Jittered(model.eval(), guide, x)(x.new_zeros(400, 6), generator)
    assert made.shape == (400, 6)
    assert made.dtype == x.dtype
    model.check_support("made", made)
    assert len(made.unique(dim=0)) > len(x)


def test_draws_lack_values_as_the_data_do():
    model, guide = make_pair(pv.DiagonalPosterior, n=4, d=2, seed=0, missing=True)
    x = model.sample(30)
    x[:10, :2] = torch.nan
    x[10:15, 3] = torch.nan
    patterns = {tuple(row) for row in x.isnan().tolist()}
    for transform in (Draws(model.eval(), ~x.isnan()), Jittered(model, guide, x)):
        made = transform(x.new_zeros(3000, 4), torch.Generator().manual_seed(0)).isnan()
        assert {tuple(row) for row in made.tolist()} == patterns
        # five standard deviations of a share of a third and of a sixth
        assert made[:, 0].double().mean().item() == pytest.approx(1 / 3, abs=5 * 0.0086)
        assert made[:, 3].double().mean().item() == pytest.approx(1 / 6, abs=5 * 0.0068)
    found = pv.refit_encoder(model, guide, x[:20], validation=x[20:], num_draws=50, epochs=1, progress=False)
    assert found.elbo[EncoderStage.JITTERED].per_datum.isfinite().all()


def test_jittered_data_are_a_function_of_the_generator(vae):
    model, guide = vae.to_model().eval(), vae.to_guide()
    transform, state = Jittered(model, guide, vae.sample(30)), torch.get_rng_state()
    first, again, other = (transform(torch.zeros(8, 5), torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_draws_have_the_models_moments(vae):
    """Means and variances of 20,000 draws against the exact ones, within five standard errors."""
    x = Draws(vae.to_model().eval(), torch.ones(1, 5, dtype=torch.bool))(
        torch.zeros(20_000, 5).double(), torch.Generator().manual_seed(3)
    )
    variance = vae.marginal.covariance_matrix.diagonal()
    assert ((x.mean(0) - vae.offset).abs() < 5 * (variance / len(x)).sqrt()).all()
    assert ((x.var(0) / variance - 1).abs() < 5 * (2 / len(x)) ** 0.5).all()
