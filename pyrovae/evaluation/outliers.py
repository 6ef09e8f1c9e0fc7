"""Outliers with a guarantee: p-values of log p(x) against held-out data."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pyrovae.errors import InputError


def conformal_p_values(log_prob: ArrayLike, calibration: ArrayLike) -> NDArray[np.float64]:
    """The p-value of each datum: the share of held-out data that are no likelier under the model.

    The p-value is (1 + #{i: log p(x_i) ≤ log p(x)})/(m + 1) for m held-out data x_i (split conformal, Vovk et al.
    2005). If x is exchangeable with them, it is at most α with a probability of at most α, for any model and any
    estimate of log p(x). The held-out data must not have trained the model. For a single set of held-out data, the
    share of false alarms varies around α with a standard deviation of about √(α(1 − α)/m).

    Args:
        log_prob: log p(x) of the data in question, in nats, shape (num,).
        calibration: log p(x) of the held-out data, estimated in the same way, shape (m,).

    Returns:
        Shape (num,), from 1/(m + 1) to 1.

    Raises:
        InputError: values are not vectors of numbers, or there are no held-out data.

    Example:
        >>> conformal_p_values([-9.0, 0.5], calibration=[-1.0, 0.0, 1.0]).tolist()
        [0.25, 0.75]
    """
    new, known = (np.asarray(values, dtype=np.float64) for values in (log_prob, calibration))
    if new.ndim != 1 or known.ndim != 1 or not len(known) or np.isnan(new).any() or np.isnan(known).any():
        raise InputError(f"log p(x) must be vectors of numbers, not of shapes {new.shape} and {known.shape}, or NaN")
    return (1 + np.searchsorted(np.sort(known), new, side="right")) / (len(known) + 1)


def p_values_beside(
    log_prob: ArrayLike, calibration: ArrayLike, own: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Log p(x) and p-values of data some of which are held out: such a datum is compared with the others.

    Args:
        log_prob: log p(x) of the data, shape (num,).
        calibration: log p(x) of the held-out data, shape (m,).
        own: which of the held-out data each datum is, −1 if none, shape (num,).
    """
    known, found = np.asarray(calibration, dtype=np.float64), np.array(log_prob, dtype=np.float64)
    found[own >= 0] = known[own[own >= 0]]
    p_values = conformal_p_values(found, known)
    return found, np.where(own >= 0, ((len(known) + 1) * p_values - 1) / len(known), p_values)


def places_in(known: NDArray[np.generic], x: NDArray[np.generic]) -> NDArray[np.int64]:
    """Which row of the known data (any, n) each of x (num, n) is, −1 if none."""
    places = {row.tobytes(): k for k, row in reversed(list(enumerate(known)))}
    return np.array([places.get(row.tobytes(), -1) for row in x], dtype=np.int64)


def usual_misfits(misfits: NDArray[np.float64]) -> NDArray[np.float64]:
    """The usual size of each channel's misfit, shape (n,), of the misfits (num, n) of data that may hold outliers.

    It is their median, scaled to be the standard deviation of Gaussian misfits; at least a tenth of what is usual at
    half of the channels, for a pixel that is nearly always 0.
    """
    usual = 1.4826 * np.median(np.abs(np.nan_to_num(misfits)), axis=0)
    return np.asarray(np.maximum(usual, 0.1 * np.median(usual) or 1.0))
