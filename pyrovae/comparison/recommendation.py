"""Choose one of several models from log p(x) of the same test data over the same seeds."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pyrovae.comparison._verdict import MIN_DATA, MIN_SEEDS, Gain, Limit, Measure, ModelGain, Recommendation, Verdict
from pyrovae.comparison.intervals import Scores, gains_of, reach
from pyrovae.errors import InputError, InputTypeError, check_level, check_positive
from pyrovae.evaluation import LogMarginal

__all__ = [
    "MIN_DATA",
    "MIN_SEEDS",
    "THRESHOLD",
    "Gain",
    "Limit",
    "Measure",
    "ModelGain",
    "Recommendation",
    "Verdict",
    "recommend",
]

_DIVERGED = 1e100
THRESHOLD = 0.1
"""Nats per datum below which a gain is not worth a more complex model."""


def recommend(
    log_prob: Mapping[str, ArrayLike | Sequence[LogMarginal]],
    *,
    baselines: Mapping[str, ArrayLike | LogMarginal] | None = None,
    groups: ArrayLike | None = None,
    threshold: float = THRESHOLD,
    level: float = 0.95,
    measure: Measure = Measure.LOG_PROB,
    num_resamples: int | None = None,
    seed: int | None = None,
) -> Recommendation:
    """Choose the simplest model that no other model clearly beats.

    Clearly better means by more than the threshold, with the whole interval. A gain's interval covers three causes of
    error: the choice of test data, by Student's t with Hall's (1992) correction for skewness, since log-likelihoods
    have a long left tail; the seeds, by Student's t; and the estimation of log p(x), its Monte Carlo error and its
    bias, if estimates are given. The intervals of the gains over the simplest model hold jointly at ``level``, by
    Bonferroni's inequality. With fewer than 20 data or 2 seeds there is no valid interval, and the verdict is ``"too
    few"``.

    Args:
        log_prob: log p(x) in nats by the model's name, the simplest first, of the same seeds and the same data: a
            tensor or an array of shape (seeds, num), taken as exact, or an estimate for each seed, as
            :func:`~pyrovae.log_marginal` returns it. A model with a non-finite value failed and is left out. Estimates
            of which more than a tenth are unreliable may be too low by any amount.
        baselines: log p(x) of models without seeds, such as probabilistic PCA, shape (num,), or an estimate; they are
            reported, but not chosen.
        groups: label of each test datum, shape (num,): data with the same label, such as measurements of one sample,
            count as one. By default all are independent.
        threshold: gain in nats per datum below which there is no difference.
        level: joint probability of the intervals.
        measure: the quantity in ``log_prob``.
        num_resamples: deprecated and without effect.
        seed: deprecated and without effect.

    Raises:
        InputError: shapes, or labels of the data, differ, there is no trained model, or some scores are of log p(x) and
            others are not.

    Example:
        >>> import torch
        >>> x = torch.randn(3, 200, generator=torch.Generator().manual_seed(0))
        >>> recommend({"diagonal": x, "full": x + 2}).choice
        'full'
        >>> print(recommend({"diagonal": x, "full": x + 0.01}).verdict)
        no difference
        >>> print(recommend({"diagonal": x[:, :5], "full": x[:, :5] + 2}).verdict)
        too few
    """
    if num_resamples is not None or seed is not None:
        warnings.warn("recommend() draws nothing: leave out num_resamples and seed", DeprecationWarning, stacklevel=2)
    check_positive("threshold", threshold, or_zero=True)
    check_level(level)
    for name, given in {"log_prob": log_prob, "baselines": baselines or {}}.items():
        if not isinstance(given, Mapping):
            raise InputTypeError(
                f"{name} must map each model's name to its log p(x), not be of type {type(given).__name__}"
            )
    _check_labels({**log_prob, **(baselines or {})}, groups)
    scores = {name: Scores.of(given) for name, given in log_prob.items()}
    num_seeds, num = _shape(scores)
    if twice := sorted(scores.keys() & (baselines or {}).keys()):
        raise InputError(f"{twice[0]!r} is both a model and a baseline; give them different names")
    if num >= MIN_DATA and not any(s.is_estimate for s in scores.values()):
        kept = _without_copies(scores)
        scores, num_seeds = {name: replace(s, values=s.values[kept]) for name, s in scores.items()}, len(kept)
    trained = {name: s for name, s in scores.items() if _is_usable(s.values)}
    if not trained:
        raise InputError("every model failed, so there is none to recommend")
    fixed = {name: _baseline(name, given, num_seeds, num) for name, given in (baselines or {}).items()}
    soft = [name for name, s in (scores | fixed).items() if not s.is_density]
    if 0 < len(soft) < len(scores | fixed):
        raise InputError(
            f"the scores of {soft[0]} are a cross-entropy with soft targets, which cannot be compared with log p(x); "
            "leave them out"
        )
    compared = _Compared({**trained, **fixed}, _codes(groups, num), level)
    mean = {name: float(s.values.mean()) for name, s in compared.scores.items()}
    names = list(trained)
    simplest, best = names[0], max(names, key=mean.__getitem__)

    def is_better(name: str, over: str) -> bool:
        return compared.gain(name, over).low > threshold  # never of too few, whose limits are NaN

    winners = [name for name in names if is_better(name, simplest)]
    choice = simplest
    if winners:
        first = max(winners, key=mean.__getitem__)
        choice = next(name for name in winners if not is_better(first, name))
    by_model = tuple(
        ModelGain(**asdict(compared.gain(name, simplest)), model=name, log_prob=mean[name], bias=s.too_low)
        for name, s in compared.scores.items()
    )
    rivals = tuple(row.model for row in by_model[1 : len(names)] if row.high > threshold)
    verdict = Verdict.NO_DIFFERENCE
    if compared.too_few:
        verdict = Verdict.TOO_FEW
    elif choice != simplest:
        verdict = Verdict.BETTER
    elif rivals:
        verdict = Verdict.UNDECIDED
    limit, num_enough = None, 0
    if verdict is Verdict.UNDECIDED:
        limit, num_enough = compared.what_would_tell(max(rivals, key=mean.__getitem__), simplest, threshold)
    unbeaten = [name for name in fixed if all(is_better(name, over) for over in names)]
    beaten_by = max(unbeaten, key=mean.__getitem__, default="")
    return Recommendation(
        choice=choice,
        verdict=verdict,
        best=best,
        by_model=by_model,
        best_over_choice=compared.gain(best, choice),
        rivals=rivals,
        against={name: compared.gain(choice, name) for name in fixed},
        beaten_by=beaten_by,
        beaten_by_gain=compared.gain(beaten_by, best) if beaten_by else None,
        failed=tuple(name for name in log_prob if name not in trained),
        threshold=threshold,
        level=level,
        num_seeds=num_seeds,
        num_data=num,
        measure=measure,
        num_groups=compared.num_groups,
        limit=limit,
        num_enough=num_enough,
        deviation=compared.deviation(simplest),
    )


class _Compared:
    """Gains between models with their intervals, which hold all together over the first model."""

    def __init__(self, scores: dict[str, Scores], groups: NDArray[np.int64] | None, level: float) -> None:
        self.scores, self._groups = scores, groups
        self.num_seeds, num = next(iter(scores.values())).values.shape
        self.num_groups = num if groups is None else int(groups.max()) + 1
        self._tail = (1 - level) / 2 / max(1, len(scores) - 1)

    @property
    def too_few(self) -> bool:
        """Whether no interval holds."""
        return self.num_groups < MIN_DATA or self.num_seeds < MIN_SEEDS

    def gain(self, name: str, over: str) -> Gain:
        """Mean gain of a model over another, and its interval; NaN where there are too few data or seeds."""
        a, b, gains = self.scores[name], self.scores[over], self._of_groups(name, over)
        gain = float(gains.mean())
        if self.too_few:
            return Gain(gain, math.nan, math.nan)
        if name == over:
            return Gain(0.0, 0.0, 0.0)
        below, above = reach(gains, self._tail, math.hypot(a.monte_carlo, b.monte_carlo))
        low = gain - float(below) - a.too_high - b.too_low
        return Gain(gain, low, gain + float(above) + a.too_low + b.too_high)

    def _of_groups(self, name: str, over: str) -> NDArray[np.float64]:
        return gains_of(self.scores[name].values, self.scores[over].values, self._groups)

    def deviation(self, over: str) -> float:
        """Standard deviation of the gains over the groups, the median of all models; NaN if there is no other."""
        if self.num_groups < 2:
            return math.nan
        found = [self._of_groups(name, over).mean(0).std(ddof=1) for name in self.scores if name != over]
        return float(np.median(found)) if found else math.nan

    def what_would_tell(self, name: str, over: str, threshold: float) -> tuple[Limit, int]:
        """What would decide whether a gain is above the threshold, and about how many groups, if it is data."""
        gains = self._of_groups(name, over)
        mean = gains.mean(1, keepdims=True)
        a, b, side = self.scores[name], self.scores[over], 0 if mean.mean() > threshold else 1
        off = (a.too_high + b.too_low, a.too_low + b.too_high)[side]
        most = abs(float(mean.mean()) - threshold) - off  # that the limit may be away from the mean
        if most <= 0 < off:
            return Limit.ESTIMATE, 0
        of_data = float(reach(gains - mean, self._tail)[side])
        of_seeds = float(reach(np.broadcast_to(mean, gains.shape), self._tail)[side])
        if most <= of_seeds:
            return Limit.SEEDS, 0
        num = self.num_groups * of_data**2 / (most**2 - of_seeds**2)  # most > of_seeds ≥ 0
        return Limit.DATA, max(self.num_groups + 1, math.ceil(num))


def _is_usable(values: NDArray[np.float64]) -> bool:
    """Whether all log p(x) are finite, and not of a size that only a loss without bounds has."""
    return bool((np.abs(values) < _DIVERGED).all())


def _without_copies(scores: Mapping[str, Scores]) -> list[int]:
    """The seeds without those that have the scores of another in all models, of which there is a warning.

    If all are alike, the models may have no seeds, and all are kept.
    """
    every = np.concatenate([s.values for s in scores.values()], axis=1)
    first = [next(i for i, one in enumerate(every) if np.array_equal(one, row, equal_nan=True)) for row in every]
    kept, all_seeds = sorted(set(first)), list(range(len(every)))
    if kept == all_seeds:
        return kept
    j = next(j for j, i in enumerate(first) if i != j)
    counted = "the interval then lacks the spread of seeds" if len(kept) == 1 else "it counts once"
    warnings.warn(
        f"seeds {first[j] + 1} and {j + 1} have the same scores in every model: if one seed is given twice, leave the "
        f"copy out; {counted}",
        stacklevel=3,
    )
    return all_seeds if len(kept) == 1 else kept


def _check_labels(given: Mapping[str, object], groups: ArrayLike | None) -> None:
    """Raise an InputError where DataFrames or Series name other data, or another order: gains are paired."""
    axes = {name: getattr(scores, "columns", getattr(scores, "index", None)) for name, scores in given.items()}
    labels = {name: list(axis) for name, axis in axes.items() if axis is not None and not callable(axis)}
    if any(isinstance(label, str) for each in labels.values() for label in each):  # beside those, a count is no label
        labels = {name: each for name, each in labels.items() if each != list(range(len(each)))}
    for name, each in labels.items():
        if each != (first := next(iter(labels.items())))[1]:
            raise InputError(
                f"the data of {name!r} have other labels than those of {first[0]!r}, or another order, and gains are "
                "taken datum by datum; give both the same data, in one order, such as b[a.columns]"
            )
    index = getattr(groups, "index", ())
    of_groups = [] if callable(index) else list(index)
    for name, each in labels.items():
        if of_groups != each and set(of_groups) == set(each):
            raise InputError(f"groups has the data in another order than {name!r}; give groups[{name}.columns]")


def _shape(scores: Mapping[str, Scores]) -> tuple[int, int]:
    """The number of seeds and of data, checked."""
    shapes = {s.values.shape for s in scores.values()}
    if len(shapes) != 1 or len(shape := next(iter(shapes))) != 2:
        raise InputError(f"log_prob must hold tensors (seeds, num) of one shape, not {sorted(shapes)}")
    if min(shape) < 1:
        raise InputError(f"cannot compare {shape[0]} seeds of {shape[1]} data")
    return shape[0], shape[1]


def _baseline(name: str, given: ArrayLike | LogMarginal, num_seeds: int, num: int) -> Scores:
    """A baseline's scores, the same for each seed, checked."""
    found = Scores.of([given] if isinstance(given, LogMarginal) else given)
    found = found if isinstance(given, LogMarginal) else replace(found, values=found.values[None])
    if found.values.shape != (1, num):
        raise InputError(f"baseline {name} must have shape {(num,)}, not {found.values.shape[1:]}")
    if not _is_usable(found.values):
        raise InputError(f"baseline {name} holds NaN or infinite values")
    return replace(found, values=found.values.repeat(num_seeds, 0))


def _codes(groups: ArrayLike | None, num: int) -> NDArray[np.int64] | None:
    """Group labels as integers from 0; None where each datum is a group."""
    if groups is None:
        return None
    import pandas as pd

    labels = np.asarray(groups)
    if pd.isna(np.asarray(groups, dtype=object)).any():
        raise InputError("groups lacks the label of some data; give each datum without one a label of its own")
    if labels.shape != (num,):
        raise InputError(f"groups must hold a label for each of the {num} data, not shape {labels.shape}")
    found, codes = np.unique(labels, return_inverse=True)
    return None if len(found) == num else codes.astype(np.int64).ravel()
