"""Time needed by the parts of a comparison, measured before it begins, and the counts that a budget allows."""

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import astuple, dataclass, replace
from typing import TypeVar

from pyrovae.comparison._measures import ENCODER_DATA, GAP_STEPS, loss_of_encoder, score
from pyrovae.comparison._plan import Cell, Plan, make_pair
from pyrovae.comparison.settings import LOOKS
from pyrovae.evaluation import refit, refit_encoder
from pyrovae.evaluation.estimate import Step
from pyrovae.evaluation.refit_encoder import NUM_DRAWS
from pyrovae.training import Trainer
from pyrovae.vae import AmortizedGuide, GenerativeModel

T = TypeVar("T")

GAP_DATA = 32
"""Number of test data whose log p(x) − ELBO is split."""
LEAST_EPOCHS = 5
"""With fewer epochs than this, VAEs of the slowest likelihood are left out, to give the others more."""
LEAST_LOOKS = 2
"""Smallest number of looks at the validation data in a run, beside the one before its training."""
FEW_TEST, FEW_DRAWS, FEWEST_TEST = 200, 50, 100
"""Smallest numbers of test data, then draws, then test data, if scoring would take too long."""

_TRAINING_SHARE = 0.65
"""Share of the remaining time for training; the rest is for steps slower than the timed ones."""

_SHARE_TO_MEASURE = 0.12
_SHARE_FOR_GAPS = 0.2
_SHARE_FOR_SCORES = 0.3
_SHARE_FOR_REFITS = 1 / 3
_SHARE_FOR_LOOKS = 0.2
_STEPS = 40
_DRAWS = 640
_ROWS = 50
_FEW = 10
_NEVER = 1000
"""Times the time of measuring: what is not measured counts as taking so long."""
_OF_ANY_DRAWS = 0.5
"""Share of a score's time that does not depend on the number of draws."""


@dataclass(frozen=True)
class Seconds:
    """Seconds for one run of every model.

    Attributes:
        epoch: one epoch of training.
        evaluation: evaluation of the test data.
        gap: splitting log p(x) − ELBO of one test datum.
        look: at the validation data, where the epoch is judged.
        refit: one epoch in which the encoder is trained again.
    """

    epoch: float = 0.0
    evaluation: float = 0.0
    gap: float = 0.0
    look: float = 0.0
    refit: float = 0.0

    @property
    def least(self) -> float:
        """Those of the shortest run that counts."""
        return LEAST_EPOCHS * self.epoch + self.evaluation + (1 + LEAST_LOOKS) * self.look

    def __add__(self, other: "Seconds") -> "Seconds":
        pairs = zip(astuple(self), astuple(other), strict=True)
        return Seconds(*(mine + theirs for mine, theirs in pairs))


@dataclass(frozen=True)
class Counts:
    """Counts that a time budget was turned into; a study with these counts gives the same bits.

    Attributes:
        epochs: passes over the training data of each run.
        gap_data: test data whose log p(x) − ELBO is split.
        log_marginal_samples: draws of z per datum for log p(x).
        max_test: test data that are scored, at most.
        refit_epochs: passes with which each run's encoder is trained again.
        validate_every: epochs between looks at the validation data, at least.
        linear_only: likelihoods of which no VAE is trained.
        linear_left_out: linear candidates that are not fitted, by name.
    """

    epochs: int
    gap_data: int
    log_marginal_samples: int
    max_test: int
    refit_epochs: int = 0
    validate_every: int = 1
    linear_only: tuple[str, ...] = ()
    linear_left_out: tuple[str, ...] = ()


def measure(plan: Plan, cells: Iterable[Cell], budget: float = 600.0) -> dict[str, Seconds]:
    """Time for a run of each of these cells, summed by likelihood, from some steps of each.

    Args:
        plan: plan of the comparison.
        cells: cells of one seed; none where a budget leaves linear models alone.
        budget: seconds for the whole comparison. A share of it is for this, approximately; slow models get fewer steps.
    """
    cells, begin, seconds = list(cells), time.perf_counter(), _SHARE_TO_MEASURE * budget
    if not cells:
        return {}
    longest = budget * len({cell.likelihood for cell in cells}) / (len(cells) * len(plan.settings.seeds))  # of a run
    total: dict[str, Seconds] = {}
    last: dict[str, Seconds] = {}  # a likelihood that there is no time to measure takes too long
    for cell in cells:
        passed = time.perf_counter() - begin
        if not total or passed < seconds:
            with suppress(Exception):  # its run will say so
                epochs = LEAST_EPOCHS if total else 1
                last[cell.likelihood] = _measure(plan, cell, seconds / len(cells), longest, epochs)
        else:
            last.setdefault(cell.likelihood, Seconds(_NEVER * passed, _NEVER * passed))
        if cell.likelihood in last:
            total[cell.likelihood] = total.get(cell.likelihood, Seconds()) + last[cell.likelihood]
    return total


def _measure(plan: Plan, cell: Cell, seconds: float, longest: float, epochs: int) -> Seconds:
    """Time for a run; the rest is a guess as soon as the shortest run, of so many epochs, is longer than possible."""
    settings, test, (model, guide) = plan.settings, plan.data.test, make_pair(plan, cell)
    epoch, is_slow = _epoch(plan, cell, model, guide, seconds / 3)
    if epochs * epoch > longest:
        return Seconds(epoch, _NEVER * longest)
    long = seconds / 20
    for num in (_FEW, _ROWS):
        rows = test[:num]
        passed, (_, scored) = _timed(score, model, guide, rows, settings.log_marginal_samples)
        if passed > long:
            break
    evaluation = passed * len(test) / len(rows)
    draws = min(1.0, FEW_DRAWS / settings.log_marginal_samples)
    if epochs * epoch + evaluation * min(1.0, FEWEST_TEST / len(test)) * _cost_of_draws(draws) > longest:
        return Seconds(epoch, evaluation)
    refined = _timed(loss_of_encoder, model, guide, rows)[0] / min(ENCODER_DATA, len(rows))
    by_guide = scored.steps.count(Step.GUIDE) / len(rows)  # after training, they need to be refined, too
    evaluation += refined * (min(ENCODER_DATA, len(test)) + by_guide * len(test))
    look, again = _look(plan, cell, model, guide, long), _refit_of_encoder(plan, model, guide, is_slow)
    few, most = (_FEW, _FEW) if passed > long else (_ROWS, _STEPS)
    family, rows = settings.named_posteriors[cell.posterior], rows[:few]
    took, (_, steps) = _timed(refit, model, guide, rows, family, num_particles=4, max_steps=most)
    gap = took / steps * 4 * GAP_STEPS / len(rows)  # two families are fitted, and then as many steps averaged
    return Seconds(epoch, evaluation, gap, look, again)


def _timed(function: Callable[..., T], *args: object, **options: object) -> tuple[float, T]:
    """Seconds that a call took, and what it gave."""
    begin = time.perf_counter()
    found = function(*args, **options)
    return time.perf_counter() - begin, found


def _epoch(plan: Plan, cell: Cell, model: GenerativeModel, guide: AmortizedGuide, seconds: float) -> tuple[float, bool]:
    """Seconds of an epoch, from as many steps as these seconds allow, and whether that are fewer than ``_STEPS``."""
    trainer = Trainer(
        [(model, guide)],
        plan.data.train,
        plan.settings.named_estimators[cell.estimator],
        replace(plan.training_of(cell), epochs=_STEPS, engine="eager", validate_every=_STEPS, measure=None),
        validation=plan.data.validation,
        progress=False,
    )
    trainer.run(max_steps=3)
    passed, steps, size = 0.0, 0, 3
    while not steps or (steps < _STEPS and passed < seconds):  # some steps at least, however short the time
        passed += _timed(trainer.run, max_steps=size)[0]
        steps += size
        size = _STEPS if passed / steps * _STEPS < seconds else 3
    return passed * trainer.steps_per_epoch / steps, steps < _STEPS


def _look(plan: Plan, cell: Cell, model: GenerativeModel, guide: AmortizedGuide, long: float) -> float:
    """Seconds of a look at the validation data, from few of them where all take long."""
    judge, validation = plan.training_of(cell).measure, plan.data.validation
    if judge is None or validation is None:
        return 0.0
    seen = min(len(validation), getattr(judge, "num_data", len(validation)))
    for num in (min(_FEW, seen), seen):
        took, _ = _timed(judge, model, guide, validation[:num])
        if took > long:
            break
    return took * seen / num


def _refit_of_encoder(plan: Plan, model: GenerativeModel, guide: AmortizedGuide, is_slow: bool) -> float:
    """Seconds of an epoch in which the encoder is trained again, from few draws where steps are slow."""
    data = plan.data
    if not plan.settings.refit_epochs or data.validation is None:
        return 0.0
    num, some = _DRAWS // _FEW if is_slow else _DRAWS, data.validation[:_ROWS]
    options = {"num_draws": num, "epochs": 1, "engine": "eager", "progress": False}
    return _timed(refit_encoder, model, guide, data.train, validation=some, **options)[0] * NUM_DRAWS / num


def counts_within(
    needed: Mapping[str, Seconds], num_seeds: int, seconds: float, most: Counts, *, without_vaes: bool = False
) -> Counts:
    """The counts that this time allows for all runs of all likelihoods, at most ``most``.

    Scores get at most 30 % of the time: fewer test data are scored, then with fewer draws. Training encoders again gets
    at most a third, validation a fifth, but there are at least two validations. If fewer than five epochs would be
    left, the VAEs of the slowest likelihood are left out. Those of the last likelihood stay, unless there is not even
    time for one epoch and a comparison ``without_vaes`` is possible.
    """
    kept, left_out = dict(needed), list(most.linear_only)
    while True:
        total = sum(kept.values(), Seconds())
        scored = total.evaluation * num_seeds
        num, draws = _scores_within(_SHARE_FOR_SCORES * seconds / scored if scored else 1.0, most)
        share = num / most.max_test * _cost_of_draws(draws / most.log_marginal_samples)
        again = refit_epochs_within(total, num_seeds, seconds, most.refit_epochs)
        total = replace(total, evaluation=share * total.evaluation)
        epochs, gap_data = epochs_within(total, num_seeds, seconds, replace(most, refit_epochs=again))
        if epochs >= min(LEAST_EPOCHS, most.epochs) or (len(kept) < 2 and not (without_vaes and epochs < 1)):
            looks = looks_within(total, num_seeds, seconds)
            every = most.validate_every if looks == LOOKS else max(most.validate_every, -(-epochs // looks), 1)
            return Counts(max(1, epochs), gap_data, draws, num, again, every, tuple(left_out), most.linear_left_out)
        slowest = max(kept, key=lambda name: kept[name].least)
        left_out.append(slowest)
        del kept[slowest]


def _scores_within(share: float, most: Counts) -> tuple[int, int]:
    """Test data and draws that take this share of the most time, within their smallest numbers."""
    num, draws = most.max_test, most.log_marginal_samples
    for least in (FEW_TEST, FEWEST_TEST):
        if share < 1:
            fewer = max(min(least, num), int(num * share))
            num, share = fewer, share * num / fewer
        if share < 1 and least == FEW_TEST:
            draws = max(min(FEW_DRAWS, draws), int(draws * (share - _OF_ANY_DRAWS) / (1 - _OF_ANY_DRAWS)))
            share /= _cost_of_draws(draws / most.log_marginal_samples)
    return num, draws


def _cost_of_draws(share: float) -> float:
    """The cost of a score with this share of the draws, relative to all: a part is for the datum's proposal."""
    return _OF_ANY_DRAWS + (1 - _OF_ANY_DRAWS) * share


def looks_within(needed: Seconds, num_seeds: int, seconds: float) -> int:
    """Validations of each run, in a fifth of these seconds, but at least two."""
    if not needed.look:
        return LOOKS
    return max(LEAST_LOOKS, min(LOOKS, int(_SHARE_FOR_LOOKS * seconds / (num_seeds * needed.look))))


def refit_epochs_within(needed: Seconds, num_seeds: int, seconds: float, most: int) -> int:
    """Epochs in which each run's encoder is trained again, in a third of these seconds, at most ``most``."""
    if not needed.refit:
        return most
    return max(0, min(most, int(_SHARE_FOR_REFITS * seconds / (num_seeds * needed.refit))))


def epochs_within(needed: Seconds, num_seeds: int, seconds: float, most: Counts) -> tuple[int, int]:
    """Epochs of each run, 0 where there is no time for one, and test data whose gap is split, in these seconds."""
    if not needed.epoch:  # no model could be measured, and the runs will say why
        return most.epochs, 0
    looks = looks_within(needed, num_seeds, seconds)
    seconds -= num_seeds * ((1 + looks) * needed.look + most.refit_epochs * needed.refit)
    gaps = needed.gap * most.gap_data
    gap_data = most.gap_data if gaps < _SHARE_FOR_GAPS * seconds else 0
    left = seconds - num_seeds * needed.evaluation - (gaps if gap_data else 0.0)
    return max(0, min(most.epochs, int(_TRAINING_SHARE * left / (num_seeds * needed.epoch)))), gap_data
