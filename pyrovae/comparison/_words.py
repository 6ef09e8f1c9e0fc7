"""The parts of models in words, for readers who do not know the library's names."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from pyrovae.comparison._plan import GIVEN, ModelKey
from pyrovae.likelihoods import LIKELIHOODS, Likelihood
from pyrovae.linear_gaussian.baselines import Baseline
from pyrovae.linear_gaussian.factor_model import FactorModel
from pyrovae.linear_gaussian.keys import LinearKey, LinearKind
from pyrovae.linear_gaussian.shrunk_gaussian import ShrunkGaussian


@dataclass(frozen=True)
class Words:
    """A part of a model in words.

    Attributes:
        name: its words in a candidate's name.
        meaning: one sentence that explains it.
    """

    name: str
    meaning: str


NOISES = {
    "gaussian": Words("equal noise", "the errors of all channels are independent and have the same size"),
    "gaussian-per-dimension": Words(
        "channel-wise noise", "the errors are independent, and each channel has its own error size"
    ),
    "gaussian-per-datum": Words(
        "noise that differs by spectrum", "the errors are independent, and their size depends on the spectrum"
    ),
    "ar1": Words(
        "drifting noise",
        "errors of one size that drift along the axis: neighbours have similar errors (autoregressive, order 1)",
    ),
    "ar1-per-dimension": Words(
        "channel-wise drifting noise",
        "errors that drift along the axis (autoregressive, order 1), and each channel has its own error size",
    ),
    "ar1-per-datum": Words(
        "drifting noise that differs by spectrum",
        "errors that drift along the axis (autoregressive, order 1), by an amount that depends on the spectrum",
    ),
    "low-rank": Words("noise in a few patterns", "errors that follow a few patterns across all channels"),
    "low-rank-per-datum": Words(
        "noise in a few patterns that differ by spectrum", "errors in a few patterns, which depend on the spectrum"
    ),
    "full-covariance": Words(
        "freely correlated noise", "the errors of any two channels may be correlated (full covariance)"
    ),
    "full-covariance-per-datum": Words(
        "freely correlated noise that differs by spectrum", "full covariance that depends on the spectrum"
    ),
    "bernoulli": Words("yes-or-no values", "each value is 0 or 1 (Bernoulli)"),
    "bernoulli-soft-targets": Words("values between no and yes", "each value in [0, 1] is scored as a probability"),
    "continuous-bernoulli": Words("values from 0 to 1", "each value has the density of a continuous Bernoulli"),
    "poisson": Words("counting noise", "each value is a count whose variance is its mean (Poisson)"),
    "negative-binomial": Words(
        "wide counting noise", "each value is a count whose variance is larger than its mean (negative binomial)"
    ),
}
"""Noises, p(x|z), by their names on the command line."""

SHAPES = {
    "isotropic": Words("a round posterior", "equally uncertain in every latent direction"),
    "diagonal": Words("an independent posterior", "the latent values’ uncertainties are independent of each other"),
    "ar1": Words("a chained posterior", "the uncertainties of neighbouring latent values are correlated, all equally"),
    "ar1-per-dimension": Words(
        "a chained posterior of several sizes",
        "neighbouring latent values are correlated, and each has its own uncertainty",
    ),
    "ar1-per-step": Words(
        "a freely chained posterior", "neighbouring latent values are correlated, each pair differently"
    ),
    "low-rank": Words("a nearly independent posterior", "uncertainties that are correlated in a few directions"),
    "full-covariance": Words("a correlated posterior", "the uncertainties of latent values may be correlated"),
    "flow": Words("a posterior of any shape", "uncertainty of a shape that need not be Gaussian (normalising flow)"),
}
"""Families of posteriors, q(z|x), by their names on the command line."""

ESTIMATORS = {
    "monte-carlo": Words("trained by random draws", "the training’s target is estimated by random draws"),
    "analytic": Words("trained with exact divergences", "the distance to the prior is computed, not drawn"),
    "closed-form-entropy": Words("trained with exact entropies", "the posterior’s entropy is computed, not drawn"),
    "sticking-the-landing": Words("trained by path gradients", "random draws, with gradients of less noise"),
    "importance-weighted": Words("trained by weighted draws", "several weighted draws for each spectrum"),
    "doubly-reparameterized": Words(
        "trained by weighted draws with path gradients", "several weighted draws, with gradients of less noise"
    ),
}
"""Estimators of the training's target, by their names on the command line."""

LINEAR = {
    LinearKind.PROBABILISTIC_PCA: Words("probabilistic PCA", "principal components with equal noise in all channels"),
    LinearKind.FACTOR_ANALYSIS: Words(
        "factor analysis", "linear components, with its own independent noise in each channel"
    ),
    LinearKind.SHRUNK_GAUSSIAN: Words(
        "Gaussian without components", "no components: a Gaussian whose covariance is shrunk towards a simpler model’s"
    ),
}
"""Kinds of linear models of one noise."""


def in_words(parts: Mapping[str, Words], name: str) -> str:
    """A part's name in words; a user's own name stays the same."""
    return parts[name].name if name in parts else name


def name_of_model(model: ModelKey, all_models: list[ModelKey]) -> str:
    """A VAE's name in words, without the parts that all share."""
    name = f"VAE with {in_words(SHAPES, model.posterior)}"
    if model.likelihood != GIVEN:
        name = f"VAE with {in_words(NOISES, model.likelihood)}"
        if len({other.posterior for other in all_models}) > 1:
            name += f" and {in_words(SHAPES, model.posterior)}"
    if len({other.estimator for other in all_models}) > 1:
        name += f", {in_words(ESTIMATORS, model.estimator)}"
    if len({other.latent_dim for other in all_models}) > 1:
        name += f", {components(model.latent_dim)}"
    if len({other.prior for other in all_models}) > 1:
        name += f", {model.prior} prior"
    return name


def name_of_linear(key: LinearKey, latent_dim: int | None = None) -> str:
    """A linear model's name in words, with its number of components if validation data chose it.

    Example:
        >>> from pyrovae.linear_gaussian.keys import PCA_BY_VALIDATION
        >>> print(name_of_linear(PCA_BY_VALIDATION, 3), name_of_linear(PCA_BY_VALIDATION), sep="; ")
        probabilistic PCA with 3 components; probabilistic PCA with as many components as validation data prefer
    """
    parts = [] if key.noise is None else [in_words(NOISES, key.noise)]
    if key.by_validation:
        chosen = "as many components as validation data prefer"
        parts.append(chosen if latent_dim is None else components(latent_dim))
    name = "linear model" if key.kind is LinearKind.OF_LIKELIHOOD else LINEAR[key.kind].name
    return f"{name} with {' and '.join(parts)}" if parts else name


def name_of_baseline(baseline: Baseline) -> str:
    """A fitted linear model's name in words."""
    return name_of_linear(baseline.key, None if baseline.model is None else baseline.model.latent_dim)


def spoken(text: str, words: Mapping[str, str]) -> str:
    """A text with candidates' names replaced by words.

    Args:
        text: with names as they are in files.
        words: for each of these names.

    Example:
        >>> spoken("Take linear, ar1.", {"linear, ar1": "linear model with drifting noise"})
        'Take linear model with drifting noise.'
    """
    names = "|".join(map(re.escape, sorted(words, key=len, reverse=True)))
    return re.sub(rf"(?<![\w-])({names})(?![\w-])", lambda match: words[match[0]], text) if names else text


def note_of_baseline(baseline: Baseline) -> str:
    """What validation data chose for a linear model, in words; empty if nothing."""
    model = baseline.model
    if isinstance(model, ShrunkGaussian):
        return f"its covariance is {model.share:.2g} times that of {_target(model.target)}, plus a share of the data’s"
    if baseline.key.by_validation:
        return "the validation data chose the number of components"
    return ""


def _target(model: FactorModel) -> str:
    if model.latent_dim == 0:
        return "independent channels"
    return f"a linear model with {noise_of(model.likelihood)} and {components(model.latent_dim)}"


def noise_of(likelihood: Likelihood) -> str:
    """A likelihood's name in words."""

    def kind(one: Likelihood) -> tuple[object, ...]:
        return type(one), getattr(one, "scale", None), getattr(one, "covariance", None)

    return next(
        (NOISES[name].name for name, make in LIKELIHOODS.items() if kind(make(1, 2)) == kind(likelihood)), "noise"
    )


def the(name: str) -> str:
    """A candidate's name in a sentence."""
    return f"the {name}" if name.startswith(("VAE", "linear", "Gaussian")) else name


def upper(text: str) -> str:
    """A text at the beginning of a sentence."""
    return text[:1].upper() + text[1:]


def components(num: int) -> str:
    """``"1 component"`` or ``"6 components"``."""
    return f"{num} component" if num == 1 else f"{num} components"


def nats(value: float, error: float | None = None) -> str:
    """A number of nats, with as many decimals as its error justifies.

    Example:
        >>> nats(25.234, 2.1), nats(-0.4321, 0.01), nats(1234.5)
        ('25', '−0.432', '1,234')
    """
    error = abs(value) / 30 if error is None else error
    decimals = 0 if error >= 1.5 else 1 if error >= 0.15 else 2 if error >= 0.015 else 3
    return f"{value:,.{decimals}f}".replace("-", "−").replace("inf", "∞")
