"""Intervals of missing values that allow for the estimation of the model."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING, Self, overload

import torch
from torch import Tensor

from pyrovae.errors import check_integer, check_level, check_observed
from pyrovae.frames import Arrays, Data, frame_like, is_frame, tensor_of
from pyrovae.linear_gaussian._model import LinearModel
from pyrovae.progress import progress_bar
from pyrovae.randomness import seeded

if TYPE_CHECKING:
    import pandas as pd

_BISECTIONS = 40


class RefittedModel(LinearModel):
    """A linear model that can be fitted again to other data."""

    @abstractmethod
    def refit(self, x: Data) -> Self | LinearModel:
        """The model of other data x (num, n), of the same form."""

    @overload
    def intervals(
        self,
        x: pd.DataFrame,
        trained: Data,
        *,
        level: float = ...,
        refits: int = ...,
        seed: int = ...,
        progress: bool = ...,
    ) -> tuple[pd.DataFrame, pd.DataFrame]: ...

    @overload
    def intervals(
        self, x: Arrays, trained: Data, *, level: float = ..., refits: int = ..., seed: int = ..., progress: bool = ...
    ) -> tuple[Tensor, Tensor]: ...

    @torch.no_grad()
    def intervals(
        self,
        x: Data,
        trained: Data,
        *,
        level: float = 0.9,
        refits: int = 20,
        seed: int = 0,
        progress: bool = False,
    ) -> tuple[Tensor, Tensor] | tuple[pd.DataFrame, pd.DataFrame]:
        """Intervals of missing values, NaN in x, that allow for the estimation of the model.

        They are m ± ks, with m and s of :meth:`complete`. Without estimation k would be Φ⁻¹(½ + ½ level), 1.64 at 0.9.
        Here data with the training data's missing values are drawn from the model, and the model is fitted to them,
        several times. For each missing value k is the number at which the intervals m_r ± k s_r of these fits contain
        draws from the model N(m, s²) with probability ``level`` (calibration by the parametric bootstrap, Beran 1990):

            mean over r of Φ((m_r + k s_r − m) / s) − Φ((m_r − k s_r − m) / s) = level.

        For the mean and variance of independent channels that is Student's t, but for the finite number of refits. Each
        refit takes as long as the fit. It does not start from the model: the likelihood may have several maxima.

        Args:
            x: shape (num, n).
            trained: data that the model was fitted to, shape (any, n). Only their number and where they are NaN counts.
            level: probability of an interval.
            refits: number of refits.
            seed: seed of the draws; the caller's random state does not change.
            progress: whether to show a progress bar (on a terminal).

        Returns:
            Lower and upper ends, equal to x where it was observed, shape (num, n); for a DataFrame DataFrames.

        Raises:
            InputError: data of another width, or a level outside of (0, 1).

        Example:
            >>> import pyrovae as pv
            >>> x = torch.randn(40, 2) @ torch.randn(2, 5) + 0.3 * torch.randn(40, 5)
            >>> x[::4, 1] = torch.nan
            >>> model = pv.FactorModel.fit(x, pv.GaussianLikelihood(1, 5), latent_dim=2)
            >>> lower, upper = model.intervals(x, x)
            >>> bool((lower[::4, 1] < upper[::4, 1]).all())
            True
        """
        check_level(level)
        check_integer("refits", refits)
        values, known = tensor_of("x", x).double(), tensor_of("trained", trained)
        for name, data in (("x", values), ("trained", known)):
            check_observed(name, data, self.n)
        mean, deviation = self.complete(values)
        missing, gaps, found = values.isnan(), known.isnan(), []
        with seeded(seed):
            for _ in progress_bar(range(refits), "refitting", show=progress, leave=False):
                refitted = self.refit(self.sample(len(gaps)).masked_fill(gaps, torch.nan))
                found.append(torch.stack([part[missing] for part in refitted.complete(values)]))
        means, deviations = torch.stack(found, dim=1)
        reach = torch.zeros_like(mean)
        reach[missing] = calibrated(mean[missing], deviation[missing], means, deviations, level)
        lower, upper = mean - reach, mean + reach
        return (frame_like(x, lower), frame_like(x, upper)) if is_frame(x) else (lower, upper)


def calibrated(mean: Tensor, deviation: Tensor, means: Tensor, deviations: Tensor, level: float) -> Tensor:
    """The half widths ks of :meth:`RefittedModel.intervals`, shape (m,), by bisection.

    Args:
        mean: m of each value, shape (m,).
        deviation: s.
        means: m_r, shape (refits, m).
        deviations: s_r.
        level: probability of an interval.
    """
    off, narrower = (means - mean) / deviation, deviations / deviation
    low = torch.zeros_like(mean)
    high = ((off.abs() + math.sqrt(2) * torch.erfinv(low + level)) / narrower).amax(0)
    for _ in range(_BISECTIONS):
        k = 0.5 * (low + high)
        inside = (torch.special.ndtr(off + k * narrower) - torch.special.ndtr(off - k * narrower)).mean(0)
        low, high = torch.where(inside < level, k, low), torch.where(inside < level, high, k)
    return high * deviation
