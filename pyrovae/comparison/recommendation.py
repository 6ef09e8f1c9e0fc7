"""Which of several models to take, from log p(x) of the same test data over the same seeds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from pyrovae.errors import InputError

THRESHOLD = 0.1
"""Nats per datum below which a gain is not worth a more complex model."""

_AT_ONCE = 2**23
"""Numbers of a bootstrap that are drawn together."""


@dataclass(frozen=True, repr=False)
class Recommendation:
    """What to take, and why.

    Attributes:
        choice: name of the model.
        verdict: ``"better"``, than all simpler ones by more than the threshold; ``"no difference"``, where no model
            gains more than the threshold over the simplest; ``"undecided"``, where one may, and these data and seeds
            cannot tell.
        text: the reasons, in a few sentences.
        gains: one row a model: ``log_prob``, its mean in nats per datum, and ``gain`` over the simplest, between
            ``low`` and ``high``.
        beaten_by: the best of the baselines that are better than every model; empty if none is.
    """

    choice: str
    verdict: str
    text: str
    gains: pd.DataFrame
    beaten_by: str = ""

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
        baselines: log p(x) of models without seeds, such as probabilistic PCA, shape (num,); they are told of, and
            not chosen.
        threshold: gain in nats per datum below which there is no difference.
        level: of the intervals.
        num_resamples: draws of both.
        seed: of the draws.

    Raises:
        InputError: fewer than two seeds or data, shapes that differ, or no model that was trained.

    Example:
        >>> import torch
        >>> x = torch.randn(3, 200, generator=torch.Generator().manual_seed(0))
        >>> recommend({"diagonal": x, "full": x + 2}).choice
        'full'
        >>> recommend({"diagonal": x, "full": x + 0.01}).verdict
        'no difference'
    """
    if not threshold >= 0 or not 0 < level < 1:
        raise InputError(f"threshold must be ≥ 0 and level inside (0, 1), not {threshold!r} and {level!r}")
    shapes = {tuple(values.shape) for values in log_prob.values()}
    if len(shapes) != 1 or len(shape := next(iter(shapes))) != 2:
        raise InputError(f"log_prob must hold tensors (seeds, num) of one shape, not {sorted(shapes)}")
    if min(shape) < 2:
        raise InputError(
            f"{shape[0]} seed(s) and {shape[1]} data show no spread; train at least two seeds and test on two data"
        )
    for name, values in (baselines or {}).items():
        if tuple(values.shape) != shape[1:]:
            raise InputError(f"baseline {name} must have shape {shape[1:]}, not {tuple(values.shape)}")
        if not values.isfinite().all():
            raise InputError(f"baseline {name} holds NaN or infinite values")
    trained = {name: v.double().cpu().numpy() for name, v in log_prob.items() if v.isfinite().all()}
    failed = [name for name in log_prob if name not in trained]
    if not trained:
        raise InputError("every model failed, so there is none to recommend")
    names = list(trained)
    fixed = {name: np.tile(v.double().cpu().numpy(), (shape[0], 1)) for name, v in (baselines or {}).items()}
    drawn = _Resampling({**trained, **fixed}, num_resamples, seed)
    intervals = len(trained) + len(fixed) - 1
    tail = (1 - level) / 2 / max(1, intervals)
    mean = {name: values.mean() for name, values in trained.items()}
    best = max(names, key=lambda name: mean[name])
    simplest = names[0]

    def better(name: str, over: str) -> bool:
        return drawn.gain(name, over, tail)[1] > threshold

    choice = simplest
    if better(best, simplest):
        choice = next(n for n in names if n == best or (better(n, simplest) and not better(best, n)))
    rows = []
    for name in [*trained, *fixed]:
        gain, low, high = drawn.gain(name, simplest, tail)
        value = {**trained, **fixed}[name].mean()
        rows.append({"model": name, "log_prob": value, "gain": gain, "low": low, "high": high})
    gains = pd.DataFrame(rows)
    worst_case = max((row["high"] for row in rows[1 : len(trained)]), default=0.0)
    verdict = "better" if choice != simplest else "no difference" if worst_case <= threshold else "undecided"
    text = _text(verdict, choice, names, best, drawn, tail, threshold, level, shape)
    text += _about_baselines(list(fixed), choice, drawn, tail, threshold)
    winners = [name for name in fixed if all(better(name, over) for over in trained)]
    beaten_by = max(winners, key=lambda name: fixed[name].mean(), default="")
    if beaten_by:
        gain, low, high = drawn.gain(beaten_by, best, tail)
        text = (
            f"{beaten_by[0].upper()}{beaten_by[1:]}, a simpler model, is better than every model here, by {gain:.2f} "
            f"nats per datum (between {low:.2f} and {high:.2f}) over the best of them: use it, or train longer. Of the "
            f"models: {text[0].lower()}{text[1:]}"
        )
    if failed:
        text += f" Failed, and left out: {', '.join(failed)}."
    return Recommendation(choice, verdict, text, gains, beaten_by)


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

    def gain(self, name: str, over: str, tail: float) -> tuple[float, float, float]:
        """Mean gain of a model over another, and the interval that leaves ``tail`` on either side."""
        by_seed = self._of_seed[name] - self._of_seed[over]
        stderr = by_seed.std(ddof=1) / math.sqrt(len(by_seed))
        low, high = np.quantile(self._drawn[name] - self._drawn[over] + stderr * self._t, [tail, 1 - tail])
        return float(self._mean[name] - self._mean[over]), float(low), float(high)


def _text(
    verdict: str,
    choice: str,
    names: Sequence[str],
    best: str,
    drawn: _Resampling,
    tail: float,
    threshold: float,
    level: float,
    shape: tuple[int, ...],
) -> str:
    simplest = names[0]
    intervals = f"{level:.0%} intervals over {shape[0]} seeds and {shape[1]} test data"
    if len(names) == 1:
        return f"Take {choice}: it is the only model ({intervals})."
    gain, low, high = drawn.gain(choice if verdict == "better" else best, simplest, tail)
    by = f"{gain:+.2f} nats per datum (between {low:+.2f} and {high:+.2f})"
    if verdict == "better":
        text = f"Take {choice}: it gains {by} over {simplest}, more than the threshold of {threshold:g} ({intervals})."
        if best != choice:
            more, low, high = drawn.gain(best, choice, tail)
            text += (
                f" {best} has the largest mean, {more:+.2f} beside it (between {low:+.2f} and {high:+.2f}): no "
                "difference that would pay for it."
            )
        return text
    if verdict == "no difference":
        largest = "no other gains anything on average" if best == simplest else f"the most is {best}'s {by}"
        return (
            f"No difference within noise, take {choice}: no model gains more than the threshold of {threshold:g} nats "
            f"per datum over it; {largest} ({intervals})."
        )
    rivals = [name for name in names[1:] if drawn.gain(name, simplest, tail)[2] > threshold]
    return (
        f"No difference that these data and seeds can show, take {choice}: {', '.join(rivals)} may gain more than the "
        f"threshold of {threshold:g} nats per datum or nothing"
        + (f"; the most on average is {best}'s {by}" if best != simplest else "")
        + f" ({intervals}). More seeds or data would tell."
    )


def _about_baselines(baselines: Sequence[str], choice: str, drawn: _Resampling, tail: float, threshold: float) -> str:
    found: dict[str, list[tuple[float, str]]] = {"worse than": [], "not clearly apart from": [], "better than": []}
    for name in baselines:
        gain, low, high = drawn.gain(choice, name, tail)
        kind = "better than" if low > threshold else "worse than" if high < -threshold else "not clearly apart from"
        found[kind].append((gain, f"{name} ({gain:+.2f}, between {low:+.2f} and {high:+.2f})"))
    parts = []
    for kind, rivals in found.items():
        told = [text for _, text in sorted(rivals)]
        if kind == "better than" and len(told) > 1:  # the nearest will do
            told = [f"{told[0]} and {len(told) - 1} more"]
        parts += [f"{kind} {', '.join(told)}"] if told else []
    return f" Beside simpler models it is {'; '.join(parts)}." if parts else ""
