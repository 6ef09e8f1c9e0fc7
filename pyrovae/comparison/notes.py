"""Further remarks on a comparison: typed notes, which become text where they are shown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import torch
from torch import Tensor

from pyrovae.blocks import has_gaps
from pyrovae.comparison._data import PreparedData
from pyrovae.comparison._plan import ModelKey, Plan
from pyrovae.comparison._result import Results
from pyrovae.comparison.intervals import reach
from pyrovae.comparison.recommendation import MIN_DATA, Measure, Recommendation, Verdict
from pyrovae.datasets import SpectraSplit, SplitMethod, TrainingRows
from pyrovae.datasets.splitting import say_copies, say_groups, say_proposed
from pyrovae.linear_gaussian.baselines import Baseline, simple_candidates
from pyrovae.linear_gaussian.exact import LEAST_NOISE, data_covariance, most_latent_dims
from pyrovae.linear_gaussian.factor_model import FactorModel
from pyrovae.linear_gaussian.keys import linear_with
from pyrovae.linear_gaussian.shrunk_gaussian import ShrunkGaussian
from pyrovae.linear_gaussian.warm_start import linear_models

RISE = 1.0
"""Nats per datum by which a validation loss has diverged."""

SHARE_OF_BAD = 0.1
"""Share of test data with bad importance weights that is worth a note."""

_MOST_CHANNELS = 500
"""Linear models of more dimensions are tried for at most so many channels without missing values."""

_APART = 30.0
"""How many times the variance of copies, or of rounding, every other direction has."""


class NoteKind(StrEnum):
    """The subject of a note."""

    TRAINING_HARMED = "training did not help"
    VALIDATION_DIVERGED = "the validation loss diverged"
    LATENT_DIM_TOO_SMALL = "the latent dimension is too small"
    NO_GAIN_FROM_NETWORKS = "no gain from networks"
    BAD_WEIGHTS = "importance weights cannot be trusted"
    SCORED_TRAINING_ROWS = "scored rows include training rows"
    DEPENDENT_CHANNELS = "channels that follow from others"
    COPIES = "copies"
    PROPOSED_GROUPS = "columns that may name samples"
    GROUPS = "groups in the test data"
    ENOUGH_DATA = "how many data are enough"
    RESOLUTION = "smallest detectable difference"
    GAPS_LEFT_OUT = "gaps were left out"
    NO_LINEAR_MODELS = "no linear models"
    LINEAR_LEFT_OUT = "linear models were left out"
    LINEAR_ONLY = "only linear models"


_NAMED = 3
"""Most models that a note names."""


@dataclass(frozen=True)
class Note:
    """One note.

    Attributes:
        kind: what it is about.
        names: names of the models or columns that it is about.
        numbers: numbers by their meaning; gains are in nats per datum.
    """

    kind: NoteKind
    names: tuple[str, ...] = ()
    numbers: Mapping[str, float] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The note in a sentence or two."""
        n = self.numbers
        match self.kind:
            case NoteKind.COPIES:
                text = say_copies(round(n["equal"]), round(n["near"]), allowed=bool(n["allowed"]))
            case NoteKind.PROPOSED_GROUPS:
                text = say_proposed(self.names)
            case NoteKind.GROUPS:
                text = say_groups(SplitMethod(self.names[0]), round(n["num"]))
            case _:
                percent = 100 * n.get("share", 0)
                return _TEXTS[self.kind].format(*self.names, names=self._who(), percent=percent, **n)
        return f"{text[0].upper()}{text[1:]}."

    def _who(self) -> str:
        """The models by name; of more than three VAEs how many they are, since the table names them."""
        num, all_of_them = len(self.names), self.numbers.get("num_models")
        if num == all_of_them and num > 1:
            return f"any of the {num} VAEs" if self.kind is NoteKind.TRAINING_HARMED else f"all {num} VAEs"
        return f"{num} of the {all_of_them:.0f} VAEs" if all_of_them and num > _NAMED else "; ".join(self.names)

    def to_dict(self) -> dict[str, object]:
        """Plain values that JSON has."""
        numbers = {name: value if math.isfinite(value) else None for name, value in self.numbers.items()}
        return {"kind": str(self.kind), "names": list(self.names), "numbers": numbers, "text": self.text}


_TEXTS = {
    NoteKind.TRAINING_HARMED: (
        "Training did not help {names}: no epoch was better on the validation data than the start. Use a lower "
        "learning rate."
    ),
    NoteKind.VALIDATION_DIVERGED: (
        "The validation loss of {names} rose by {rise:.1f} nats per datum after its best epoch, {best_epoch:.0f} of "
        "{epochs:.0f}: the model overfits. The best epoch was kept; a lower learning rate may be better."
    ),
    NoteKind.LATENT_DIM_TOO_SMALL: (
        "The latent dimension may be too small: {0} is better than {1} by {gain:.2f} nats per datum (between {low:.2f} "
        "and {high:.2f}). It has {more:.0f} dimensions, not {latent_dim:.0f}. Try --latent-dim {more:.0f}."
    ),
    NoteKind.NO_GAIN_FROM_NETWORKS: (
        "No gain from networks can be shown: {0} is not clearly better than {1}, a linear model (gain {gain:+.2f} nats "
        "per datum, between {low:+.2f} and {high:+.2f})."
    ),
    NoteKind.BAD_WEIGHTS: (
        "Importance weights are unreliable for up to {percent:.0f} % of the test data ({0}): their log p(x) may be "
        "higher than estimated; train longer, or use more samples."
    ),
    NoteKind.SCORED_TRAINING_ROWS: (
        "{num:,.0f} of the {num_test:,.0f} test data are among the training data: their log p(x) is too high."
    ),
    NoteKind.DEPENDENT_CHANNELS: (
        "Channels that follow exactly from others, such as copies or sums: {num:.0f}. A density may have any value "
        "there, and gains may be too large. Leave them out."
    ),
    NoteKind.ENOUGH_DATA: (
        "About {num:,.0f} data of the same kind, split in the same way, would give enough test data ({least:.0f} "
        "independent ones)."
    ),
    NoteKind.RESOLUTION: (
        "{num_test:,.0f} independent test data can tell models apart that differ by {test:.2f} nats per datum or more, "
        "{num_validation:,.0f} validation data by {validation:.2f}."
    ),
    NoteKind.GAPS_LEFT_OUT: "The split of log p(x) − ELBO was left out: the budget is too short for it.",
    NoteKind.NO_LINEAR_MODELS: ("Linear models were not compared: their values are densities, and these are not."),
    NoteKind.LINEAR_LEFT_OUT: "The budget left no time for some linear models: {names}.",
    NoteKind.LINEAR_ONLY: "No VAEs were trained with this noise: {names}.",
}


def notes_of_data(data: PreparedData) -> list[Note]:
    """Whether test data were trained on, whether copies were kept together, and whether channels are copies or sums."""
    found, train = [], data.train
    if train.dim() == 2 and train.shape[1] <= min(len(train) - 1, _MOST_CHANNELS) and not has_gaps(train):
        dependent = _num_dependent(torch.linalg.eigvalsh(data_covariance(train)))
        if dependent:
            found.append(Note(NoteKind.DEPENDENT_CHANNELS, (), {"num": dependent}))
    num = 0 if data.truth is not None else TrainingRows.of(data.train).count_in(data.test)
    if num:
        found.append(Note(NoteKind.SCORED_TRAINING_ROWS, (), {"num": num, "num_test": len(data.test)}))
    if data.num_copies:
        found.append(Note(NoteKind.COPIES, (), {"equal": 0, "near": data.num_copies, "allowed": 0}))
    return found


def _num_dependent(values: Tensor) -> int:
    """How many directions have no variance, given a covariance's eigenvalues in ascending order.

    Smooth spectra have eigenvalues of every size down to their digits' rounding: those of copies lie apart.
    """
    floor = values.clamp_min(torch.finfo(values.dtype).eps * values[-1])
    (apart,) = (values[1:] > _APART * floor[:-1]).nonzero(as_tuple=True)
    small = apart[values[apart] <= LEAST_NOISE * values[-1]] + 1
    return int(small.max()) if len(small) else 0


def notes_of_runs(plan: Plan, results: Results, names: Mapping[ModelKey, str]) -> list[Note]:
    """Notes about the training of models, over their seeds."""
    if plan.data.validation is None:
        return []
    harmed, found, num_models = [], [], {"num_models": len(names)}
    for model, name in names.items():
        own = [results[cell].metrics for cell in results if cell.model == model and results[cell].failure is None]
        best = [_number(metrics.get("best_epoch")) for metrics in own]
        rise = max((_number(metrics.get("validation_rise")) for metrics in own), default=0.0)
        if own and not any(best):
            harmed.append(name)
        elif rise > RISE and max(best) < _number(own[0]["epochs"]) / 2:
            numbers = num_models | {"rise": rise, "best_epoch": max(best), "epochs": _number(own[0]["epochs"])}
            found.append(Note(NoteKind.VALIDATION_DIVERGED, (name,), numbers))
    worst = max(found, key=lambda note: note.numbers["rise"], default=None)
    if worst is not None:
        found = [Note(worst.kind, tuple(note.names[0] for note in found), worst.numbers)]
    return [*([Note(NoteKind.TRAINING_HARMED, tuple(harmed), num_models)] if harmed else []), *found]


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def notes_of_weights(results: Results, names: Mapping[ModelKey, str]) -> list[Note]:
    """Whether log p(x) of many test data is unreliable."""
    shares: dict[str, list[float]] = {name: [] for name in names.values()}
    for cell, result in results.items():
        shares[names[cell.model]].append(_number(result.metrics["test_log_marginal_unreliable_share"]))
    means = {name: sum(own) / len(own) for name, own in shares.items() if own and all(map(math.isfinite, own))}
    worst = max(means, key=means.__getitem__, default="")
    if not worst or means[worst] <= SHARE_OF_BAD:
        return []
    return [Note(NoteKind.BAD_WEIGHTS, (worst,), {"share": means[worst]})]


def notes_of_networks(advice: Recommendation) -> list[Note]:
    """Whether the chosen model is not clearly better than the best linear one."""
    if advice.verdict is Verdict.TOO_FEW or advice.measure is Measure.ELBO or not advice.against or advice.beaten_by:
        return []
    best = max(advice.against, key=_log_prob(advice).__getitem__)
    g = advice.against[best]
    if g.low > advice.threshold:
        return []
    numbers = {"gain": g.gain, "low": g.low, "high": g.high}
    return [Note(NoteKind.NO_GAIN_FROM_NETWORKS, (advice.choice, best), numbers)]


def notes_of_dimensions(
    plan: Plan, advice: Recommendation, choice: ModelKey | Baseline, baselines: Sequence[Baseline]
) -> list[Note]:
    """Whether a linear model with more dimensions is better than the chosen model, or than the linear one like it."""
    chosen = choice.model if isinstance(choice, Baseline) else choice
    if advice.verdict is Verdict.TOO_FEW or advice.measure is Measure.ELBO or chosen is None:
        return []
    larger = {
        b.name: b.model.latent_dim
        for b in baselines
        if isinstance(b.model, FactorModel) and b.model.latent_dim > chosen.latent_dim and b.name in advice.against
    }
    better = [name for name in larger if advice.against[name].high < -advice.threshold]
    if not better:
        return _of_twice_the_dimensions(plan, choice, advice)
    best = max(better, key=_log_prob(advice).__getitem__)
    g = advice.against[best]
    numbers = {"latent_dim": chosen.latent_dim, "more": larger[best], "gain": -g.gain, "low": -g.high, "high": -g.low}
    return [Note(NoteKind.LATENT_DIM_TOO_SMALL, (best, advice.choice), numbers)]


def _log_prob(advice: Recommendation) -> dict[str, float]:
    return {row.model: row.log_prob for row in advice.by_model}


def _of_twice_the_dimensions(plan: Plan, choice: ModelKey | Baseline, advice: Recommendation) -> list[Note]:
    """Whether the linear model with the same noise and twice as many dimensions is better on validation data."""
    train, validation = plan.data.train, plan.data.validation
    if isinstance(choice, Baseline):
        key, linear = choice.key, choice.model
    else:
        key = linear_with(choice.likelihood)
        linear = (plan.linear or {}).get((choice.likelihood, choice.latent_dim))
    if linear is None or validation is None or train.shape[1] > _MOST_CHANNELS or has_gaps(train):
        return []
    d = min(2 * linear.latent_dim, most_latent_dims(data_covariance(train)))
    if d <= linear.latent_dim or key.by_validation:
        return []
    more: FactorModel | ShrunkGaussian | None = None
    if key.noise is None:
        more = next((b.model for b in simple_candidates(train, d) if b.key == key), None)
    elif key.noise in {cell.likelihood for cell in plan.cells}:  # not one that a budget leaves to linear models
        noise = {key.noise: plan.settings.named_likelihoods[key.noise]}
        more = linear_models(train, noise, [d], validation, progress=False)[key.noise, d]
    if more is None:  # a Gaussian has no components
        return []
    gains = more.log_prob(validation) - linear.log_prob(validation)
    x = gains.double().numpy()[None].repeat(2, 0)
    below, above = reach(x, (1 - advice.level) / 2)
    gain = float(x.mean())
    if not (len(gains) >= MIN_DATA and gain - below > advice.threshold):
        return []
    numbers = {"latent_dim": linear.latent_dim, "more": d, "gain": gain}
    numbers |= {"low": gain - float(below), "high": gain + float(above)}
    return [
        Note(NoteKind.LATENT_DIM_TOO_SMALL, ("a larger linear model of the same noise", "the smaller one"), numbers)
    ]


def notes_of_copies(split: SpectraSplit) -> list[Note]:
    """Notes about copies, columns that may name samples, and groups."""
    found = []
    if split.num_copies or split.num_near:
        numbers = {"equal": split.num_copies, "near": split.num_near, "allowed": float(split.allow_replicates)}
        found.append(Note(NoteKind.COPIES, (), numbers))
    if split.proposed:
        found.append(Note(NoteKind.PROPOSED_GROUPS, split.proposed))
    if split.num_test_groups is not None:
        found.append(Note(NoteKind.GROUPS, (str(split.method),), {"num": split.num_test_groups}))
    return found


def notes_of_split(split: SpectraSplit, advice: Recommendation, num_validation: int) -> list[Note]:
    """Notes about the split and the differences that its sizes can detect."""
    found = notes_of_copies(split)
    if advice.num_groups < MIN_DATA and split.method is not SplitMethod.DAYS:
        found.append(Note(NoteKind.ENOUGH_DATA, (), {"num": split.num_enough(MIN_DATA), "least": MIN_DATA}))
    elif math.isfinite(advice.deviation):
        validation = round(num_validation * advice.num_groups / advice.num_data)
        numbers: dict[str, float] = {"num_test": advice.num_groups, "test": advice.resolution(advice.num_groups)}
        numbers |= {"num_validation": validation, "validation": advice.resolution(validation)}
        found.append(Note(NoteKind.RESOLUTION, (), numbers))
    return found
