"""What the parts of a comparison take, measured before it begins."""

import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace

from pyrovae.comparison._measures import GAP_STEPS, score
from pyrovae.comparison._plan import Cell, Plan, make_pair
from pyrovae.evaluation import refit
from pyrovae.training import Trainer

GAP_DATA = 32
"""Test data whose log p(x) − ELBO is split."""

_TRAINING_SHARE = 0.65
"""Share of the remaining time that is spent on training: the rest is for steps slower than the timed ones."""

_SHARE_FOR_GAPS = 0.2
_STEPS = 40
_ROWS = 50


@dataclass(frozen=True)
class Seconds:
    """Seconds for one run of every model.

    Attributes:
        epoch: of training.
        evaluation: of the test data.
        gap: of splitting log p(x) − ELBO of one test datum.
    """

    epoch: float = 0.0
    evaluation: float = 0.0
    gap: float = 0.0

    def __add__(self, other: "Seconds") -> "Seconds":
        return Seconds(self.epoch + other.epoch, self.evaluation + other.evaluation, self.gap + other.gap)


def measure(plan: Plan, cells: Iterable[Cell]) -> Seconds:
    """What a run of each of these cells takes, from some steps of each."""
    total = Seconds()
    for cell in cells:
        with suppress(Exception):  # its run will say so
            total += _measure(plan, cell)
    return total


def _measure(plan: Plan, cell: Cell) -> Seconds:
    data, settings, (model, guide) = plan.data, plan.settings, make_pair(plan, cell)
    trainer = Trainer(
        [(model, guide)],
        data.train,
        settings.named_estimators[cell.estimator],
        replace(plan.training_of(cell), epochs=_STEPS, engine="eager"),
        validation=data.validation,
        progress=False,
    )
    trainer.run(max_steps=3)
    begin = time.perf_counter()
    trainer.run(max_steps=_STEPS)
    epoch = (time.perf_counter() - begin) * trainer.steps_per_epoch / _STEPS
    rows = data.test[:_ROWS]
    begin = time.perf_counter()
    score(model, guide, rows, settings.log_marginal_samples)
    evaluation = (time.perf_counter() - begin) * len(data.test) / len(rows)
    begin = time.perf_counter()
    _, steps = refit(model, guide, rows, settings.named_posteriors[cell.posterior], num_particles=4, max_steps=_STEPS)
    # two families are fitted, and then as many steps averaged
    gap = (time.perf_counter() - begin) / steps * 4 * GAP_STEPS / len(rows)
    return Seconds(epoch, evaluation, gap)


def epochs_within(needed: Seconds, num_seeds: int, seconds: float, most: int) -> tuple[int, int]:
    """Epochs of each run, and number of test data whose gap is split, that these seconds allow."""
    if not needed.epoch:  # no model could be measured, and the runs will say why
        return most, 0
    gaps = needed.gap * GAP_DATA
    gap_data = GAP_DATA if gaps < _SHARE_FOR_GAPS * seconds else 0
    left = seconds - num_seeds * needed.evaluation - (gaps if gap_data else 0.0)
    return max(1, min(most, int(_TRAINING_SHARE * left / (num_seeds * needed.epoch)))), gap_data
