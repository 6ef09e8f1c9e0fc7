"""Programs whose terms are no terms of single data, or no densities of the draws' coordinates."""

import math
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import pyrovae as pv
from pyrovae.elbo import ESTIMATORS
from pyrovae.evaluation._density import density_of
from pyrovae.evaluation.posterior_draws import posterior_draws
from tests.pairs import MIXING, pair_of

X = torch.tensor([[0.3], [1.2]])


def half(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(0.5 * x, 0.7).to_event(1))


OFFSETS = torch.arange(3000.0) / 100


def by_place(x):
    """A table of all data, by the plate's index: a datum's terms change with its row."""
    with pyro.plate("data", len(x)) as i:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z + OFFSETS[i], 1.0), obs=x)


def near(center):
    def guide(x):
        with pyro.plate("data", len(x)) as i:
            pyro.sample("z", dist.Normal(0.5 * (x - center[i]), 0.75))

    return guide


@pytest.mark.parametrize("method", ["auto", "importance", "quadrature", "annealed"])
def test_programs_that_take_only_all_of_the_data(method):
    """By a table of all data, beyond a chunk of any method: −½ log 4π − d²/4 each."""
    num = 100 if method == "annealed" else len(OFFSETS)
    torch.manual_seed(0)
    x = OFFSETS[:num] + 2**0.5 * torch.randn(num)
    right = dist.Normal(OFFSETS[:num], 2**0.5).log_prob(x).double()
    how = {"num_samples": 100} if method in ("auto", "importance") else {"num_temperatures": 40}
    found = pv.log_marginal(by_place, near(OFFSETS), x, method, **(how if method != "quadrature" else {}))
    assert found.mean == pytest.approx(right.mean().item(), abs=0.05)


def test_a_bad_guide_of_such_a_program_is_not_refined_in_the_wrong_rows():
    x = torch.tensor([0.1, 50.2, 101.0])
    offsets = torch.tensor([0.0, 50.0, 100.0])

    def model(x):
        with pyro.plate("data", len(x)) as i:
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z + offsets[i], 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(len(x)), 0.3))

    right = dist.Normal(offsets, 2**0.5).log_prob(x).double()
    with pytest.warns(pv.evaluation.UnreliableEstimateWarning):
        found = pv.log_marginal(model, guide, x, num_samples=3000)
    torch.testing.assert_close(found.per_datum, right, rtol=0, atol=0.5)


def test_what_needs_some_of_the_data_refuses_such_programs():
    x, guide = OFFSETS[:50] + 1.0, near(OFFSETS)
    for run in (pv.refine, partial(pv.inference_gaps, families={"diagonal": pv.DiagonalPosterior})):
        with pytest.raises(pv.InputError, match=r"^the terms of a datum change with its place or with the other data"):
            run(by_place, guide, x)
    terms = pv.elbo_terms(by_place, guide, x, chunk_size=20)
    assert terms.elbo.mean() == pytest.approx(pv.elbo_estimate(by_place, guide, x).mean, abs=0.2)

    def model(x):
        with pyro.plate("data", len(x)) as i:
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z + OFFSETS[i].unsqueeze(-1), 1.0).to_event(1), obs=x)

    how = {"posteriors": ["diagonal"], "estimators": ["analytic"], "epochs": 1, "progress": False}
    with pytest.raises(pv.InputError, match=r"^site 'x' of the model changes with the place of a datum"):
        pv.compare(x.unsqueeze(-1), model=model, latent_dims=(1,), **how)


def test_a_plate_of_channels_is_not_taken_for_the_data_s():
    def model(x):
        with pyro.plate("channels", x.shape[1]):
            z = pyro.sample("z", dist.Normal(torch.zeros(x.shape[1], len(x)), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x.T)

    def guide(x):
        with pyro.plate("channels", x.shape[1]):
            pyro.sample("z", dist.Normal(0.5 * x.T, 0.75).to_event(1))

    x = torch.tensor([[0.0, 3.0], [1.0, -2.0]])
    runs = [partial(pv.log_marginal, method=m) for m in ("auto", "importance", "quadrature", "annealed")]
    for run in (*runs, pv.elbo_terms, pv.elbo_estimate):
        with pytest.raises(pv.InputError, match=r"^plate 'channels' has 2 elements for 3 data as for 2, "):
            run(model, guide, x)


@pytest.mark.parametrize("elbo_class", ESTIMATORS.values())
def test_a_draw_that_the_model_changes_in_place_is_refused(elbo_class):
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            z += 1.0
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    message = r"^the model changes the draw of site 'z' in place, .* z = z \+ 1, not z \+= 1$"
    with pytest.raises(pv.InputError, match=message):
        elbo_class(2).loss(model, half, X)
    if elbo_class is pv.MonteCarloELBO:
        for run in (pv.elbo_terms, pv.elbo_estimate, pv.log_marginal):
            with pytest.raises(pv.InputError, match=message):
                run(model, half, X)


def test_a_density_is_nothing_outside_of_its_support():
    """An exponential's formula is finite below 0, where a wide guide's coordinates go. Right by a sum over a grid."""
    x = torch.tensor([0.3, 1.5])

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Exponential(torch.ones(len(x))))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.TransformedDistribution(dist.Normal(x * 0.3, 1.0), []))

    z = (torch.arange(400000) + 0.5).double() / 40000
    terms = dist.Normal(z.unsqueeze(-1), 1.0).log_prob(x) - z.unsqueeze(-1)
    right = terms.logsumexp(0) - math.log(40000)
    with pyro.validation_enabled(False):
        density = density_of(model, guide, x, slice(0, 2), 1000)
        grid = torch.linspace(-10, 10, 4001).double().reshape(-1, 1, 1).expand(-1, 2, 1)
        joint = density.log_joint(grid)
    assert (joint[grid[..., 0] < 0] == -torch.inf).all()
    torch.testing.assert_close(joint.logsumexp(0) + math.log(20 / 4000), right, rtol=0, atol=0.01)


def test_coordinates_that_a_draw_does_not_have_are_refused():
    def angles(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.VonMises(torch.zeros(len(x)), 2.0))
            pyro.sample("x", dist.Normal(z.sin(), 0.3), obs=x)

    def wide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 3.0))

    def nested(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Uniform(torch.zeros(len(x)), 1.0))
            b = pyro.sample("b", dist.Uniform(torch.zeros(len(x)), a))
            pyro.sample("x", dist.Normal(b, 0.1), obs=x)

    def nested_guide(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Beta(torch.full((len(x),), 2.0), 2.0))
            pyro.sample("b", dist.Uniform(torch.zeros(len(x)), a))

    def matrix(x):
        with pyro.plate("data", len(x)):
            factor = pyro.sample("L", dist.LKJCholesky(2, 2.0))
            pyro.sample("x", dist.MultivariateNormal(torch.zeros(2), scale_tril=factor), obs=x)

    def matrix_guide(x):
        with pyro.plate("data", len(x)):
            base = dist.Normal(torch.zeros(len(x), 1), 0.5).to_event(1)
            pyro.sample("L", dist.TransformedDistribution(base, [dist.transforms.CorrCholeskyTransform()]))

    x = torch.tensor([0.5, 0.8])
    for method in ("importance", "quadrature", "annealed", "auto"):
        with pytest.raises(pv.InputError, match=r"^site 'z' is an angle, a VonMises"):
            pv.log_marginal(angles, wide, x, method)
    for method in ("quadrature", "annealed"):
        with pytest.raises(pv.InputError, match=r"^the support of site 'b' .* depends on another draw"):
            pv.log_marginal(nested, nested_guide, x, method)
        with pytest.raises(pv.InputError, match=r"^site 'L' .* has no unconstrained coordinates"):
            pv.log_marginal(matrix, matrix_guide, torch.randn(3, 2), method)


def test_nan_that_is_only_masked_is_refused_for_its_gradient():
    x = torch.tensor([[0.3, math.nan], [1.2, 0.4]])

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 0.2, validate_args=False).mask(~x.isnan()).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 0.5).to_event(1))

    model.missing = True
    for given in (model, partial(model)):
        for run in (pv.log_marginal, pv.elbo_terms, partial(pv.fit, elbo=pv.MonteCarloELBO(), epochs=1)):
            with pytest.raises(pv.InputError, match=r"^site 'x' of the model observes NaN, .* observe x\.nan_to_num"):
                run(given, guide, **{"data" if isinstance(run, partial) else "x": x})


def test_tensors_of_other_scales_are_refused_in_evaluation_too():
    def scaled(scale, body):
        def program(x):
            with pyro.plate("data", len(x)):
                body(x, scale)

        return program

    def of_model(x, scale):
        with pyro.poutine.scale(scale=scale):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def of_guide(x, scale):
        with pyro.poutine.scale(scale=scale):
            pyro.sample("z", dist.Normal(0.5 * x, 0.7).to_event(1))

    pair = scaled(torch.tensor(0.2), of_model), scaled(torch.tensor(2.0), of_guide)
    with pytest.raises(pv.InputError, match=r"^site 'z' has another scale in the guide than in the model"):
        pv.elbo_terms(*pair, X)


ROWS = torch.tensor([[0.3, 1.2, -0.4], [1.0, -0.5, 0.2], [-1.5, 0.1, 0.7], [0.4, 0.4, -0.9], [2.0, -1.0, 0.6]])
ONE = ROWS[:, :1].clone()


def by_subsample(order):
    def rows(x):
        index = torch.tensor(order) if isinstance(order, list) else order(len(x))
        return pyro.plate("data", len(x), subsample=index), x[index]

    return rows


PER_DATUM = (
    pv.elbo_terms,
    pv.elbo_estimate,
    pv.log_marginal,
    pv.refine,
    posterior_draws,
    *(partial(pv.log_marginal, method=method) for method in ("importance", "quadrature", "annealed")),
)


@pytest.mark.parametrize(
    "rows",
    [
        by_subsample([3, 0, 4, 1, 2]),
        by_subsample([1, 0, 2, 3, 4]),
        by_subsample(lambda num: torch.arange(num).flip(0)),
        lambda x: (pyro.plate("data", len(x)), x.flip(0)),
        lambda x: (pyro.plate("data", len(x)), x.roll(1, 0)),
        lambda x: (pyro.plate("data", len(x)), x.sort(0).values),
    ],
)
def test_data_in_another_order_have_a_sum_but_no_values_per_datum(rows):
    pair = pair_of(rows)
    for evaluate in PER_DATUM:
        with pytest.raises(pv.InputError, match=r"^the model's terms of datum \d do not change with row \d of x"):
            evaluate(*pair, ONE)
    sums = [-pv.AnalyticELBO(2000, vectorize_particles=True).loss(*p, ONE) for p in (pair, pair_of())]
    assert sums[0] == pytest.approx(sums[1], abs=0.2)


def test_rows_in_their_own_order_by_subsample_are_evaluated():
    pair = pair_of(by_subsample(torch.arange))
    right = dist.Normal(0.0, 2**0.5).log_prob(ONE).squeeze(-1).double()
    torch.testing.assert_close(pv.log_marginal(*pair, ONE).per_datum, right, rtol=0, atol=0.05)


@pytest.mark.parametrize(("inner", "outer"), [("cols", "rows"), ("data", "rows"), ("cols", "data")])
def test_a_plate_inside_of_a_loop_over_the_data_is_not_the_data_s(inner, outer):
    x = torch.arange(16.0).reshape(4, 4) / 8

    def program(body):
        def run(x):
            plate, loop = pyro.plate(inner, x.shape[1]), pyro.plate(outer, len(x))
            for i in loop:
                with plate:
                    body(i, x[i])

        return run

    def of_model(i, row):
        z = pyro.sample(f"z{i}", dist.Normal(0.0, 1.0))
        pyro.sample(f"x{i}", dist.Normal(z, 1.0), obs=row)

    pair = program(of_model), program(lambda i, row: pyro.sample(f"z{i}", dist.Normal(0.5 * row, 0.8)))
    for evaluate in PER_DATUM[:4]:
        with pytest.raises(pv.InputError, match=rf"^plate '{inner}' has 4 elements for 6 data .*, not into a loop$"):
            evaluate(*pair, x)


def test_a_loop_over_time_around_the_data_s_plate_is_evaluated():
    x = torch.arange(16.0).reshape(4, 4) / 8

    def program(body):
        def run(x):
            plate = pyro.plate("data", len(x))
            for t in pyro.plate("time", x.shape[1]):
                with plate:
                    body(t, x[:, t])

        return run

    def of_model(t, column):
        z = pyro.sample(f"z{t}", dist.Normal(0.0, 1.0))
        pyro.sample(f"x{t}", dist.Normal(z, 1.0), obs=column)

    pair = program(of_model), program(lambda t, column: pyro.sample(f"z{t}", dist.Normal(0.5 * column, 0.8)))
    right = dist.Normal(0.0, 2**0.5).log_prob(x).sum(-1).double()
    torch.testing.assert_close(pv.log_marginal(*pair, x).per_datum, right, rtol=0, atol=0.1)


def standardised(x):
    return (x - x.mean(0)) / x.std(0)


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        *((pair_of(latent=latent), "with the latents of other data") for latent in MIXING),
        (pair_of(lambda x: (pyro.plate("data", len(x)), standardised(x))), "with other rows of x"),
        ((pair_of()[0], lambda x: pair_of()[1](standardised(x))), "with other rows of x"),
        ((pair_of(latent=lambda z: nn.functional.dropout(z, 0.5))[0], pair_of()[1]), "at the same latents"),
        ((pair_of()[0], lambda x: pair_of()[1](x + torch.randn_like(x))), "at the same latents"),
    ],
)
def test_what_is_not_of_single_data_has_no_elbo_per_datum(pair, message):
    for evaluate in (pv.elbo_terms, pv.elbo_estimate):
        with pytest.raises(pv.InputError, match=rf"^the terms of a datum change {message}"):
            evaluate(*pair, ROWS[:, :2])


def test_a_statistic_of_the_batch_is_no_fault_of_a_guide_alone():
    """Log p(x) is the model's: with z ~ N(0, 1) and x ~ N(z, 1), N(0, 2)'s."""
    pair, x = (pair_of()[0], lambda x: pair_of()[1](standardised(x))), ROWS[:, :2]
    right = dist.Normal(0.0, 2**0.5).log_prob(x).sum(-1).double()
    torch.testing.assert_close(pv.log_marginal(*pair, x).per_datum, right, rtol=0, atol=0.1)
    model = pair_of(lambda x: (pyro.plate("data", len(x)), standardised(x)))[0]
    for method in ("auto", "importance", "quadrature", "annealed"):
        with pytest.raises(pv.InputError, match=r"^the terms of a datum change with other rows of x"):
            pv.log_marginal(model, pair[1], x, method)


@pytest.mark.parametrize("run", PER_DATUM[:4])
def test_plates_that_are_swapped_are_refused_for_as_many_data_as_columns(run):
    """The data lie along the innermost plate, and x (num, num) along the outer one."""

    def plates(x):
        return pyro.plate("columns", x.shape[1], dim=-2), pyro.plate("data", len(x), dim=-1)

    def model(x):
        columns, rows = plates(x)
        with columns, rows:
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        columns, rows = plates(x)
        with columns, rows:
            pyro.sample("z", dist.Normal(0.5 * x, 0.8))

    with pytest.raises(pv.InputError, match=r"^the terms of a datum change with other rows of x"):
        run(model, guide, torch.randn(4, 4))


@pytest.mark.parametrize("latent", [*MIXING, lambda z: z.cumsum(-2)])
def test_data_whose_latents_are_mixed_have_no_log_p(latent):
    class Mixing(nn.Module):
        def forward(self, z):
            return latent(z)

    torch.manual_seed(0)
    library = pv.GenerativeModel(Mixing(), pv.GaussianLikelihood(2, 3), 2)
    amortized = pv.AmortizedGuide(nn.Identity(), pv.DiagonalPosterior(3, 2))
    for pair, x in ((pair_of(latent=latent), ROWS[:, :2]), ((library, amortized), ROWS)):
        for method in ("auto", "importance", "quadrature", "annealed"):
            with pytest.raises(pv.InputError, match="the terms of a datum change with the latents of other data"):
                pv.log_marginal(*pair, x, method)
    with pytest.raises(pv.InputError, match="the terms of a datum change"):
        pv.refine(library, amortized, ROWS)
