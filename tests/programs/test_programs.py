"""The table of ``docs/programs.md``: features of programs × methods, each cell found by running it.

``python -m tests.programs.test_programs`` writes the page.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from torch import nn

import pyrovae as pv
from pyrovae.elbo import ESTIMATORS

PAGE = Path(__file__).parents[2] / "docs" / "programs.md"
X = torch.tensor([[0.3], [1.2]])
Q_SCALE = 0.7


@dataclass
class Feature:
    """Two programs, and what is right, summed over the data.

    Attributes:
        model: Pyro program of the joint density.
        guide: Pyro program of q(z|x).
        elbo: their ELBO; None: it is not a bound.
        log_p: log p(x) of ``X``; None: there is none.
        variance: that of one x under the model, a Gaussian around 0; None: it is none.
        is_of_guide: whether the feature is the guide's, so that it does not matter to guides of the library.
    """

    model: Callable
    guide: Callable
    elbo: float | None
    log_p: float | None
    variance: float | None = None
    is_of_guide: bool = False

    @property
    def mean_log_p(self):
        """The mean of log p(x) over data of the model, −½ log 2πe·variance each, as far above as ``log_p`` is."""
        if self.variance is None:
            return None
        p = dist.Normal(0.0, self.variance**0.5)
        return self.log_p - p.log_prob(X).sum().item() - len(X) * p.entropy().item()


def standard(x, mask=None):
    with pyro.plate("data", len(x)):
        prior = dist.Normal(torch.zeros(1), 1.0).to_event(1)
        z = pyro.sample("z", prior if mask is None else prior.mask(mask))
        pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)


def half(x, mask=None):
    with pyro.plate("data", len(x)):
        q = dist.Normal(0.5 * x, Q_SCALE).to_event(1)
        pyro.sample("z", q if mask is None else q.mask(mask))


def expected():
    """ELBO and log p(x) of ``standard`` and ``half``, and the reconstruction and log q's entropy."""
    x = X.double()
    reconstruction = (-0.5 * (math.log(2 * math.pi) + (0.5 * x).square() + Q_SCALE**2)).sum().item()
    kl = (0.5 * (Q_SCALE**2 + (0.5 * x).square() - 1) - math.log(Q_SCALE)).sum().item()
    return reconstruction - kl, dist.Normal(0.0, 2**0.5).log_prob(x).sum().item(), reconstruction


ELBO, LOG_P, RECONSTRUCTION = expected()


def another_order():
    """Σ of the ladder's terms by quadrature-free Gaussian algebra."""

    def model(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            b = pyro.sample("b", dist.Normal(a, 0.5).to_event(1))
            pyro.sample("x", dist.Normal(b, 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            b = pyro.sample("b", dist.Normal(0.5 * x, 0.7).to_event(1))
            pyro.sample("a", dist.Normal(0.8 * b, 0.4).to_event(1))

    x = X.double()
    mb, ma, va = 0.5 * x, 0.4 * x, 0.64 * 0.49 + 0.16
    c = math.log(2 * math.pi)
    elbo = -0.5 * (c + 0.49 + (x - mb) ** 2) - 0.5 * (c + va + ma**2)
    elbo = elbo - 0.5 * (c + 2 * math.log(0.5) + (0.04 * 0.49 + 0.16 + (mb - ma) ** 2) / 0.25)
    elbo = elbo + c + 1 + math.log(0.7) + math.log(0.4)
    return Feature(model, guide, elbo.sum().item(), dist.Normal(0.0, 2.25**0.5).log_prob(x).sum().item(), 2.25)


def nested_plate():
    def program(body):
        def run(x):
            with pyro.plate("data", len(x), dim=-1), pyro.plate("k", len(X), dim=-2):
                body(x[:, 0].expand(len(X), -1))

        return run

    def model(x):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    guide = program(lambda x: pyro.sample("z", dist.Normal(0.5 * x, Q_SCALE)))
    return Feature(program(model), guide, len(X) * ELBO, len(X) * LOG_P)


def subsampled():
    def model(x):
        with pyro.plate("data", 100, subsample=torch.arange(len(x))):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", 100, subsample=torch.arange(len(x))):
            pyro.sample("z", dist.Normal(0.5 * x, Q_SCALE).to_event(1))

    return Feature(model, guide, ELBO, LOG_P, 2.0)


def masked_prior():
    mask = torch.tensor([True, False])
    entropy = 0.5 * (math.log(2 * math.pi) + 1) + math.log(Q_SCALE)
    x = X.double()
    kl = 0.5 * (Q_SCALE**2 + (0.5 * x[0]).square().item() - 1) - math.log(Q_SCALE)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1).mask(mask[: len(x)]))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    return Feature(model, half, RECONSTRUCTION - kl + entropy, None)


def guide_factor():
    def with_factor(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.5 * x, Q_SCALE).to_event(1))
            pyro.factor("f", torch.full((len(x),), 1.5), has_rsample=True)

    return Feature(standard, with_factor, ELBO - 3.0, LOG_P - 3.0, 2.0, is_of_guide=True)


def wide():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[:, 0])

    return Feature(model, half, None, None)


def missing_latent():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            k = pyro.sample("k", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z + k, 1.0).to_event(1), obs=x)

    return Feature(model, half, None, None)


def discrete():
    def model(x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Bernoulli(0.3))
            pyro.sample("x", dist.Normal(k, 1.0), obs=x[:, 0])

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("k", dist.Bernoulli(torch.full((len(x),), 0.4)))

    x = X[:, 0].double()
    log_0, log_1 = (dist.Normal(k, 1.0).log_prob(x) + math.log(p) for k, p in ((0.0, 0.7), (1.0, 0.3)))
    entropy = -(0.4 * math.log(0.4) + 0.6 * math.log(0.6))
    elbo = 0.4 * log_1 + 0.6 * log_0 + entropy
    return Feature(model, guide, elbo.sum().item(), torch.logaddexp(log_0, log_1).sum().item())


def outside():
    def model(x):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(w, 1.0), obs=x[:, 0])

    def guide(x):
        pyro.sample("w", dist.Normal(0.5, Q_SCALE))

    x = X[:, 0].double()
    elbo = (-0.5 * (math.log(2 * math.pi) + (x - 0.5) ** 2 + Q_SCALE**2)).sum().item()
    elbo -= 0.5 * (Q_SCALE**2 + 0.25 - 1) - math.log(Q_SCALE)
    return Feature(model, guide, elbo, None)


FEATURES = {
    "one latent site, functions": lambda: Feature(standard, half, ELBO, LOG_P, 2.0),
    "two sites, drawn in another order by the guide": another_order,
    "another plate of the data's size": nested_plate,
    "a subsampled plate (in nats per datum)": subsampled,
    "`.mask(False)` on both sides": lambda: Feature(
        lambda x: standard(x, False), lambda x: half(x, False), RECONSTRUCTION, None
    ),
    "a mask on the model's side only": masked_prior,
    "`pyro.factor` in the guide": guide_factor,
    "a log-density wider than its plates": wide,
    "a latent site that the guide lacks": missing_latent,
    "a discrete latent": discrete,
    "a latent outside the data's plate": outside,
}


def loss_of(elbo_class):
    def run(feature):
        if issubclass(elbo_class, pv.ImportanceWeightedELBO):
            losses = [elbo_class(1).loss(feature.model, feature.guide, X) for _ in range(200)]
        else:
            elbo = elbo_class(200)
            losses = [elbo.loss(feature.model, feature.guide, X)]
        return -sum(losses) / len(losses)

    return run


def audit_of(feature):
    return -pv.audit(feature.model, feature.guide, pv.MonteCarloELBO(100), X).loss * len(X)


def log_p_by(method, **options):
    def run(feature):
        return pv.log_marginal(feature.model, feature.guide, X, method, **options).per_datum.sum().item()

    return run


def trainable(program):
    """The program, with a parameter that moves its data; at 0 it is the same."""
    return lambda x: program(x + pyro.param("shift", torch.zeros(())))


def statistics_of(feature):
    pair = trainable(feature.model), trainable(feature.guide)
    return -pv.gradient_statistics(*pair, pv.MonteCarloELBO(10), X, 20).loss * len(X)


def fit_of(feature):
    pair = trainable(feature.model), trainable(feature.guide)
    history = pv.fit(*pair, X, pv.MonteCarloELBO(20), epochs=10, learning_rate=1e-9, progress=False)
    return -sum(history.batch_loss) / len(history.batch_loss) * len(X)


def gaps_of(feature):
    families = {"full-covariance": pv.FullCovariancePosterior}
    found = pv.inference_gaps(feature.model, feature.guide, X, families, max_steps=50, num_samples=300)
    return found.log_p.per_datum.sum().item()


def sandwich_of(feature):
    """The mean of both bounds, less what the data drawn happen to differ from their mean."""
    found = pv.sandwich(feature.model, feature.guide, 100, like=X, num_temperatures=30)
    p = dist.Normal(0.0, feature.variance**0.5)
    luck = p.log_prob(found.x).mean().item() + p.entropy().item()
    return len(X) * (0.5 * (found.lower.mean + found.upper.mean) - luck)


def compare_of(feature):
    settings = {"posteriors": ["full-covariance"], "estimators": ["analytic"], "hidden": (4,), "latent_dims": (1,)}
    table = pv.compare(X.repeat(10, 1), test=X, model=feature.model, epochs=1, progress=False, **settings)
    if table["status"][0] == "failed":
        raise pv.InputError(table["note"][0])
    return table["test_log_marginal"][0] * len(X)


METHODS = {name: (loss_of(cls), "elbo") for name, cls in ESTIMATORS.items()} | {
    "`audit`": (audit_of, "elbo"),
    "`elbo_terms`": (lambda f: pv.elbo_terms(f.model, f.guide, X, num_samples=400).elbo.sum().item(), "elbo"),
    "`elbo_estimate`": (
        lambda f: pv.elbo_estimate(f.model, f.guide, X, num_samples=1000).per_datum.sum().item(),
        "elbo",
    ),
    "importance": (log_p_by("importance", num_samples=2000), "log_p"),
    "quadrature": (log_p_by("quadrature"), "log_p"),
    "annealed": (log_p_by("annealed", num_temperatures=40), "log_p"),
    "auto": (log_p_by("auto", num_samples=300), "log_p"),
    "`gradient_statistics`": (statistics_of, "elbo"),
    "`fit`": (fit_of, "elbo"),
    "`inference_gaps`": (gaps_of, "log_p"),
    "`sandwich`": (sandwich_of, "mean_log_p"),
    "`compare(model=)`": (compare_of, "log_p"),
}
TOLERANCE = 0.35
"""Nats over both data: the noise of 200 draws is below a sixth of it, and every mistake met was above 1 nat."""


def cell(feature, run, quantity, scale):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pyro.set_rng_seed(0)
        pyro.clear_param_store()
        if run is compare_of and feature.is_of_guide:
            return "–"
        try:
            found = run(feature)
        except pv.InputError as error:
            return "refused" if "\n" not in str(error) else f"WRONG: refused in several lines: {error}"
    right = getattr(feature, quantity)
    if right is None:
        return f"WRONG: {found:.3f}, though it is not defined"
    return "right" if abs(found / scale - right) < TOLERANCE else f"WRONG: {found / scale:.3f}, right {right:.3f}"


def table():
    """The page."""
    lines = [
        "# What is evaluated, and what is refused",
        "",
        "Each cell was found by running the method on a small program of that kind and comparing the number with one "
        "worked out by hand: *right*, *refused* with an error of one line, or – where the feature cannot matter: "
        "`compare(model=)` trains guides of its own. The six columns after the first are the estimators' losses, the "
        "names without a bracket methods of `log_marginal`. `python -m tests.programs.test_programs` "
        "writes this page, and a test compares it with what running gives.",
        "",
        "| program | " + " | ".join(METHODS) + " |",
        "|---" * (len(METHODS) + 1) + "|",
    ]
    for name, make in FEATURES.items():
        cells = []
        for method, (run, quantity) in METHODS.items():
            is_sum = method in ESTIMATORS and "subsampled" in name  # Pyro's loss is that of all 100 data
            cells.append(cell(make(), run, quantity, 100 / len(X) if is_sum else 1.0))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


@pytest.mark.slow
def test_the_page_is_what_running_gives():
    found = table()
    assert "WRONG" not in found, found
    assert PAGE.read_text(encoding="utf-8") == found


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(table(), encoding="utf-8")
    print(PAGE.read_text(encoding="utf-8"))


PER_DATUM = (pv.elbo_terms, pv.log_marginal, pv.refine)


def fit(model, guide, x, elbo=None, **how):
    return pv.fit(model, guide, x, elbo or pv.MonteCarloELBO(), epochs=1, progress=False, **how)


def test_a_flow_without_an_inverse_is_scored_at_its_own_draws_alone():
    torch.manual_seed(0)
    flow = dist.transforms.Planar(1)

    def guide(x):
        pyro.module("flow", flow)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.TransformedDistribution(dist.Normal(0.5 * x, 0.7).to_event(1), [flow]))

    right = -Trace_ELBO(num_particles=2000, vectorize_particles=True, max_plate_nesting=1).loss(standard, guide, X)
    with pyro.validation_enabled(True):
        found = -pv.MonteCarloELBO(2000, vectorize_particles=True).loss(standard, guide, X)
    assert found == pytest.approx(right, abs=0.2)
    assert pv.elbo_terms(standard, guide, X, num_samples=500).elbo.sum() == pytest.approx(right, abs=0.3)
    assert pv.elbo_estimate(standard, guide, X, num_samples=500).per_datum.sum() == pytest.approx(right, abs=0.3)
    for run in (pv.log_marginal, pv.refine, pv.inference_gaps):
        with pytest.raises(pv.InputError, match=r"^site 'z': the .* has no density at a given value, since its flow"):
            run(standard, guide, X)


@pytest.mark.parametrize("run", [*PER_DATUM, fit])
def test_bounds_that_depend_on_a_latent_are_not_blamed_on_the_data(run):
    def model(x, fixed=False):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            low, high = (torch.zeros_like(z), torch.ones_like(z)) if fixed else (z - 0.01, z + 0.01)
            pyro.sample("x", dist.Uniform(low, high).to_event(1), obs=x)

    with pytest.raises(pv.InputError, match=r"support of the model's Uniform; where its bounds depend on latents"):
        run(model, half, X)
    with pytest.raises(pv.InputError, match=r"the value 1\.2, .* the model's Uniform; correct the data"):
        run(lambda x: model(x, fixed=True), half, X)


@pytest.mark.parametrize("run", [*PER_DATUM, fit])
def test_data_that_each_element_of_a_plate_observes_are_refused(run):
    """Stock Pyro counts them once for each element: the axis of the data is declared as part of a datum."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(2), obs=x)

    with pytest.raises(pv.InputError, match=r"^site 'x' .* each of the 2 elements of plate 'data', so the data count"):
        run(model, half, X)


@pytest.mark.parametrize("run", [*PER_DATUM, fit])
def test_what_newcomers_give_is_named_in_one_line(run):
    def bare(x):
        z = pyro.sample("z", dist.Normal(torch.zeros(x.shape), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    class Model(nn.Module):
        def forward(self, x):
            standard(x)

    for model, x, message in (
        (bare, X, r"^site 'z' has .* \(2,\) with 2 terms, and is in no plate; put the sites of the data into `with"),
        (Model, X, r"^the model is the class Model; give an object, Model\(…\)$"),
    ):
        with pytest.raises((pv.InputError, TypeError), match=message):
            run(model, (lambda x: pyro.sample("z", dist.Normal(x, 1.0).to_event(1))) if model is bare else half, x)
    with pytest.raises(TypeError, match=r"^the guide is the class Model"):
        run(standard, Model, X)
    with pytest.raises(TypeError, match=r"^elbo must be an estimator .*, not the class MonteCarloELBO$"):
        fit(standard, half, X, pv.MonteCarloELBO)


@pytest.mark.parametrize("full", [False, True])
def test_a_latent_of_all_data_counts_once_or_is_refused_in_batches(full):
    """m ~ N(0, 1) of all data; the trained q(m) is p(m|x) where a batch's terms stand for all of the data's."""
    x = torch.linspace(-1.0, 2.0, 8)

    def rows(x):
        return pyro.plate("data", 8, subsample=torch.arange(len(x))) if full else pyro.plate("data", len(x))

    def model(x):
        m = pyro.sample("m", dist.Normal(0.0, 1.0))
        with rows(x):
            pyro.sample("x", dist.Normal(m, 1.0), obs=x)

    def guide(x):
        loc = pyro.param("loc_of_all", torch.tensor(0.0))
        pyro.sample("m", dist.Normal(loc, 1 / 3))

    if not full:
        with pytest.raises(pv.InputError, match=r"^site 'm' is outside of plate 'data', so each batch of 2 counts"):
            fit(model, guide, x, batch_size=2)
        fit(model, guide, x, batch_size=8)
        return
    how = {"epochs": 300, "batch_size": 2, "learning_rate": 0.02, "progress": False}
    pv.fit(model, guide, x, pv.AnalyticELBO(), **how)
    assert pyro.param("loc_of_all").item() == pytest.approx(x.sum().item() / 9, abs=0.1)
