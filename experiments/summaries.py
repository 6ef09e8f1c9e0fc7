"""Means over seeds with their standard errors, as text and as points of a picture."""

import math
from collections.abc import Iterable

import pandas as pd


def standard_error(values: pd.Series) -> float:
    """Standard error of the mean; 0 for a single value."""
    return float(values.std() / math.sqrt(len(values))) if len(values) > 1 else 0.0


def mean_and_error(values: pd.Series, form: str = ".2f", error_form: str = "") -> str:
    """Mean ± standard error; of a single value the mean alone, of none an empty text."""
    if values.empty:
        return ""
    mean = f"{values.mean():{form}}".replace("-0.000", "0.000")
    return mean if len(values) == 1 else f"{mean} ± {standard_error(values):{error_form or form.removeprefix('+')}}"


def means_and_errors(groups: Iterable[pd.Series]) -> tuple[list[float], list[float]]:
    """Means and their standard errors."""
    groups = list(groups)
    return [float(group.mean()) for group in groups], [standard_error(group) for group in groups]


def geometric_means_and_errors(groups: Iterable[pd.Series]) -> tuple[list[float], list[float]]:
    """Geometric means from logarithms, and their standard errors to first order."""
    means, errors = means_and_errors(groups)
    means = [math.exp(mean) for mean in means]
    return means, [mean * error for mean, error in zip(means, errors, strict=True)]
