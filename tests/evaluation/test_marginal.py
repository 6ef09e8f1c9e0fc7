"""Log p(x) by every method: options, chunks, refusals."""

import dataclasses
import inspect
import math
import typing

import pytest
import torch

import pyrovae as pv
from pyrovae.evaluation import Annealing, Automatic, Importance, Quadrature
from pyrovae.evaluation._method import Problem
from pyrovae.evaluation.annealing import AnnealingKeywords
from pyrovae.evaluation.marginal import MethodKeywords
from pyrovae.programs import evaluating
from tests.pairs import make_pair


def test_log_marginal_of_a_nearly_singular_posterior():
    """In float32 the density of such a q at its draws is wrong by any amount: log p(x) was 1e38."""
    model, guide = make_pair(pv.FullCovariancePosterior, d=6)
    model, guide = model.float(), guide.float()
    with torch.no_grad():
        guide.posterior_head.covariance_head.bias[:6] = -30.0
        guide.posterior_head.covariance_head.bias[6:] = 1.0
    x = torch.randn(10, 3)
    found = pv.log_marginal(model, guide, x, Importance(50))
    bound = pv.log_marginal(model, pv.AmortizedGuide(*_prior_guide()), x, Importance(50_000))
    assert (found.per_datum < bound.per_datum + 0.1).all()
    assert next(model.parameters()).dtype == torch.float32


def _prior_guide(n=3, d=6):
    head = pv.DiagonalPosterior(n, d)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.zero_()
        head.covariance_head.bias.fill_(math.log(math.expm1(1.0)))
    return torch.nn.Identity(), head


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_samples": 0}, "num_samples must be a positive integer, not 0"),
        ({"method": "exactly"}, "unknown method 'exactly'"),
        ({"method": "quadratur"}, "did you mean 'quadrature'"),
        ({"method": None}, "unknown method None; choose one of auto, importance, quadrature, annealed"),
        ({"num_sample": 3}, "has no setting 'num_sample' .did you mean 'num_samples'"),
        (
            {"num_points": 3},
            "num_points is not an option of method='auto', whose options are num_samples, num_temperatures",
        ),
        (
            {"method": "annealed", "num_points": 3},
            "num_points is not an option of method='annealed', whose options are num",
        ),
        ({"method": Importance(5), "num_samples": 3}, r"num_samples is an option of the method: give it to Importance"),
        ({"x": torch.zeros(0, 3).double()}, "x is empty"),
        ({"x": torch.zeros(4, 2).double()}, r"cannot run on data of shape \(4, 2\)"),
    ],
)
def test_log_marginal_of_bad_input(linear, arguments, message):
    with pytest.raises(ValueError, match=message):
        pv.log_marginal(**{"model": linear.to_model(), "guide": linear.to_guide(), "x": linear.sample(4)} | arguments)


METHODS = [Annealing(4, num_temperatures=5), Importance(4), Quadrature(8, "guide"), Automatic(4)]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_data_in_chunks_keep_their_guides_and_latents(vae, method):
    """With each datum's exact posterior as its guide every method is exact, unless a row gets another row's guide."""
    model = vae.to_model()
    z, x = model.simulate(23)
    q = pv.evaluation.PerDatumGuide(pv.FullCovariancePosterior, vae.posterior(x).mean)
    factor = vae.to_guide().posterior_head.covariance_head.bias.detach()
    with torch.no_grad():
        q.head.covariance_head.bias.copy_(factor.expand(23, -1))

    def in_chunks(method, guide, latents=None):
        with torch.no_grad(), evaluating(model, guide, x, seed=0):
            return method.estimate(Problem(model, guide, x, latents, max_rows=20)).per_datum

    torch.testing.assert_close(in_chunks(method, q), vae.log_prob(x))
    if method.takes_latents:
        guide, short = vae.to_guide("diagonal"), Annealing(4, num_temperatures=2)
        matching, shifted = (in_chunks(short, guide, latents) for latents in (z, z.roll(1, 0)))
        off = [(found - vae.log_prob(x)).abs().median() for found in (matching, shifted)]
        assert off[0] < 1.5 < 3 < off[1]
    with pytest.raises(ValueError, match="belongs to 23 data, not to 20"):
        pv.log_marginal(model, q, x[3:], method)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_a_method_by_name_with_options_and_as_an_object(vae, method):
    x = vae.sample(3)
    options = dataclasses.asdict(method)
    by_name = pv.log_marginal(vae.to_model(), vae.to_guide("diagonal"), x, method.name, **options)
    as_object = pv.log_marginal(vae.to_model(), vae.to_guide("diagonal"), x, method)
    assert (by_name.per_datum == as_object.per_datum).all()


def test_the_keywords_are_the_fields_of_the_methods():
    """And help lists them; None stands for the default of the method named."""
    fields = {field.name: field.type for method in METHODS for field in dataclasses.fields(method)}
    assert typing.get_type_hints(MethodKeywords) == fields
    annealing = {field.name: field.type for field in dataclasses.fields(Annealing)}
    assert typing.get_type_hints(AnnealingKeywords) == annealing
    assert inspect.signature(pv.log_marginal).parameters.keys() >= fields.keys()
    assert inspect.signature(pv.log_marginal).parameters["num_samples"].default is None
    assert inspect.signature(pv.sandwich).parameters.keys() >= annealing.keys()


def test_a_grids_error_is_printed(linear):
    found = pv.log_marginal(linear.to_model(), linear.to_guide(), linear.sample(5), "quadrature", num_points=20)
    assert "(grid)" in str(found)


def test_none_is_an_options_default(vae):
    x = vae.sample(2)
    found = pv.log_marginal(vae.to_model(), vae.to_guide(), x, "importance", num_samples=None, center=None)
    assert found.num_samples == 1000
