"""What the parts of a comparison take, measured before it begins."""

import itertools
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pyrovae.comparison._data import Data, prepare
from pyrovae.comparison._measures import GAP_STEPS, score
from pyrovae.comparison._plan import Cell, Plan, make_pair
from pyrovae.comparison._runs import FAILURES
from pyrovae.evaluation import refit
from pyrovae.linear_gaussian.warm_start import linear_models
from pyrovae.training import Trainer, TrainingSettings

_STEPS = 40
_ROWS = 50


@dataclass(frozen=True)
class Needs:
    """Seconds for one run of every model.

    Attributes:
        epoch: of training.
        evaluation: of the test data.
        gap: of splitting log p(x) − ELBO of one test datum.
    """

    epoch: float
    evaluation: float
    gap: float

    def __add__(self, other: "Needs") -> "Needs":
        return Needs(self.epoch + other.epoch, self.evaluation + other.evaluation, self.gap + other.gap)


def measure(
    parts: dict[str, Any],
    train: Tensor,
    validation: Tensor,
    test: Tensor,
    latent_dim: int,
    num_samples: int,
    *,
    missing: bool = False,
) -> Needs:
    """What one run of every model takes, from some steps of each.

    Args:
        parts: arguments of :func:`pyrovae.compare`: posteriors, estimators, likelihoods, start, preprocessing, how to
            train.
        train: shape (num, n).
        validation: what the loss is evaluated on after each epoch.
        test: what is evaluated in the end.
        latent_dim: dimension of z.
        num_samples: draws of z per test datum.
        missing: whether NaN is a value not observed.
    """
    data = prepare(train, None, None, test, validation, parts["preprocessing"], missing)
    plan = _plan(parts, data, latent_dim, num_samples, missing)
    needs = Needs(0.0, 0.0, 0.0)
    for likelihood, posterior, estimator in itertools.product(plan.likelihoods, plan.posteriors, plan.estimators):
        with suppress(*FAILURES):  # its run will say so
            needs += _measure(plan, Cell(posterior, estimator, likelihood, latent_dim, 0))
    return needs


def _measure(plan: Plan, cell: Cell) -> Needs:
    data, (model, guide) = plan.data, make_pair(plan, cell)
    trainer = Trainer(
        [(model, guide)],
        data.train,
        plan.estimators[cell.estimator],
        TrainingSettings(_STEPS, plan.batch_size, plan.learning_rate, engine="eager"),
        validation=data.validation,
        progress=False,
    )
    trainer.run(max_steps=3)
    begin = time.perf_counter()
    trainer.run(max_steps=_STEPS)
    epoch = (time.perf_counter() - begin) * trainer.steps_per_epoch / _STEPS
    rows = data.test[:_ROWS]
    begin = time.perf_counter()
    score(model, guide, rows, plan.log_marginal_samples)
    evaluation = (time.perf_counter() - begin) * len(data.test) / len(rows)
    begin = time.perf_counter()
    _, steps = refit(model, guide, rows, plan.posteriors[cell.posterior], num_particles=4, max_steps=_STEPS)
    # two families are fitted, and then as many steps averaged
    gap = (time.perf_counter() - begin) / steps * 4 * GAP_STEPS / len(rows)
    return Needs(epoch, evaluation, gap)


def _plan(parts: dict[str, Any], data: Data, latent_dim: int, num_samples: int, missing: bool) -> Plan:
    linear = None
    if parts["start"] == "linear":
        linear = linear_models(data.train, parts["likelihoods"], [latent_dim], data.validation, progress=False)
    shared = {name: value for name, value in parts.items() if name not in ("start", "preprocessing")}
    return Plan(
        data=data,
        **shared,
        epochs=dict.fromkeys(parts["estimators"], 1),
        schedule="cosine",
        log_marginal_samples=num_samples,
        engine="eager",
        out=None,
        linear=linear,
        missing=missing,
    )
