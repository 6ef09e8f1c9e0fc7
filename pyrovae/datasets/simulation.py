"""Simulated spectra with a known truth."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self, TypedDict, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.distributions import MultivariateNormal

from pyrovae.datasets._mixture_density import log_prob_of_mixtures
from pyrovae.datasets.spectra import Spectra
from pyrovae.distributions import AR1Normal
from pyrovae.errors import InputError, check_finite, check_integer, check_positive
from pyrovae.keywords import accepts
from pyrovae.randomness import seeded

SHAPES = ("gaussian", "lorentzian", "voigt")
"""Shapes of peaks."""

_CONCENTRATION = 4.0
"""Parameter of the Dirichlet distribution of the mixtures: larger values make the mixtures more alike."""


@dataclass(frozen=True)
class SimulationSettings:
    """What to simulate: the keywords of :func:`simulated`, checked when made."""

    components: int = 3
    """Number K of pure substances."""
    peaks: int = 4
    """Number of peaks of each substance."""
    shapes: Sequence[str] = SHAPES
    """Shapes that the peaks take in turn: gaussian, lorentzian, voigt."""
    baseline_degree: int | None = 2
    """Degree of the polynomial baseline; None for no baseline."""
    baseline_scale: float = 0.05
    """Standard deviation of each coefficient of the baseline, in units of x."""
    scatter: float = 0.05
    """Standard deviation of the log of the multiplicative scatter s."""
    correlation: float = 0.9
    """ρ between the noise of neighbouring channels."""
    noise_scale: float | Sequence[float] = 0.01
    """Standard deviation of the noise: one number, or one for each channel."""
    linear: bool = False
    """Whether to make x Gaussian."""
    axis: tuple[float, float] = (1000.0, 2500.0)
    """First and last channel position."""
    unit: str = "nm"
    """Unit of the axis."""

    def __post_init__(self) -> None:
        check_integer("components", self.components)
        check_integer("peaks", self.peaks)
        if self.baseline_degree is not None:
            check_integer("baseline_degree", self.baseline_degree, 0)
        if not self.shapes or any(shape not in SHAPES for shape in self.shapes):
            raise InputError(f"shapes must be some of {', '.join(SHAPES)}, not {self.shapes!r}")
        if not -1 < self.correlation < 1:
            raise InputError(f"correlation must be inside (−1, 1), not {self.correlation!r}")
        sigma = self.sigma
        if sigma.dim() != 1 or not (sigma.isfinite() & (sigma > 0)).all():
            raise InputError(f"noise_scale must be a positive number or one for each channel, not {self.noise_scale!r}")
        check_positive("scatter", self.scatter, or_zero=True)
        check_positive("baseline_scale", self.baseline_scale, or_zero=True)
        if not self.axis[0] < self.axis[1]:
            raise InputError(f"axis must be the first and the last position, in this order, not {self.axis!r}")

    @property
    def sigma(self) -> Tensor:
        """Standard deviation of the noise, shape (1,) or (n,), float64."""
        sigma = torch.as_tensor(self.noise_scale, dtype=torch.float64)
        return sigma.reshape(1) if sigma.dim() == 0 else sigma

    def truth(self, channels: int, seed: int = 0) -> SpectraTruth:
        """Draw the pure spectra on this number of channels.

        Raises:
            InputError: ``noise_scale`` is for another number of channels.
        """
        check_integer("channels", channels)
        if self.sigma.shape not in ((1,), (channels,)):
            raise InputError(f"noise_scale must be a positive number or {channels} of them, not {self.noise_scale!r}")
        rng = np.random.default_rng([seed, 0])
        positions, unit_axis = np.linspace(*self.axis, channels), np.linspace(-1, 1, channels)
        pure = np.zeros((self.components, channels))
        for spectrum in pure:
            for i in range(self.peaks):
                centre, width, height = rng.uniform(-0.9, 0.9), rng.uniform(0.05, 0.2), rng.uniform(0.3, 1.0)
                spectrum += height * peak(unit_axis - centre, width, self.shapes[i % len(self.shapes)])
        degrees = 0 if self.baseline_degree is None else self.baseline_degree + 1
        legendre = np.polynomial.legendre.legvander(unit_axis, max(degrees - 1, 0))[:, :degrees].T
        return SpectraTruth(
            axis=torch.as_tensor(positions),
            unit=self.unit,
            pure=torch.as_tensor(pure),
            baseline=self.baseline_scale * torch.as_tensor(legendre),
            scatter=0.0 if self.linear else self.scatter,
            noise_scale=self.sigma,
            correlation=self.correlation,
            linear=self.linear,
        )


class SimulationKeywords(TypedDict, total=False):
    """The fields of :class:`SimulationSettings`, as a type checker sees the keywords of a function."""

    components: int
    peaks: int
    shapes: Sequence[str]
    baseline_degree: int | None
    baseline_scale: float
    scatter: float
    correlation: float
    noise_scale: float | Sequence[float]
    linear: bool
    axis: tuple[float, float]
    unit: str


@accepts(SimulationSettings)
def simulated(num: int, channels: int, *, seed: int = 0, **settings: Unpack[SimulationKeywords]) -> SimulatedSpectra:
    """Draw absorbance spectra of mixtures with known truth: peaks, baseline, scatter and correlated noise.

    x = s (Σ_k c_k ε_k + baseline) + noise. The pure spectra ε_k are sums of peaks of height 0.3 to 1 at random
    places. The concentrations c_k are the fractions of a mixture and sum to 1. With ``linear`` there is no scatter, and
    the c_k are independent Gaussians with the same mean 1/K and the same variance (with three substances, about one
    value in 200 is negative). Log p(x) is then known exactly.

    Args:
        num: number of spectra.
        channels: number n of channels.
        seed: seed of the truth and of the draws.
        **settings: the fields of :class:`SimulationSettings`.

    Raises:
        InputError: settings out of their range.

    Example:
        >>> spectra = simulated(100, 60, linear=True)
        >>> spectra.x.shape, spectra.truth.log_prob(spectra.x).shape
        (torch.Size([100, 60]), torch.Size([100]))
    """
    return SimulationSettings(**settings).truth(channels, seed).sample(num, seed)


@dataclass(frozen=True, eq=False)
class SpectraTruth:
    """The truth of simulated spectra: x = s (Σ_k c_k ε_k(ν) + Σ_p b_p P_p(ν)) + AR(1) noise.

    ε_k are the pure components' spectra, c their concentrations (Beer–Lambert's law at unit path length), P_p
    Legendre polynomials on the axis, and b_p ~ N(0, 1) times their scale. Scatter changes the path length by the
    factor s, log s ~ N(0, scatter²).

    Attributes:
        axis: channel positions, shape (n,).
        unit: unit of the axis.
        pure: ε, shape (K, n).
        baseline: scaled P, shape (P, n).
        scatter: standard deviation of log s.
        noise_scale: σ of the noise, shape (1,) or (n,).
        correlation: ρ between the noise of neighbouring channels.
        linear: whether c is Gaussian (with the mean and covariance of the mixtures') and s = 1: x is Gaussian then.
    """

    axis: Tensor
    unit: str
    pure: Tensor
    baseline: Tensor
    scatter: float
    noise_scale: Tensor
    correlation: float
    linear: bool

    @property
    def noise(self) -> AR1Normal:
        """Distribution of the noise, event shape (n,)."""
        return AR1Normal(torch.zeros_like(self.axis), self.noise_scale, correlation=self.correlation)

    @property
    def latent_dim(self) -> int:
        """Number of latent dimensions that the linear simulator has."""
        return self.loadings.shape[1]

    @cached_property
    def _concentration_factor(self) -> Tensor:
        """Factor of the concentrations' covariance: of a Dirichlet's without its constraint to sum to 1, (K, K)."""
        k = len(self.pure)
        variance = (1 / k) * (1 - 1 / k) / (k * _CONCENTRATION + 1) if k > 1 else 1 / 16
        return math.sqrt(variance) * torch.eye(k, dtype=torch.float64)

    @cached_property
    def loadings(self) -> Tensor:
        """A of the linear simulator, x = Az + offset + noise with z ~ N(0, I), shape (n, K + P)."""
        return torch.cat([self.pure.T @ self._concentration_factor, self.baseline.T], dim=1)

    @cached_property
    def offset(self) -> Tensor:
        """Mean of the linear simulator's spectra, shape (n,)."""
        return self.pure.mean(0)

    @cached_property
    def covariance_matrix(self) -> Tensor:
        """AAᵀ + noise covariance of the linear simulator, shape (n, n)."""
        return self.loadings @ self.loadings.T + self.noise.covariance_matrix

    def log_prob(self, x: Tensor) -> Tensor:
        """Log p(x) in nats, shape (num,), float64: exact if linear, else estimated by :meth:`log_marginal`.

        For mixtures at the default settings the estimate is off by about 0.01 nats; :meth:`log_marginal` returns this
        error.
        """
        return self.log_marginal(x)[0]

    def log_marginal(self, x: Tensor, num_draws: int = 4000, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Log p(x) in nats and its Monte Carlo standard error, both of shape (num,), float64.

        The linear simulator's is exact, with error 0. The density of mixtures is an integral over the concentrations
        and the scatter, by importance sampling.

        Raises:
            InputError: mixtures of one substance or without scatter, for which the integral is not implemented, or of
                more substances than channels; or x has another shape or is not finite.
        """
        n = len(self.axis)
        check_finite("x", x, n, least=0)
        x = x.double()
        if self.linear:
            log_prob = MultivariateNormal(self.offset, self.covariance_matrix).log_prob(x)
            return log_prob, torch.zeros_like(log_prob)
        if not 2 <= len(self.pure) <= n or self.scatter == 0:
            raise InputError(f"log p(x) needs linear=True, or scatter and 2 to {n} substances, one per channel")
        precision = torch.linalg.inv(self.noise.covariance_matrix)
        of_all = (self.pure, self.baseline, precision, _CONCENTRATION, self.scatter, num_draws, seed)
        found = [log_prob_of_mixtures(part, *of_all) for part in x.split(100)]
        log_prob, stderr = (torch.cat(values) for values in zip(*found, strict=True))
        return log_prob, stderr

    def sample(self, num: int, seed: int = 0) -> SimulatedSpectra:
        """Draw ``num`` spectra."""
        import pandas as pd

        check_integer("num", num)
        rng, k = np.random.default_rng([seed, 1]), len(self.pure)
        if self.linear:
            concentrations = 1 / k + torch.as_tensor(rng.standard_normal((num, k))) @ self._concentration_factor.T
            scatter = np.ones((num, 1))
        else:
            mixed = rng.dirichlet(np.full(k, _CONCENTRATION), num) if k > 1 else rng.gamma(16, 1 / 16, (num, 1))
            concentrations = torch.as_tensor(mixed)
            scatter = np.exp(self.scatter * rng.standard_normal((num, 1)))
        weights = torch.as_tensor(rng.standard_normal((num, len(self.baseline))))
        clean = torch.as_tensor(scatter) * (concentrations @ self.pure + weights @ self.baseline)
        with seeded(int(rng.integers(2**31))):
            x = clean + self.noise.sample(torch.Size([num]))
        dtype = torch.get_default_dtype()
        table = {f"concentration_{i}": c for i, c in enumerate(concentrations.T.numpy())}
        targets = pd.DataFrame(table | {"scatter": scatter[:, 0]})
        return SimulatedSpectra(
            x.to(dtype), self.axis, self.unit, targets, "simulated", clean=clean.to(dtype), truth=self
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class SimulatedSpectra(Spectra):
    """Spectra with the truth that they were drawn from.

    Attributes:
        clean: x without its noise, shape (num, n).
        truth: the distribution that they were drawn from.
    """

    clean: Tensor
    truth: SpectraTruth

    @property
    def concentrations(self) -> Tensor:
        """Concentrations c of each spectrum, shape (num, K)."""
        columns = [c for c in self.targets if str(c).startswith("concentration_")]
        return torch.as_tensor(self.targets[columns].to_numpy(copy=True))

    def take(self, index: Tensor | Sequence[int]) -> Self:
        """The samples of these indices, in this order."""
        return dataclasses.replace(super().take(index), clean=self.clean[torch.as_tensor(index)])

    def between(self, low: float, high: float) -> Self:
        """Not available: the truth covers all channels; simulate fewer.

        Raises:
            InputError: always.
        """
        raise InputError("the truth of simulated spectra covers all channels; choose them with axis=(low, high)")


def peak(distance: NDArray[np.float64], width: float, shape: str) -> NDArray[np.float64]:
    """A peak of height 1 and full width ``width`` at half of it, at these distances from its centre.

    A Voigt peak is a Gaussian convolved with a Lorentzian, here of equal widths; the width of the result is within
    0.1 % of ``width`` (Olivero & Longbothum 1977).
    """
    if shape == "gaussian":
        return np.exp(-4 * math.log(2) * (distance / width) ** 2)
    if shape == "lorentzian":
        return 1 / (1 + 4 * (distance / width) ** 2)
    from scipy.special import voigt_profile

    width_of_each = width / (0.5346 + math.sqrt(0.2166 + 1))
    sigma, gamma = width_of_each / (2 * math.sqrt(2 * math.log(2))), width_of_each / 2
    profile: NDArray[np.float64] = voigt_profile(distance, sigma, gamma) / voigt_profile(0.0, sigma, gamma)
    return profile
