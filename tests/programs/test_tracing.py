"""Programs under Pyro's handlers and with latents of many supports: at the exact guide every estimate is log p(x)."""

import functools
import math

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from pyro.infer.reparam import LocScaleReparam
from pyro.nn import PyroModule, PyroParam, PyroSample
from torch import nn

import pyrovae as pv
from pyrovae.elbo import ESTIMATORS
from pyrovae.programs import trace_pair
from tests.pairs import pair_of

X = torch.tensor([[0.3], [1.2], [-0.7]])
COUNTS = torch.tensor([[1.0], [4.0], [0.0]])


def unconditioned(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
        return pyro.sample("x", dist.Normal(z, 1.0).to_event(1))


def conditioned(x):
    return pyro.condition(unconditioned, data={"x": x})(x)


def exact(name="z"):
    """q(z|x) = p(z|x): every draw then gives log p(x) itself, in every estimate."""

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample(name, dist.Normal(0.5 * x, 0.5**0.5).to_event(1))

    return guide


class Exact(PyroModule):
    def __init__(self):
        super().__init__()
        self.slope = PyroParam(torch.tensor(0.5))
        self.scale = PyroParam(torch.tensor(0.5**0.5), constraint=dist.constraints.positive)

    def forward(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.slope * x, self.scale).to_event(1))


def chain(x):
    """z₁ ~ N(0, 1), z₂ ~ N(0.8 z₁, 1), each seen with unit noise; the guide by Bayes from the end."""
    with pyro.plate("data", len(x)):
        z = torch.zeros(len(x))
        for t in pyro.markov(range(2)):
            z = pyro.sample(f"z{t}", dist.Normal(0.8 * z, 1.0))
            pyro.sample(f"x{t}", dist.Normal(z, 1.0), obs=x[:, 0] * (1 - 0.5 * t))


def exact_of_chain(x):
    """p(z₁|x) and p(z₂|z₁, x₂)."""
    first, second = x[:, 0], 0.5 * x[:, 0]
    precision = 1 + 1 + 0.64 / 2  # prior, x₁, and x₂ given z₁ ~ N(0.8 z₁, 2)
    with pyro.plate("data", len(x)):
        z = pyro.sample("z0", dist.Normal((first + 0.8 * second / 2) / precision, precision**-0.5))
        pyro.sample("z1", dist.Normal((0.8 * z + second) / 2, 0.5**0.5))


def stacked(program):
    def run(x):
        with pyro.plate_stack("plates", (2, len(x))):
            program(x[:, 0].expand(2, -1))

    return run


def sample_and_see(x):
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def beta_binomial(x):
    with pyro.plate("data", len(x)):
        p = pyro.sample("p", dist.Beta(torch.full((len(x),), 2.0), 3.0))
        pyro.sample("x", dist.Binomial(5.0, p), obs=x[:, 0])


def exact_beta(x):
    with pyro.plate("data", len(x)):
        pyro.sample("p", dist.Beta(2.0 + x[:, 0], 8.0 - x[:, 0]))


def gamma_poisson(x):
    with pyro.plate("data", len(x)):
        rate = pyro.sample("rate", dist.Gamma(torch.full((len(x),), 2.0), 1.0))
        pyro.sample("x", dist.Poisson(rate), obs=x[:, 0])


def exact_gamma(x):
    with pyro.plate("data", len(x)):
        pyro.sample("rate", dist.Gamma(2.0 + x[:, 0], 2.0))


def dirichlet_multinomial(x):
    with pyro.plate("data", len(x)):
        p = pyro.sample("p", dist.Dirichlet(torch.ones(3)))
        pyro.sample("x", dist.Multinomial(4, p), obs=torch.cat([x, 4 - x, torch.zeros_like(x)], -1))


def exact_dirichlet(x):
    with pyro.plate("data", len(x)):
        pyro.sample("p", dist.Dirichlet(1 + torch.cat([x, 4 - x, torch.zeros_like(x)], -1)))


def of_chain():
    covariance = torch.tensor([[1.0, 0.8], [0.8, 1.64]]).double() + torch.eye(2).double()
    x = X.double() * torch.tensor([1.0, 0.5])
    return torch.distributions.MultivariateNormal(torch.zeros(2).double(), covariance).log_prob(x)


def beta(a, b):
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


OF_X = dist.Normal(0.0, math.sqrt(2.0)).log_prob(X).squeeze(-1).double()
K = COUNTS.flatten().tolist()
CASES = {
    "condition": (conditioned, exact(), X, OF_X),
    "reparam": (poutine.reparam(conditioned, config={"z": LocScaleReparam(0.0)}), exact("z_decentered"), X, OF_X),
    "PyroModule": (conditioned, Exact(), X, OF_X),
    "markov": (chain, exact_of_chain, X, of_chain()),
    "plate_stack": (
        stacked(sample_and_see), stacked(lambda x: pyro.sample("z", dist.Normal(0.5 * x, 0.5**0.5))), X, 2 * OF_X,
    ),
    "Beta": (
        beta_binomial, exact_beta, COUNTS,
        torch.tensor([math.log(math.comb(5, int(k))) + beta(2 + k, 8 - k) - beta(2, 3) for k in K]).double(),
    ),
    "Gamma": (
        gamma_poisson, exact_gamma, COUNTS,
        torch.tensor([math.log((k + 1) * 0.5 ** (2 + k)) for k in K]).double(),
    ),
    "Dirichlet": (dirichlet_multinomial, exact_dirichlet, COUNTS, torch.full((3,), -math.log(15.0)).double()),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_exact_guide_has_log_p_in_every_estimate(name):
    model, guide, x, right = CASES[name]
    with pyro.validation_enabled(True):
        for estimator in (pv.MonteCarloELBO(), pv.StickingTheLandingELBO(), pv.ImportanceWeightedELBO(3)):
            assert -estimator.loss(model, guide, x) == pytest.approx(right.sum().item(), abs=2e-5)
    found = pv.elbo_estimate(model, guide, x, num_samples=2).per_datum
    torch.testing.assert_close(found, right, rtol=0, atol=2e-5)
    found = pv.log_marginal(model, guide, x, "importance", num_samples=3).per_datum
    torch.testing.assert_close(found, right, rtol=0, atol=2e-5)
    found = pv.log_marginal(model, guide, x, "quadrature").per_datum
    torch.testing.assert_close(found, right, rtol=0, atol=1e-3)


def test_handlers_that_leave_no_bound_are_refused():
    for model, message in (
        (poutine.uncondition(conditioned), "'x' of the model is missing in the guide"),
        (pyro.do(unconditioned, data={"x": X}), "'x' of the model is missing in the guide"),
        (poutine.block(conditioned, hide=["z"]), r"the model's latent sites \[\] are not the guide's \['z'\]"),
    ):
        for run in (pv.elbo_terms, pv.log_marginal, lambda *pair: pv.audit(*pair[:2], pv.MonteCarloELBO(), pair[2])):
            with pytest.raises(pv.InputError, match=message):
                run(model, exact(), X)


def seeded(program):
    def runs(x):
        torch.manual_seed(3)
        return program(x)

    return runs


def observing(value):
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            value(dist.Normal(z, 1.0).to_event(1), x)

    return model


OTHERS = X.flip(0) + 1


@pytest.mark.parametrize(
    ("model", "guide", "message"),
    [
        (seeded(conditioned), exact(), "sets the random seed, so all of its draws are the same"),
        (conditioned, seeded(exact()), "sets the random seed, so all of its draws are the same"),
        (observing(lambda d, x: d.log_prob(x)), exact(), "the model observes no data"),
        (poutine.block(conditioned, hide=["x"]), exact(), "the model observes no data"),
        (observing(lambda d, _: pyro.sample("x", d, obs=OTHERS)), exact(), "site 'x' does not change with the data"),
        (observing(lambda d, _: pyro.factor("x", d.log_prob(OTHERS))), exact(), "site 'x' does not change with"),
        (poutine.condition(observing(lambda d, _: pyro.sample("x", d)), {"x": OTHERS}), exact(), "does not change"),
    ],
)
@pytest.mark.parametrize(
    "run",
    [
        pv.elbo_terms,
        pv.log_marginal,
        pv.refine,
        lambda *pair: pv.fit(*pair, pv.MonteCarloELBO(), epochs=1),
        lambda model, guide, x: pv.gradient_statistics(model, guide, pv.MonteCarloELBO(), x),
    ],
)
def test_programs_that_take_no_data_or_set_the_seed_are_refused(model, guide, message, run):
    with pytest.raises(pv.InputError, match=message) as error:
        run(model, guide, X)
    assert "\n" not in str(error.value)


def test_data_from_outside_are_taken_in_their_own_order_but_not_shuffled():
    model = observing(lambda d, _: pyro.sample("x", d, obs=X))
    found = pv.log_marginal(model, exact(), X, "importance").per_datum
    torch.testing.assert_close(found, pv.log_marginal(conditioned, exact(), X, "importance").per_datum)
    with pytest.raises(pv.InputError, match="site 'x' does not change with the data"):
        pv.fit(model, exact(), X, pv.MonteCarloELBO(), epochs=1, batch_size=len(X))


def test_weights_that_are_sampled_have_no_value_per_datum():
    """A Bayesian network's weights lie outside of the data's plate: the ELBO is right, what is per datum is refused."""

    class Shift(PyroModule):
        def __init__(self):
            super().__init__()
            self.shift = PyroSample(dist.Normal(0.0, 1.0))

        def forward(self, x):
            shift = self.shift
            with pyro.plate("data", len(x)):
                pyro.sample("x", dist.Normal(shift, 1.0), obs=x[:, 0])

    def guide(x):
        pyro.sample("shift", dist.Normal(x.sum() / 4, 0.5))

    covariance = torch.eye(3).double() + 1
    log_p = torch.distributions.MultivariateNormal(torch.zeros(3).double(), covariance).log_prob(X.double().flatten())
    for estimator in (pv.MonteCarloELBO(), pv.StickingTheLandingELBO()):
        assert -estimator.loss(Shift(), guide, X) == pytest.approx(log_p.item(), abs=1e-5)
    with pytest.raises(pv.InputError, match="site 'shift' is outside the data's plate"):
        pv.log_marginal(Shift(), guide, X)
    with pytest.raises(pv.NoClosedFormError, match=r"'shift' .* is outside the data plate"):
        pv.ImportanceWeightedELBO().loss(Shift(), guide, X)


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool])
def test_integers_become_the_programs_numbers(dtype):
    layer = nn.Linear(1, 1)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=z).to_event(1), obs=x)

    def guide(x):
        pyro.module("layer", layer)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(layer(x), 0.7).to_event(1))

    x = torch.tensor([[1], [0]])
    found = [pv.elbo_terms(model, guide, data).elbo for data in (x.to(dtype), x.float())]
    torch.testing.assert_close(*found, rtol=0, atol=0)


@pytest.mark.parametrize("mix", [lambda z: z[:1], lambda z: z.mean(0, keepdim=True), lambda z: z.roll(1, 0)])
def test_a_datum_whose_terms_depend_on_other_data_has_no_log_p(mix):
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(mix(z), 1.0).to_event(1), obs=x)

    for method in ("importance", "quadrature", "annealed"):
        with pytest.raises(pv.InputError, match="the terms of a datum change with the latents of other data"):
            pv.log_marginal(model, exact(), X, method)


@pytest.mark.parametrize("where", ["model", "guide"])
def test_random_numbers_outside_of_sample_sites_leave_no_log_p(where):
    def noisy(program):
        return lambda x: program(torch.nn.functional.dropout(x, 0.5))

    pair = (noisy(conditioned), exact()) if where == "model" else (conditioned, noisy(exact()))
    for method in ("importance", "quadrature", "annealed"):
        with pytest.raises(pv.InputError, match=r"random numbers outside of its sample sites, as F\.dropout"):
            pv.log_marginal(*pair, X, method)


@pytest.mark.parametrize("where", ["model", "guide", "both"])
def test_programs_without_gradients_are_not_trained_in_silence(where):
    class Without(nn.Module):
        def __init__(self, program, size):
            super().__init__()
            self.layer, self.program = nn.Linear(size, 1), program

        def forward(self, x):
            with torch.no_grad():
                return self.program(x + 0 * self.layer(x))

    class With(Without):
        def forward(self, x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(self.layer(x), 0.7).to_event(1))

    model = Without(conditioned, 1) if where != "guide" else conditioned
    guide = With(None, 1) if where == "model" else Without(exact(), 1)
    with pytest.raises(pv.InputError, match=r"no site depends on any of the (model|guide)'s parameters by a gradient"):
        pv.fit(model, guide, X, pv.MonteCarloELBO(), epochs=1)
    if where == "model":
        model.requires_grad_(False)
        pv.fit(model, guide, X, pv.MonteCarloELBO(), epochs=1)  # a frozen model is no fault


def test_a_plate_that_is_subsampled_on_one_side_is_refused():
    def model(x):
        with pyro.plate("data", 100, subsample=torch.arange(len(x))):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    for run in (pv.elbo_terms, pv.log_marginal, lambda *pair: pv.audit(*pair[:2], pv.MonteCarloELBO(), pair[2])):
        with pytest.raises(pv.InputError, match="stands for 100 data in the model and for 3 in the guide"):
            run(model, exact(), X)


def test_values_that_are_no_numbers_are_refused():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            likelihood = dist.Beta(z.exp(), 2.0, validate_args=False)
            pyro.sample("x", likelihood.to_event(1), obs=x.clamp_max(0.5))

    for run in (pv.elbo_terms, pv.elbo_estimate, pv.refine, lambda *pair: pv.log_marginal(*pair, "importance")):
        with pytest.raises(pv.InputError, match="is not a number at row 2; check the scales"):
            run(model, exact(), X)


def seen_by(likelihood):
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", likelihood(z), obs=x)

    return model


EVALUATIONS = (
    pv.elbo_terms,
    pv.elbo_estimate,
    pv.refine,
    *(functools.partial(pv.log_marginal, method=method) for method in ("importance", "quadrature", "annealed")),
    lambda model, guide, x: pv.audit(model, guide, pv.MonteCarloELBO(), x),
    lambda model, guide, x: pv.gradient_statistics(model, guide, pv.MonteCarloELBO(), x, 2),
    lambda model, guide, x: pv.inference_gaps(model, guide, x, [pv.DiagonalPosterior], max_steps=1),
)


@pytest.mark.parametrize(
    ("likelihood", "value"),
    [
        (lambda z: dist.Beta(z.exp(), 1.0).to_event(1), 1.2),
        (lambda z: dist.Exponential(z.exp()).to_event(1), -0.5),
        (lambda z: dist.Poisson(z.exp()).to_event(1), 2.5),
        (lambda z: dist.Bernoulli(logits=z).to_event(1), 0.5),
    ],
)
def test_data_outside_of_the_support_are_refused_though_they_score_finite(likelihood, value):
    for run in EVALUATIONS:
        with pytest.raises(pv.InputError, match=f"site 'x' has the value {value}, which is outside of the support"):
            run(seen_by(likelihood), Exact(), torch.tensor([[1.0], [value]]))


def test_a_guide_that_draws_outside_of_the_prior_is_refused():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Exponential(torch.ones(1)).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    for run in EVALUATIONS:
        with pytest.raises(pv.InputError, match="outside of the support of the model's Exponential; give the guide"):
            run(model, Exact(), torch.zeros(64, 1))


SEEN = torch.tensor([True, False])


@pytest.mark.parametrize(
    "model",
    [
        seen_by(lambda z: dist.Poisson(z.exp()).to_event(1).mask(SEEN)),
        seen_by(lambda z: dist.Poisson(z.exp()).mask(SEEN.unsqueeze(-1)).to_event(1)),
        poutine.mask(seen_by(lambda z: dist.Poisson(z.exp()).to_event(1)), SEEN),
    ],
)
def test_what_is_masked_may_lie_outside_of_the_support(model):
    x, same = torch.tensor([[3.0], [-1.0]]), torch.tensor([[3.0], [3.0]])
    found, right = (pv.elbo_terms(model, exact(), data).reconstruction for data in (x, same))
    torch.testing.assert_close(found[:1], right[:1], rtol=0, atol=0)
    assert found[1] == 0


def test_a_check_leaves_the_draws_as_they_were():
    draws = []
    for check in (False, True):
        torch.manual_seed(0)
        draws.append(trace_pair(conditioned, exact(), X, check=check).guide.nodes["z"]["value"])
    torch.testing.assert_close(*draws, rtol=0, atol=0)


def test_soft_data_are_taken_where_the_model_says_so():
    """log p(x|z) = x log σ(z) + (1 − x) log σ(−z), worked out at z = 0."""
    model = seen_by(lambda z: dist.Bernoulli(logits=0 * z, validate_args=False).to_event(1))
    x = torch.tensor([[0.25], [0.5]])
    right = torch.full((2,), -math.log(2)).double()
    torch.testing.assert_close(pv.elbo_terms(model, exact(), x).reconstruction, right, rtol=0, atol=1e-6)


@pytest.mark.parametrize("handler", [poutine.mask, poutine.scale])
def test_a_mask_or_a_scale_wider_than_its_plates_is_refused(handler):
    """(N, 1) around a site of (N,) would count each datum N times."""
    around = torch.tensor([[True], [False], [True]])
    around = around if handler is poutine.mask else 1.0 + around
    model, guide = handler(conditioned, around), handler(Exact(), around)
    for run in (*EVALUATIONS, lambda *pair: pv.fit(*pair, pv.MonteCarloELBO(), epochs=1, progress=False)):
        with pytest.raises(pv.InputError, match=r"invalid log_prob shape, \(3, 3\) with 9 terms"):
            run(model, guide, X)


def test_data_whose_sites_are_all_masked_have_log_p_0():
    mask = torch.tensor([True, False, True])
    pair = poutine.mask(conditioned, mask), poutine.mask(exact(), mask)
    for method, options in (
        ("importance", {}),
        ("quadrature", {"num_points": 40}),
        ("annealed", {"num_temperatures": 3}),
    ):
        found = pv.log_marginal(*pair, X, method, **options).per_datum
        torch.testing.assert_close(found, OF_X * mask, rtol=0, atol=1e-3)


def test_programs_that_take_something_else_than_the_data_are_refused():
    for model, message in (
        (lambda x, y: None, "the model cannot be called with the data alone: missing a required argument: 'y'"),
        (lambda: None, "the model cannot be called with the data alone: too many positional arguments"),
        (None, "the model must be a Pyro program, a function or a module, not NoneType"),
    ):
        for run in (pv.elbo_terms, pv.log_marginal):
            with pytest.raises(pv.InputError, match=message):
                run(model, exact(), X)


def test_gradients_are_taken_whatever_the_caller_s_mode():
    guide = Exact()
    with torch.no_grad():
        statistics = pv.gradient_statistics(conditioned, guide, pv.MonteCarloELBO(), X, 3)
        pv.fit(conditioned, guide, X.clone().requires_grad_(), pv.MonteCarloELBO(), epochs=1, progress=False)
    assert statistics.loss == pytest.approx(-OF_X.mean().item(), abs=1e-5)
    with torch.inference_mode(), pytest.raises(pv.InputError, match=r"inference_mode\(\) allows no gradients"):
        pv.gradient_statistics(conditioned, guide, pv.MonteCarloELBO(), X, 3)


ROWS = torch.tensor([[0.3, 1.2, -0.4], [1.0, -0.5, 0.2], [-1.5, 0.1, 0.7]])
CHANGES = {
    "clamp": lambda x: x.clamp_(-0.5, 0.5),
    "centre": lambda x: x.sub_(x.mean()),
    "item": lambda x: x.__setitem__(0, 0.0),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("where", ["model", "guide"])
def test_programs_that_change_the_data_in_place_are_refused_and_the_data_stay(change, where):
    x, (model, its_guide) = X.clone(), pair_of()

    def changing(program, is_it):
        def run(x):
            if is_it:
                CHANGES[change](x)
            program(x)

        return run

    pair = changing(model, where == "model"), changing(its_guide, where == "guide")
    fit = functools.partial(pv.fit, elbo=pv.MonteCarloELBO(), epochs=1, progress=False)
    runs = [lambda run=run: run(*pair, x) for run in EVALUATIONS]
    runs.append(lambda: fit(*pair, data=x))
    for run in runs:
        with pytest.raises(pv.InputError, match=r"^the model or the guide changes its data in place"):
            run()
        assert torch.equal(x, X)
    for elbo_class in ESTIMATORS.values():
        with pytest.raises(pv.InputError, match=r"^the model or the guide changes its data in place"):
            elbo_class(2).loss(*pair, X.clone())


def test_an_encoder_that_changes_the_data_in_place_is_refused():
    class InPlace(nn.Module):
        def forward(self, x):
            return x.clamp_(-0.5, 0.5)

    model = pv.GenerativeModel(nn.Identity(), pv.GaussianLikelihood(2, 3), 2).double()
    amortized = pv.AmortizedGuide(InPlace(), pv.DiagonalPosterior(3, 2)).double()
    x = ROWS.double()
    for run in (pv.log_marginal, pv.refine, pv.elbo_terms, pv.elbo_estimate):
        with pytest.raises(pv.InputError, match=r"^the model or the guide changes its data in place"):
            run(model, amortized, x)
        assert torch.equal(x, ROWS.double())
