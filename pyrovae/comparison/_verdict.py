"""The outcome of a comparison, as values and in words."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

MIN_DATA = 20
"""Smallest number of independent test data for an interval."""

MIN_SEEDS = 2
"""Smallest number of seeds for an interval."""


class Verdict(StrEnum):
    """The outcome of a comparison."""

    BETTER = "better"
    """The choice is better than all simpler models by more than the threshold."""
    NO_DIFFERENCE = "no difference"
    """No model gains more than the threshold over the simplest."""
    UNDECIDED = "undecided"
    """A model may gain more than the threshold, and these data and seeds cannot tell."""
    TOO_FEW = "too few"
    """There are too few test data or seeds for a conclusion."""


class Measure(StrEnum):
    """The quantity by which models are compared."""

    LOG_PROB = "log p(x)"
    ELBO = "ELBO"


class Limit(StrEnum):
    """What an undecided comparison needs more of."""

    DATA = "test data"
    """More test data would decide it."""
    SEEDS = "seeds"
    """The seeds differ too much for any number of data to decide it."""
    ESTIMATE = "estimate of log p(x)"
    """The errors of the log p(x) estimates may be larger than the gain."""


@dataclass(frozen=True)
class Gain:
    """A mean gain in nats per datum, and its interval; NaN if there are too few data or seeds."""

    gain: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.gain:+.2f} nats per datum (between {self.low:+.2f} and {self.high:+.2f})"


@dataclass(frozen=True)
class ModelGain(Gain):
    """A model's or a baseline's gain over the simplest model.

    Attributes:
        model: its name.
        log_prob: its mean log p(x) in nats per datum.
        bias: how far it may be below the true mean because of the estimation method.
    """

    model: str
    log_prob: float
    bias: float


@dataclass(frozen=True, repr=False)
class Recommendation:
    """Which model to take, and why.

    Attributes:
        choice: name of the model.
        verdict: see :class:`Verdict`.
        best: name of the model with the largest mean.
        by_model: each model, then each baseline, with its gain over the simplest model.
        best_over_choice: gain of the best model over the choice.
        rivals: names of the models that may gain more than the threshold over the simplest.
        against: gain of the choice over each baseline, by the baseline's name.
        beaten_by: the best baseline that is better than every model; empty if there is none.
        beaten_by_gain: its gain over the best model; None if there is none.
        failed: names of the models that failed, and were left out.
        threshold: nats per datum below which there is no difference.
        level: joint probability of all intervals.
        num_seeds: number of seeds.
        num_data: number of test data.
        measure: what the models are compared by.
        num_groups: number of groups of test data that are independent of each other.
        limit: for an undecided comparison, what would separate the best rival from the simplest model; otherwise None.
        num_enough: about how many groups would be enough if its gain is the true one; 0 if more data would not help.
        deviation: standard deviation of the gains over the groups, the median of all models; NaN for a single model.
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
    num_groups: int = 0
    limit: Limit | None = None
    num_enough: int = 0
    deviation: float = math.nan

    @property
    def gains(self) -> pd.DataFrame:
        """One row per model: ``log_prob``, its mean in nats per datum, its ``bias``, and its ``gain``, bounded."""
        import pandas as pd

        columns = ["model", "log_prob", "bias", "gain", "low", "high"]
        return pd.DataFrame([asdict(row) for row in self.by_model])[columns]

    @property
    def simplest(self) -> str:
        """Name of the simplest model that was trained."""
        return self.by_model[0].model

    def resolution(self, num: int) -> float:
        """The smallest mean gain in nats per datum between two models that ``num`` independent data can detect."""
        from scipy.special import stdtrit

        if num < 2:
            return math.inf
        return float(stdtrit(num - 1, (1 + self.level) / 2)) * self.deviation / math.sqrt(num)

    @property
    def text(self) -> str:
        """The reasons, in a few sentences."""
        if self.verdict is Verdict.TOO_FEW:
            return self._with_failures(self._too_few())
        text = " ".join(filter(None, [self._reasons(), self._beside_baselines()]))
        if self.beaten_by_gain is not None:
            g, winner = self.beaten_by_gain, f"{self.beaten_by[0].upper()}{self.beaten_by[1:]}"
            text = (
                f"{winner}, a simpler model, is better than every model here, by {g.gain:.2f} nats per datum (between "
                f"{g.low:.2f} and {g.high:.2f}) over the best of them: use it, or train longer. Of the models: "
                f"{text[0].lower()}{text[1:]}"
            )
        text = self._with_failures(text)
        if self.measure is Measure.ELBO:
            text += " Gains are in the ELBO: log p(x) is the same for every guide of one model."
        return text

    def _with_failures(self, text: str) -> str:
        return f"{text} Failed, and left out: {', '.join(self.failed)}." if self.failed else text

    @property
    def _seen(self) -> str:
        groups = f" in {self.num_groups} groups" if self.num_groups < self.num_data else ""
        return f"{_counted(self.num_seeds, 'seed')} and {self.num_data} test data{groups}"

    def _too_few(self) -> str:
        needed = []
        if self.num_groups < MIN_DATA:
            what = "test data" if self.num_groups == self.num_data else "independent groups of test data"
            needed.append(f"at least {MIN_DATA} {what}")
        if self.num_seeds < MIN_SEEDS:
            needed.append(f"at least {MIN_SEEDS} seeds")
        several = len(self.by_model) > 1
        what = "Too few to say which model is better" if several else "Too few to judge the model"
        kind = "the simplest model" if len(self.by_model) - len(self.against) > 1 else "the only model"
        return f"{what}: {self._seen}; it takes {' and '.join(needed)}. Until then, take {self.choice}, {kind}."

    def _reasons(self) -> str:
        intervals = f"{100 * self.level:.0f} % intervals over {self._seen}"
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
                    f" {self.best} has the largest mean, {more.gain:+.2f} compared with it (between {more.low:+.2f} "
                    f"and {more.high:+.2f}), which does not justify a more complex model."
                )
            return text
        best_is_simplest = self.best == self.simplest
        if self.verdict is Verdict.NO_DIFFERENCE:
            largest = "no other model gains anything on average"
            if not best_is_simplest:
                largest = f"the largest gain is that of {self.best}, {gains[self.best]}"
            return (
                f"No difference within noise, take {self.choice}: no model gains more than the threshold of "
                f"{self.threshold:g} nats per datum over it; {largest} ({intervals})."
            )
        most = "" if best_is_simplest else f"; the largest average gain is that of {self.best}, {gains[self.best]}"
        return (
            f"Undecided with these data and seeds, take {self.choice}: {', '.join(self.rivals)} may gain more than the "
            f"threshold of {self.threshold:g} nats per datum, or nothing{most} ({intervals}). {self._what_would_tell()}"
        )

    def _what_would_tell(self) -> str:
        if self.limit is Limit.ESTIMATE:
            worst = max(self.by_model, key=lambda row: row.bias)
            off = f"{worst.bias:.2f} nats" if math.isfinite(worst.bias) else "far"
            return (
                f"The estimate of log p(x) is too uncertain ({worst.model}'s may be {off} too low): "
                "more draws of z, or a better method, would decide it."
            )
        if self.limit is Limit.SEEDS:
            return "More seeds would decide it."
        what = "test data" if self.num_groups == self.num_data else "groups of test data"
        return f"About {self.num_enough:,} {what} would decide it, if the gain stays the same."

    def _beside_baselines(self) -> str:
        kinds: dict[str, list[str]] = {"worse than": [], "not clearly apart from": [], "better than": []}
        for name, g in sorted(self.against.items(), key=lambda item: (item[1].gain, item[0])):
            kind = "better than" if g.low > self.threshold else "not clearly apart from"
            kind = "worse than" if g.high < -self.threshold else kind
            kinds[kind].append(f"{name} ({g.gain:+.2f}, between {g.low:+.2f} and {g.high:+.2f})")
        if len(better := kinds["better than"]) > 1:  # the nearest is enough
            kinds["better than"] = [f"{better[0]} and {len(better) - 1} more"]
        parts = [f"{kind} {', '.join(said)}" for kind, said in kinds.items() if said]
        return f"Compared with simpler models it is {'; '.join(parts)}." if parts else ""

    def to_dict(self) -> dict[str, object]:
        """Plain values that JSON has: choice, verdict, text, gains, beaten_by, and the numbers of data and seeds."""
        return {
            "choice": self.choice,
            "verdict": str(self.verdict),
            "text": self.text,
            "gains": [{name: _plain(value) for name, value in row.items()} for row in self.gains.to_dict("records")],
            "beaten_by": self.beaten_by,
            "num_seeds": self.num_seeds,
            "num_data": self.num_data,
            "num_groups": self.num_groups,
            "limit": None if self.limit is None else str(self.limit),
            "num_enough": self.num_enough,
        }

    def __repr__(self) -> str:
        return f"Recommendation({self.choice!r}, {self.verdict}: {self.text})"


def _counted(num: int, what: str) -> str:
    return f"{num} {what}" if num == 1 else f"{num} {what}s"


def _plain(value: object) -> object:
    """None in place of a number that JSON does not have."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
