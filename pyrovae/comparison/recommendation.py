"""Which of several models to take, from log p(x) of the same test data over the same seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pyrovae.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

THRESHOLD = 0.1
"""Nats per datum below which a gain is not worth a more complex model."""

_AT_ONCE = 2**23
"""Numbers of a bootstrap that are drawn together."""


class Verdict(StrEnum):
    """What a comparison found."""

    BETTER = "better"
    """The choice is better than all simpler models by more than the threshold."""
    NO_DIFFERENCE = "no difference"
    """No model gains more than the threshold over the simplest."""
    UNDECIDED = "undecided"
    """A model may gain more than the threshold, and these data and seeds cannot tell."""


class Measure(StrEnum):
    """What the models are compared by."""

    LOG_PROB = "log p(x)"
    ELBO = "ELBO"


@dataclass(frozen=True)
class Gain:
    """A mean gain in nats per datum, and its interval."""

    gain: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.gain:+.2f} nats per datum (between {self.low:+.2f} and {self.high:+.2f})"


@dataclass(frozen=True)
class ModelGain(Gain):
    """A model's or a baseline's mean log p(x) in nats per datum, and its gain over the simplest model."""

    model: str
    log_prob: float


@dataclass(frozen=True, repr=False)
class Recommendation:
    """Which model to take, and why.

    Attributes:
        choice: name of the model.
        verdict: see :class:`Verdict`.
        best: name of the model of the largest mean.
        by_model: each model and then each baseline with its gain over the simplest model.
        best_over_choice: gain of the best model over the choice.
        rivals: names of the models that may gain more than the threshold over the simplest.
        against: gain of the choice over each baseline, by the baseline's name.
        beaten_by: the best of the baselines that are better than every model; empty if none is.
        beaten_by_gain: its gain over the best model; None if there is none.
        failed: names of the models that failed, and were left out.
        threshold: nats per datum below which there is no difference.
        level: of the intervals, which hold all together.
        num_seeds: number of seeds.
        num_data: number of test data.
        measure: what the models are compared by.
    """

    choice: str
    verdict: Verdict
    best: str
    by_model: tuple[ModelGain, ...]
    best_over_choice: Gain
    rivals: tuple[str, ...]
    against: dict[str, Gain]
    beaten_by: str
    beaten_by_gain: Gain | None
    failed: tuple[str, ...]
    threshold: float
    level: float
    num_seeds: int
    num_data: int
    measure: Measure = Measure.LOG_PROB

    @property
    def gains(self) -> pd.DataFrame:
        """One row a model: ``log_prob``, its mean in nats per datum, and its ``gain`` over the simplest, bounded."""
        import pandas as pd

        columns = ["model", "log_prob", "gain", "low", "high"]
        return pd.DataFrame([asdict(row) for row in self.by_model])[columns]

    @property
    def simplest(self) -> str:
        """Name of the simplest model that was trained."""
        return self.by_model[0].model

    @property
    def text(self) -> str:
        """The reasons, in a few sentences."""
        parts = [self._reasons(), self._beside_baselines()]
        text = " ".join(filter(None, parts))
        if self.beaten_by_gain is not None:
            g, winner = self.beaten_by_gain, f"{self.beaten_by[0].upper()}{self.beaten_by[1:]}"
            text = (
                f"{winner}, a simpler model, is better than every model here, by {g.gain:.2f} nats per datum (between "
                f"{g.low:.2f} and {g.high:.2f}) over the best of them: use it, or train longer. Of the models: "
                f"{text[0].lower()}{text[1:]}"
            )
        if self.failed:
            text += f" Failed, and left out: {', '.join(self.failed)}."
        if self.measure is Measure.ELBO:
            text += " Gains are in the ELBO: log p(x) is the same for every guide of one model."
        return text

    def _reasons(self) -> str:
        intervals = f"{self.level:.0%} intervals over {self.num_seeds} seeds and {self.num_data} test data"
        gains = {row.model: row for row in self.by_model}
        if len(self.by_model) - len(self.against) == 1:
            return f"Take {self.choice}: it is the only model ({intervals})."
        if self.verdict is Verdict.BETTER:
            text = (
                f"Take {self.choice}: it gains {gains[self.choice]} over {self.simplest}, more than the threshold of "
                f"{self.threshold:g} ({intervals})."
            )
            if self.best != self.choice:
                more = self.best_over_choice
                text += (
                    f" {self.best} has the largest mean, {more.gain:+.2f} beside it (between {more.low:+.2f} and "
                    f"{more.high:+.2f}): no difference that would pay for it."
                )
            return text
        best_is_simplest = self.best == self.simplest
        if self.verdict is Verdict.NO_DIFFERENCE:
            largest = "no other gains anything on average"
            if not best_is_simplest:
                largest = f"the most is {self.best}'s {gains[self.best]}"
            return (
                f"No difference within noise, take {self.choice}: no model gains more than the threshold of "
                f"{self.threshold:g} nats per datum over it; {largest} ({intervals})."
            )
        most = "" if best_is_simplest else f"; the most on average is {self.best}'s {gains[self.best]}"
        return (
            f"No difference that these data and seeds can show, take {self.choice}: {', '.join(self.rivals)} may gain "
            f"more than the threshold of {self.threshold:g} nats per datum or nothing{most} ({intervals}). More seeds "
            "or data would tell."
        )

    def _beside_baselines(self) -> str:
        kinds: dict[str, list[str]] = {"worse than": [], "not clearly apart from": [], "better than": []}
        for name, g in sorted(self.against.items(), key=lambda item: (item[1].gain, item[0])):
            kind = "better than" if g.low > self.threshold else "not clearly apart from"
            kind = "worse than" if g.high < -self.threshold else kind
            kinds[kind].append(f"{name} ({g.gain:+.2f}, between {g.low:+.2f} and {g.high:+.2f})")
        if len(better := kinds["better than"]) > 1:  # the nearest will do
            kinds["better than"] = [f"{better[0]} and {len(better) - 1} more"]
        parts = [f"{kind} {', '.join(said)}" for kind, said in kinds.items() if said]
        return f"Beside simpler models it is {'; '.join(parts)}." if parts else ""

    def to_dict(self) -> dict[str, object]:
        """Plain values that JSON has: choice, verdict, text, gains, beaten_by."""
        return {
            "choice": self.choice,
            "verdict": str(self.verdict),
            "text": self.text,
            "gains": self.gains.to_dict("records"),
            "beaten_by": self.beaten_by,
        }

    def __repr__(self) -> str:
        return f"Recommendation({self.choice!r}, {self.verdict}: {self.text})"


def recommend(
    log_prob: Mapping[str, Tensor],
    *,
    baselines: Mapping[str, Tensor] | None = None,
    threshold: float = THRESHOLD,
    level: float = 0.95,
    num_resamples: int = 4000,
    seed: int = 0,
    measure: Measure = Measure.LOG_PROB,
) -> Recommendation:
    """The simplest model, unless others are clearly better: then the simplest of these that the best does not surpass.

    Better is by more than a threshold, with the whole interval. Each gain's interval is of a paired resampling of both
    causes: which test data were seen by the bootstrap (Efron & Tibshirani 1993), the same draws for all models, and
    which S seeds were trained by Student's t with S − 1 degrees of freedom around the seeds' mean gain, since two or
    three are too few to draw from. The intervals of the gains over the simplest model hold all together at ``level``,
    by Bonferroni's inequality.

    Args:
        log_prob: log p(x) in nats by the model's name, the simplest first, shape (seeds, num): the same seeds and the
            same data. A model with a value that is not finite failed, and is left out.
        baselines: log p(x) of models without seeds, such as probabilistic PCA, shape (num,); they are reported,
            and not chosen.
        threshold: gain in nats per datum below which there is no difference.
        level: of the intervals.
        num_resamples: draws of both.
        seed: of the draws.
        measure: what ``log_prob`` holds.

    Raises:
        InputError: fewer than two seeds or data, shapes that differ, or no model that was trained.

    Example:
        >>> import torch
        >>> x = torch.randn(3, 200, generator=torch.Generator().manual_seed(0))
        >>> recommend({"diagonal": x, "full": x + 2}).choice
        'full'
        >>> print(recommend({"diagonal": x, "full": x + 0.01}).verdict)
        no difference
    """
    if not threshold >= 0 or not 0 < level < 1:
        raise InputError(f"threshold must be ≥ 0 and level inside (0, 1), not {threshold!r} and {level!r}")
    shape = _shape(log_prob, baselines or {})
    trained = {name: v.double().cpu().numpy() for name, v in log_prob.items() if v.isfinite().all()}
    if not trained:
        raise InputError("every model failed, so there is none to recommend")
    names = list(trained)
    fixed = {name: np.tile(v.double().cpu().numpy(), (shape[0], 1)) for name, v in (baselines or {}).items()}
    values = {**trained, **fixed}
    drawn = _Resampling(values, num_resamples, seed)
    tail = (1 - level) / 2 / max(1, len(values) - 1)
    mean = {name: float(v.mean()) for name, v in values.items()}
    simplest, best = names[0], max(names, key=lambda name: mean[name])

    def gain(name: str, over: str) -> Gain:
        return drawn.gain(name, over, tail)

    def is_better(name: str, over: str) -> bool:
        return gain(name, over).low > threshold

    choice = simplest
    if is_better(best, simplest):
        choice = next(n for n in names if n == best or (is_better(n, simplest) and not is_better(best, n)))
    by_model = tuple(ModelGain(**asdict(gain(name, simplest)), model=name, log_prob=mean[name]) for name in values)
    rivals = tuple(row.model for row in by_model[1 : len(names)] if row.high > threshold)
    verdict = Verdict.BETTER if choice != simplest else Verdict.UNDECIDED if rivals else Verdict.NO_DIFFERENCE
    winners = [name for name in fixed if all(is_better(name, over) for over in names)]
    beaten_by = max(winners, key=lambda name: mean[name], default="")
    return Recommendation(
        choice=choice,
        verdict=verdict,
        best=best,
        by_model=by_model,
        best_over_choice=gain(best, choice),
        rivals=rivals,
        against={name: gain(choice, name) for name in fixed},
        beaten_by=beaten_by,
        beaten_by_gain=gain(beaten_by, best) if beaten_by else None,
        failed=tuple(name for name in log_prob if name not in trained),
        threshold=threshold,
        level=level,
        num_seeds=shape[0],
        num_data=shape[1],
        measure=measure,
    )


def _shape(log_prob: Mapping[str, Tensor], baselines: Mapping[str, Tensor]) -> tuple[int, int]:
    """The number of seeds and of data, checked."""
    shapes = {tuple(values.shape) for values in log_prob.values()}
    if len(shapes) != 1 or len(shape := next(iter(shapes))) != 2:
        raise InputError(f"log_prob must hold tensors (seeds, num) of one shape, not {sorted(shapes)}")
    if min(shape) < 2:
        raise InputError(
            f"{shape[0]} seed(s) and {shape[1]} data show no spread; train at least two seeds and test on two data"
        )
    for name, values in baselines.items():
        if tuple(values.shape) != shape[1:]:
            raise InputError(f"baseline {name} must have shape {shape[1:]}, not {tuple(values.shape)}")
        if not values.isfinite().all():
            raise InputError(f"baseline {name} holds NaN or infinite values")
    return shape[0], shape[1]


class _Resampling:
    """Means of each model over the same draws of the data, and what other seeds would add."""

    def __init__(self, values: Mapping[str, NDArray[np.float64]], num_resamples: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        num_seeds, num = next(iter(values.values())).shape
        self._mean = {name: v.mean() for name, v in values.items()}
        self._of_seed = {name: v.mean(1) for name, v in values.items()}
        self._t = rng.standard_t(num_seeds - 1, num_resamples)
        of_datum = np.stack([v.mean(0) for v in values.values()])
        means = [
            of_datum @ rng.multinomial(num, np.full(num, 1 / num), len(rows)).T / num
            for rows in np.array_split(self._t, math.ceil(num_resamples * num / _AT_ONCE))  # bounds the memory
        ]
        self._drawn = dict(zip(values, np.concatenate(means, axis=1), strict=True))

    def gain(self, name: str, over: str, tail: float) -> Gain:
        """Mean gain of a model over another, and the interval that leaves ``tail`` on either side."""
        by_seed = self._of_seed[name] - self._of_seed[over]
        stderr = by_seed.std(ddof=1) / math.sqrt(len(by_seed))
        low, high = np.quantile(self._drawn[name] - self._drawn[over] + stderr * self._t, [tail, 1 - tail])
        return Gain(float(self._mean[name] - self._mean[over]), float(low), float(high))
