"""The candidates of a study as its report shows them: names in words, gains, and what each is."""

from collections.abc import Sequence
from dataclasses import dataclass

from pyrovae.comparison._measures import marginal_of
from pyrovae.comparison._plan import ModelKey
from pyrovae.comparison.recommendation import Gain, recommend
from pyrovae.comparison.study_result import StudyResult
from pyrovae.evaluation import LogMarginal
from pyrovae.linear_gaussian.baselines import Baseline


@dataclass(frozen=True)
class Candidate:
    """One candidate.

    Attributes:
        key: its name in files.
        name: its name in words.
        gain: over the simplest candidate; None if it failed.
        behind: how much better the choice is; None if either failed.
        model: which VAE it is; None of a linear model.
        baseline: which linear model it is; None of a VAE.
        has_correlated_noise: whether errors are correlated between channels; True for a Gaussian without components.
    """

    key: str
    name: str
    gain: Gain | None
    behind: Gain | None
    model: ModelKey | None
    baseline: Baseline | None
    has_correlated_noise: bool

    def is_like(self, other: "Candidate") -> bool:
        """Whether the two are of one kind: both linear, or VAEs with posteriors of one family."""
        mine, its = (None if one.model is None else one.model.posterior for one in (self, other))
        return mine == its


def candidates_of(result: StudyResult) -> list[Candidate]:
    """Every candidate, in the order of the study's table."""
    gains = {row.model: row for row in result.recommendation.by_model}
    behind = _behind(result)
    names, words = {key: model for model, key in result.names.items()}, result.words
    baselines = {baseline.name: baseline for baseline in result.baselines}
    found = []
    for key in result.table["model"]:
        model, baseline, row = names.get(key), baselines.get(key), gains.get(key)
        if baseline is not None:
            correlated = _is_correlated(baseline)
        else:
            assert model is not None
            likelihoods = result.study.settings.named_likelihoods
            correlated = model.likelihood in likelihoods and likelihoods[model.likelihood](1, 2).is_correlated
        found.append(Candidate(key, words[key], row, behind.get(key), model, baseline, correlated))
    return found


def _is_correlated(baseline: Baseline) -> bool:
    likelihood = getattr(baseline.model, "likelihood", None)
    return baseline.model is not None and (likelihood is None or likelihood.is_correlated)


def _behind(result: StudyResult) -> dict[str, Gain]:
    """How much better the choice is than each other candidate; the intervals hold jointly."""
    results, samples = result.comparison.results, result.plan.settings.log_marginal_samples
    scores: dict[str, Sequence[LogMarginal]] = {}
    for model, key in result.names.items():
        tables = [results[cell].scores for cell in result.models[model]]
        scores[key] = [marginal_of(table, samples) for table in tables if table is not None]
    num_seeds = len(result.study.settings.seeds)
    exact = [baseline for baseline in result.baselines if baseline.log_prob is not None]
    scores |= {one.name: [LogMarginal.exact(one.log_prob)] * num_seeds for one in exact}  # type: ignore[arg-type]
    choice = result.recommendation.choice
    failed = result.recommendation.failed
    others = {key: values for key, values in scores.items() if key != choice and key not in failed}
    found = recommend({choice: scores[choice], **others}, groups=result.plan.data.test_groups)
    return {row.model: Gain(-row.gain, -row.high, -row.low) for row in found.by_model}
