"""Preprocessing steps: they can be fitted, saved and undone.

A step is fitted on training data only and then applied to all data. After an affine bijection y = f(x), log-likelihoods
stay comparable: log p(x) = log p(y) + log |det ∂y/∂x|, in nats of the *original* units. The other steps lose dimensions
(for example, every corrected spectrum has the same mean), so a density of y gives no density of x. They have
``comparable = False``; never compare their models with models of x.
"""

import functools
import math
from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Self, cast

import numpy as np
import torch
from torch import Tensor

from pyrovae.blocks import blocks, in_blocks
from pyrovae.errors import InputError, InputTypeError, check_integer
from pyrovae.frames import Data, tensor_of
from pyrovae.nn import ConfigurableModule


class Preprocessing(ConfigurableModule):
    """A step y = f(x) on spectra (num, n), computed in float64 and returned in x's dtype; NaN stays NaN.

    :meth:`config` returns everything that it learned, as numbers; :func:`pyrovae.save` writes them into its JSON.
    """

    comparable: bool = False
    """Whether f is a bijection, so that densities of y give densities of x."""

    def fit(self, x: Tensor) -> Self:
        """Learn the step's statistics from training spectra (num, n), and return the step."""
        return self

    @abstractmethod
    def transform(self, x: Tensor) -> Tensor:
        """Y of spectra x (num, n)."""

    def inverse(self, y: Tensor) -> Tensor:
        """X of y (num, n).

        Raises:
            InputError: the step is not a bijection.
        """
        raise InputError(f"{type(self).__name__} loses dimensions, so it cannot be undone")

    def log_abs_det_jacobian(self, x: Tensor) -> Tensor:
        """Log |det ∂y/∂x| of spectra x (num, n) in nats, of the observed channels, shape (num,), float64.

        Add it to log p(y) for log p(x).

        Raises:
            InputError: the step is not a bijection.
        """
        raise InputError(
            f"{type(self).__name__} loses dimensions, so log-likelihoods after it are not comparable with those of x"
        )

    def forward(self, x: Tensor) -> Tensor:
        """Y of spectra x (num, n)."""
        return self.transform(x)


class Standardize(Preprocessing):
    """y = (x − m)/s with the mean m and standard deviation s of the training data: a bijection.

    Args:
        per: ``"channel"`` for a mean and a deviation of each channel, ``"all"`` for one of all values, ``"mean"`` for
            a mean of each channel and one deviation of all, which keeps the relative noise of the channels.
        mean: m, if already known: n numbers or one.
        scale: s, likewise.

    Example:
        >>> x = torch.tensor([[1.0, 10.0], [3.0, 30.0]])
        >>> step = Standardize().fit(x)
        >>> step.transform(x), step.log_abs_det_jacobian(x)
        (tensor([[-1., -1.],
                [ 1.,  1.]]), tensor([-2.3026, -2.3026], dtype=torch.float64))
    """

    comparable = True

    def __init__(self, per: str = "channel", mean: list[float] | None = None, scale: list[float] | None = None) -> None:
        super().__init__()
        if per not in ("channel", "all", "mean"):
            raise InputError(f"per must be 'channel', 'all' or 'mean', not {per!r}")
        self.per, self.mean, self.scale = per, mean, scale

    def fit(self, x: Data) -> Self:
        """Learn m and s from training spectra (num, n); a channel without any value keeps m = 0 and s = 1.

        Raises:
            InputError: a channel is constant.
        """
        x = tensor_of("x", x)
        _check_spectra(x)

        def total(of: Callable[[Tensor], Tensor]) -> Tensor:
            columns = (rows.reshape(-1, 1) if self.per == "all" else rows for rows in blocks(x))
            return functools.reduce(torch.add, (of(each.double()).nansum(0) for each in columns))

        observed = total(lambda columns: ~columns.isnan())
        mean = (total(lambda columns: columns) / observed).nan_to_num(0.0)
        scale = (total(lambda columns: (columns - mean).square()) / observed).sqrt()
        if self.per == "mean":
            scale = scale.square().nanmean().sqrt().expand_as(mean)
        # a deviation below the rounding of the values is arithmetic noise
        constant = (observed > 0) & (scale <= torch.finfo(x.dtype).eps * mean.abs())
        if constant.any():
            first = f"channel {int(constant.nonzero()[0])} (counted from 0)"
            where = first if self.per == "channel" else "every channel"
            raise InputError(f"{where} is constant in the training data, so it cannot be standardised; leave it out")
        self.mean, self.scale = mean.tolist(), scale.nan_to_num(1.0).tolist()
        return self

    def _statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.mean is None or self.scale is None:
            raise InputError("this Standardize has not been fitted; call fit(training data) first")
        mean, scale = (torch.tensor(v, dtype=torch.float64, device=x.device) for v in (self.mean, self.scale))
        if mean.shape[-1:] not in ((1,), x.shape[-1:]):
            raise InputError(f"this Standardize was fitted on {len(mean)} channels, and x has {x.shape[-1]}")
        return mean, scale

    def transform(self, x: Data) -> Tensor:
        """(x − m)/s, shape (num, n)."""
        x = tensor_of("x", x)
        mean, scale = self._statistics(x)
        return in_blocks(lambda rows: ((rows.double() - mean) / scale).to(rows.dtype), x)

    def inverse(self, y: Tensor) -> Tensor:
        """Return s y + m, shape (num, n)."""
        mean, scale = self._statistics(y)
        return in_blocks(lambda rows: (rows.double() * scale + mean).to(rows.dtype), y)

    def log_abs_det_jacobian(self, x: Tensor) -> Tensor:
        """−Σ log s over the observed channels of x (num, n), shape (num,)."""
        _, scale = self._statistics(x)
        return in_blocks(lambda rows: -torch.where(rows.isnan(), 0.0, scale.log()).sum(-1), x)


class StandardNormalVariate(Preprocessing):
    """Each spectrum minus its mean, divided by its standard deviation (Barnes, Dhanoa & Lister 1989).

    Loses two dimensions: every y has mean 0 and variance 1.
    """

    def __init__(self) -> None:
        super().__init__()

    def transform(self, x: Tensor) -> Tensor:
        """(x − mean)/deviation of each spectrum, over its observed channels."""
        values = _as_float64(x)
        centred = values - values.nanmean(-1, keepdim=True)
        scale = centred.square().nanmean(-1, keepdim=True).sqrt()
        return (centred / _nonzero(scale, "is constant, so it has no standard normal variate")).to(x.dtype)


class MultiplicativeScatterCorrection(Preprocessing):
    """Undo each spectrum's regression x ≈ a + b r on a reference r: y = (x − a)/b (Geladi et al. 1985).

    Loses two dimensions: every y regresses on r with a = 0 and b = 1.

    Args:
        reference: r, n numbers; by default the training data's mean.
    """

    def __init__(self, reference: list[float] | None = None) -> None:
        super().__init__()
        self.reference = reference

    def fit(self, x: Tensor) -> Self:
        """Use the mean of training spectra (num, n) as the reference."""
        self.reference = _as_float64(x).nanmean(0).tolist()
        return self

    def transform(self, x: Tensor) -> Tensor:
        """(x − a)/b with a and b by least squares over each spectrum's observed channels."""
        if self.reference is None:
            raise InputError("this MultiplicativeScatterCorrection has not been fitted; call fit(training data) first")
        values, reference = _as_float64(x), torch.tensor(self.reference, dtype=torch.float64, device=x.device)
        if len(reference) != x.shape[-1]:
            raise InputError(f"the reference has {len(reference)} channels, and x has {x.shape[-1]}")
        reference = torch.where(values.isnan(), math.nan, reference)
        r = reference - reference.nanmean(-1, keepdim=True)
        mean = values.nanmean(-1, keepdim=True)
        slope = (r * (values - mean)).nansum(-1, keepdim=True) / r.square().nansum(-1, keepdim=True)
        slope = _nonzero(slope, "does not correlate with the reference, so its scatter cannot be corrected")
        return ((values - mean) / slope + reference.nanmean(-1, keepdim=True)).to(x.dtype)


class SavitzkyGolay(Preprocessing):
    """Fit a polynomial to each window of channels: smoothing, or a derivative (Savitzky & Golay 1964; scipy).

    Loses dimensions: noise of high frequency, and with a derivative the offset too.

    Args:
        window: odd number of channels.
        degree: degree of the polynomial.
        derivative: its order; 0 smooths. Per channel, not per unit of the axis.
    """

    def __init__(self, window: int = 11, degree: int = 2, derivative: int = 0) -> None:
        super().__init__()
        for name, value in (("window", window), ("degree", degree), ("derivative", derivative)):
            check_integer(name, value, least=0)
        if window % 2 == 0 or not derivative <= degree < window:
            raise InputError(
                f"SavitzkyGolay needs an odd window > degree ≥ derivative, not {window}, {degree}, {derivative}"
            )
        self.window, self.degree, self.derivative = window, degree, derivative

    def transform(self, x: Tensor) -> Tensor:
        """Filtered spectra, shape (num, n)."""
        if x.shape[-1] < self.window:
            raise InputError(f"the window of {self.window} channels is wider than the spectra of {x.shape[-1]}")
        if x.isnan().any():
            raise InputError("SavitzkyGolay takes no missing values: a window needs all its channels")
        from scipy.signal import savgol_filter

        values = _as_float64(x).cpu().numpy()
        filtered = savgol_filter(values, self.window, self.degree, deriv=self.derivative, axis=-1)
        return torch.as_tensor(np.ascontiguousarray(filtered)).to(x)


class Pipeline(Preprocessing):
    """A sequence of steps, each fitted on the output of the steps before it.

    It is comparable if every step is; without steps it is the identity.

    Args:
        *steps: in their order.

    Example:
        >>> Pipeline(StandardNormalVariate(), Standardize()).comparable
        False
    """

    def __init__(self, *steps: Preprocessing) -> None:
        super().__init__()
        for step in steps:
            if not isinstance(step, Preprocessing):
                raise InputTypeError(f"a step must be a Preprocessing, not a {type(step).__name__}")
        self.steps = torch.nn.ModuleList(steps)

    def __iter__(self) -> Iterator[Preprocessing]:
        return iter(cast("list[Preprocessing]", list(self.steps)))

    @property
    def comparable(self) -> bool:  # type: ignore[override]
        """Whether every step is a bijection."""
        return all(step.comparable for step in self)

    def fit(self, x: Data) -> Self:
        """Fit each step on training spectra (num, n), after the steps before it."""
        x = tensor_of("x", x)
        for step in self:
            x = in_blocks(step.fit(x).transform, x)
        return self

    def transform(self, x: Data) -> Tensor:
        """Y of spectra x (num, n)."""
        x = tensor_of("x", x)
        for step in self:
            x = in_blocks(step.transform, x)
        return x

    def inverse(self, y: Tensor) -> Tensor:
        """X of y (num, n)."""
        for step in reversed(list(self)):
            y = step.inverse(y)
        return y

    def log_abs_det_jacobian(self, x: Tensor) -> Tensor:
        """The steps' log-determinants summed, shape (num,)."""
        total = torch.zeros(x.shape[:-1], dtype=torch.float64, device=x.device)
        for step in self:
            total = total + step.log_abs_det_jacobian(x)
            x = step.transform(x)
        return total


def _as_float64(x: Tensor) -> Tensor:
    _check_spectra(x)
    return x.double()


def _check_spectra(x: Tensor) -> None:
    if not isinstance(x, Tensor) or x.dim() != 2 or len(x) == 0 or not x.is_floating_point():
        seen = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise InputError(f"spectra must be a floating-point tensor of shape (num, n) with num ≥ 1, not {seen}")


def _nonzero(values: Tensor, message: str) -> Tensor:
    """Raise if a spectrum's value (num, 1) is 0, or unknown because the spectrum has no values."""
    bad = (values == 0) | values.isnan()
    if bad.any():
        raise InputError(f"spectrum {int(bad.nonzero()[0, 0])} (counted from 0) {message}")
    return values
