"""Which linear model: its identity, whose text is its name in tables and on the command line."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TypeVar

T = TypeVar("T")


class LinearKind(StrEnum):
    """Kinds of linear models, by their names."""

    PCA = "PCA"
    PROBABILISTIC_PCA = "probabilistic PCA"
    FACTOR_ANALYSIS = "factor analysis"
    OF_LIKELIHOOD = "linear"
    SHRUNK_GAUSSIAN = "Gaussian, shrunk covariance"


@dataclass(frozen=True)
class LinearKey:
    """Which linear model.

    Attributes:
        kind: its kind.
        noise: name of the likelihood whose noise it has; None for the kinds that have one noise alone.
        by_validation: whether validation data chose the number of components.

    Example:
        >>> print(linear_with("ar1"), PCA_BY_VALIDATION, sep="; ")
        linear, ar1; probabilistic PCA, d by validation
    """

    kind: LinearKind
    noise: str | None = None
    by_validation: bool = False

    def __str__(self) -> str:
        return ", ".join([self.kind, *([self.noise] if self.noise else []), *["d by validation"] * self.by_validation])


PCA = LinearKey(LinearKind.PCA)
PROBABILISTIC_PCA = LinearKey(LinearKind.PROBABILISTIC_PCA)
FACTOR_ANALYSIS = LinearKey(LinearKind.FACTOR_ANALYSIS)
PCA_BY_VALIDATION = LinearKey(LinearKind.PROBABILISTIC_PCA, by_validation=True)
SHRUNK_GAUSSIAN = LinearKey(LinearKind.SHRUNK_GAUSSIAN)


def linear_with(noise: str, *, by_validation: bool = False) -> LinearKey:
    """The linear model with a likelihood's noise, by the likelihood's name."""
    return LinearKey(LinearKind.OF_LIKELIHOOD, noise, by_validation)


class Attempt(Protocol):
    """Fits a model, or gives None where there is no time for it."""

    def __call__(self, key: LinearKey, fit: Callable[[], T], /) -> T | None:
        """What ``fit`` returns, or None."""


def without_limit(_: LinearKey, fit: Callable[[], T]) -> T | None:
    """The :class:`Attempt` that always fits."""
    return fit()
