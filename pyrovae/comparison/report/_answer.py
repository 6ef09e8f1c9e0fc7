"""The text of a study's report: the answer in one sentence, and its meaning for the reader."""

import math
from collections.abc import Iterable
from dataclasses import replace

from pyrovae.comparison._words import nats, the, upper
from pyrovae.comparison.recommendation import MIN_DATA, Gain, Limit, Recommendation, Verdict
from pyrovae.comparison.report._candidates import Candidate
from pyrovae.comparison.study_result import StudyResult


def of_one(result: StudyResult) -> str:
    """What one datum is called: ``"spectrum"`` or ``"image"``."""
    return "image" if result.data.unit == "pixel" else "spectrum"


def of_many(result: StudyResult) -> str:
    """What several data are called."""
    return "images" if result.data.unit == "pixel" else "spectra"


def interval(gain: Gain, level: float) -> str:
    """An interval in words: ``"95 % interval 23 to 27"``; empty where there is none."""
    error = (gain.high - gain.low) / 2
    if error != error:
        return ""
    return f"{100 * level:g}\u00a0% interval {nats(gain.low, error)} to {nats(gain.high, error)}"


def value(gain: Gain) -> str:
    """A gain, with as many decimals as its interval justifies."""
    error = (gain.high - gain.low) / 2
    return nats(gain.gain, None if error != error else error)


def answer(result: StudyResult, candidates: list[Candidate]) -> str:
    """Which candidate to take and by how much it is better, in one sentence."""
    advice, by_key = result.recommendation, {one.key: one for one in candidates}
    choice, simplest = the(by_key[advice.choice].name), the(by_key[advice.simplest].name)
    one, many = of_one(result), of_many(result)
    if advice.verdict is Verdict.TOO_FEW:
        return f"Too few {many} to say which candidate is best. Until there are more, take the simplest, {choice}."
    if len(advice.by_model) == 1:
        return f"Take {choice}: it is the only candidate."
    if advice.verdict is Verdict.BETTER:
        gain = by_key[advice.choice].gain
        assert gain is not None
        return (
            f"Take {choice}: better than the simplest candidate, {simplest}, by {value(gain)} nats per {one} "
            f"({interval(gain, advice.level)})."
        )
    if advice.verdict is Verdict.NO_DIFFERENCE:
        return (
            f"Take {choice}, the simplest candidate: none of the others is better by more than "
            f"{advice.threshold:g} nats per {one}."
        )
    rivals = _listed(the(by_key[key].name) for key in advice.rivals)
    most = max(gain.high for gain in (by_key[key].gain for key in advice.rivals) if gain is not None)
    return (
        f"Take {choice}, the simplest candidate, for now: these data cannot tell whether {rivals} would be better"
        + (f", perhaps by up to {nats(most)} nats per {one}." if math.isfinite(most) else ".")
    )


def meaning(result: StudyResult, candidates: list[Candidate]) -> list[str]:
    """Consequences of the answer, a sentence or two each."""
    advice, by_key = result.recommendation, {one.key: one for one in candidates}
    choice = by_key[advice.choice]
    if advice.verdict is Verdict.TOO_FEW:
        return [_what_is_too_few(result)]
    said = [
        _of_simpler_models(result, by_key),
        _of_the_best(result, by_key),
        _of_noise(result, choice, candidates),
        _of_networks(result, choice, candidates),
        _of_posteriors(result, choice, candidates),
        _of_encoder(result, choice),
        _what_would_tell(result) if advice.verdict is Verdict.UNDECIDED else "",
    ]
    return [text for text in said if text]


def _what_is_too_few(result: StudyResult) -> str:
    advice = result.recommendation
    needed = []
    if advice.num_groups < MIN_DATA:
        what = of_many(result) if advice.num_groups == advice.num_data else "independent groups of them"
        needed.append(f"{advice.num_groups} {what} to test on, and it takes at least {MIN_DATA}")
    if advice.num_seeds < 2:
        needed.append("one training of each candidate, and it takes at least two (--seeds 2)")
    return f"There are only {'; '.join(needed)}. The dots above are measured, but their uncertainty is not known."


def _of_simpler_models(result: StudyResult, by_key: dict[str, Candidate]) -> str:
    advice, gain = result.recommendation, result.recommendation.beaten_by_gain
    if gain is None:
        return ""
    return (
        f"But {the(by_key[advice.beaten_by].name)}, which needs no network, is better than every VAE here, by "
        f"{value(gain)} nats per {of_one(result)} ({interval(gain, advice.level)}): use it, or train longer."
    )


def _of_the_best(result: StudyResult, by_key: dict[str, Candidate]) -> str:
    advice: Recommendation = result.recommendation
    if advice.verdict is not Verdict.BETTER or advice.best == advice.choice:
        return ""
    gain = advice.best_over_choice
    return (
        f"{upper(the(by_key[advice.best].name))} has a higher mean, by {value(gain)} nats "
        f"({interval(gain, advice.level)}), but not clearly higher; of such candidates the simplest is recommended."
    )


def _of_noise(result: StudyResult, choice: Candidate, candidates: list[Candidate]) -> str:
    """Whether errors are correlated between channels: the choice and the best of its kind that differs in this."""
    alike = [one for one in candidates if one.is_like(choice)]
    other = _best(one for one in alike if one.has_correlated_noise != choice.has_correlated_noise)
    if other is None:
        return ""
    better = _clearly(other, result)
    if choice.has_correlated_noise and better:
        return (
            "The errors of different channels are correlated: models with independent errors are worse, the best of "
            f"them ({the(other.name)}) by {better}. Be careful with methods that treat the channels as independent, "
            "such as a sum of squares."
        )
    if choice.has_correlated_noise:
        return f"It is not clear whether errors are correlated: {the(other.name)} is not clearly worse."
    return f"Noise that is correlated between channels brings no clear gain: {the(other.name)} is not clearly better."


def _of_networks(result: StudyResult, choice: Candidate, candidates: list[Candidate]) -> str:
    """Whether networks are better than a linear model."""
    other = _best(one for one in candidates if (one.baseline is None) != (choice.baseline is None))
    if other is None or result.recommendation.beaten_by:
        return ""
    better = _clearly(other, result)
    if choice.baseline is None:
        if better:
            return f"The neural networks help: the best linear model, {the(other.name)}, is worse by {better}."
        return f"The neural networks bring no clear gain: {the(other.name)}, a linear model, is not clearly worse."
    if better:
        return f"No neural network is needed: the best VAE, {the(other.name)}, is worse by {better}."
    return f"No neural network is needed: the best VAE, {the(other.name)}, is not clearly better."


def _of_posteriors(result: StudyResult, choice: Candidate, candidates: list[Candidate]) -> str:
    """Whether the shape of the posterior matters."""
    if choice.model is None:
        return ""
    mine = choice.model
    other = _best(
        one
        for one in candidates
        if one.model is not None and replace(one.model, posterior=mine.posterior) == mine and one.model != mine
    )
    if other is None:
        return ""
    better = _clearly(other, result)
    if better:
        return f"The posterior’s shape matters: {the(other.name)} is worse by {better}."
    return f"The posterior’s shape makes no clear difference: {the(other.name)} is about as good."


def _of_encoder(result: StudyResult, choice: Candidate) -> str:
    """The loss of the chosen VAE's encoder, if it is large."""
    if choice.model is None:
        return ""
    lost = float(result.table.set_index("model")["lost_by_encoder"][choice.key])
    if not lost > 10 * result.recommendation.threshold:
        return ""
    return (
        f"The encoder is not as good as the model: it loses {nats(lost)} nats per {of_one(result)} of new data. This "
        "does not affect scores, but it affects latent values. Training it again helps (--refit-epochs 30)."
    )


def _clearly(other: Candidate, result: StudyResult) -> str:
    """By how much the choice is clearly better than another candidate; empty if it is not."""
    if other.behind is None or not other.behind.low > result.recommendation.threshold:
        return ""
    return f"{value(other.behind)} nats ({interval(other.behind, result.recommendation.level)})"


def _what_would_tell(result: StudyResult) -> str:
    advice = result.recommendation
    if advice.limit is Limit.SEEDS:
        return "More trainings of each candidate would decide it (--seeds)."
    if advice.limit is Limit.ESTIMATE:
        return "More draws for the scores would decide it (--log-marginal-samples)."
    what = of_many(result) if advice.num_groups == advice.num_data else "independent groups"
    return f"About {advice.num_enough:,} {what} to test on would decide it, if the gain stays the same."


def _best(candidates: Iterable[Candidate]) -> Candidate | None:
    known = ((one.gain.gain, one) for one in candidates if one.gain is not None)
    return max(known, key=lambda pair: pair[0], default=(0.0, None))[1]


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    if len(names) > 3:
        return f"{names[0]} or {len(names) - 1} others"
    return " or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
