"""Spectra on a channel axis, and simulated ones whose truth is known."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.special import voigt_profile
from torch import Tensor
from torch.distributions import MultivariateNormal

from pyrovae.datasets.mixture_density import log_prob_of_mixtures
from pyrovae.datasets.splitting import split_by_group, split_into_blocks, split_randomly
from pyrovae.distributions import AR1Normal
from pyrovae.errors import InputError

SHAPES = ("gaussian", "lorentzian", "voigt")
"""Shapes of peaks."""

_CONCENTRATION = 4.0
"""Of the Dirichlet distribution of the mixtures: the larger, the more alike they are."""


@dataclass(frozen=True, eq=False)
class Spectra:
    """Spectra, one a row, with their channel axis and what else is known of each sample.

    Attributes:
        x: shape (num, n), NaN where a value is missing.
        axis: position of each channel, ascending or descending, shape (n,), float64.
        unit: of the axis, such as ``"nm"``; ``"channel"`` where positions are only counted, empty if unknown.
        targets: one row a sample: labels, targets, dates, indices.
        name: of the data set.
    """

    x: Tensor
    axis: Tensor
    unit: str
    targets: pd.DataFrame
    name: str = "spectra"

    def __post_init__(self) -> None:
        if self.x.dim() != 2 or self.axis.shape != self.x.shape[1:] or len(self.targets) != len(self.x):
            raise InputError(
                f"x (num, n), axis (n,) and targets of num rows do not fit: "
                f"{tuple(self.x.shape)}, {tuple(self.axis.shape)}, {len(self.targets)} rows"
            )

    def __len__(self) -> int:
        return len(self.x)

    @property
    def missing(self) -> Tensor:
        """Which values are missing, booleans of shape (num, n)."""
        return self.x.isnan()

    def take(self, index: Tensor | Sequence[int]) -> Self:
        """The samples of these indices, in this order."""
        index = torch.as_tensor(index)
        targets = self.targets.iloc[index.numpy()].reset_index(drop=True)
        return dataclasses.replace(self, x=self.x[index], targets=targets)

    def sorted_by(self, column: str, *, dates: bool = False) -> Self:
        """The samples in the order of a column of the targets, such as their time; equal ones stay in their order.

        Args:
            column: of ``targets``.
            dates: whether it holds dates or times, in ISO 8601 (2024-03-25 or 2024-03-25 10:30): text in other
                formats has another order.

        Raises:
            InputError: there is no such column, or it holds no dates.
        """
        values = self._dates(column) if dates else self._column(column)
        return self.take(torch.tensor(values.reset_index(drop=True).sort_values(kind="stable").index.to_numpy()))

    def between(self, low: float, high: float) -> Self:
        """The channels whose position lies in [low, high].

        Raises:
            InputError: there are none.
        """
        inside = (self.axis >= low) & (self.axis <= high)
        if not inside.any():
            raise InputError(
                f"no channel lies in [{low:g}, {high:g}]: the axis goes from {self.axis[0]:g} to {self.axis[-1]:g}"
            )
        return dataclasses.replace(self, x=self.x[:, inside], axis=self.axis[inside])

    def groups(self, column: str, *, by_day: bool = False) -> NDArray[np.object_]:
        """A column of the targets as group labels for a split, shape (num,).

        Args:
            column: of ``targets``.
            by_day: whether it holds dates or times, in ISO 8601, whose days are the groups.

        Raises:
            InputError: there is no such column, or it holds no dates.
        """
        values = self._dates(column).dt.strftime("%Y-%m-%d") if by_day else self._column(column)
        return values.to_numpy(dtype=object)

    def _dates(self, column: str) -> pd.Series:
        values = self._column(column)
        try:
            found = pd.to_datetime(values, format="ISO8601")
        except (ValueError, TypeError) as error:
            reason = " ".join(str(error).split())[:100]
            raise InputError(f"column {column!r} holds no dates in ISO 8601, such as 2024-03-25: {reason}") from None
        if found.isna().any():
            raise InputError(f"column {column!r} has no date at sample {int(found.isna().argmax())} (counted from 0)")
        return found

    def _column(self, name: str) -> pd.Series:
        if name not in self.targets:
            raise InputError(f"there is no column {name!r} among the targets: {', '.join(map(str, self.targets))}")
        return self.targets[name]


@dataclass(frozen=True, eq=False)
class SpectraTruth:
    """What simulated spectra are drawn from: x = s (Σ_k c_k ε_k(ν) + Σ_p b_p P_p(ν)) + AR(1) noise.

    ε_k are the pure components' spectra, c their concentrations (Beer–Lambert's law at unit path length), P_p
    Legendre polynomials on the axis, b_p ~ N(0, 1) times their scale, and log s ~ N(0, scatter²) what scatter makes
    of the path length.

    Attributes:
        axis: channel positions, shape (n,).
        unit: of the axis.
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
        """Log p(x) in nats, shape (num,), float64: exact of the linear simulator, else :meth:`log_marginal`'s estimate.

        Of mixtures at the default settings that is off by some 0.01 nats: the error is what :meth:`log_marginal` tells.
        """
        return self.log_marginal(x)[0]

    def log_marginal(self, x: Tensor, num_draws: int = 4000, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Log p(x) in nats and its Monte Carlo standard error, 0 of the linear simulator; both (num,), float64.

        The others' is an integral over the concentrations and the scatter, by importance sampling.

        Raises:
            InputError: mixtures of one substance or without scatter, for which that integral is not written, or of more
                substances than channels; or x of another shape, or not finite.
        """
        n = len(self.axis)
        if x.dim() != 2 or x.shape[1] != n or not x.isfinite().all():
            raise InputError(f"x must be finite spectra of shape (num, {n}), not {tuple(x.shape)}")
        x = x.double()
        if self.linear:
            log_prob = MultivariateNormal(self.offset, self.covariance_matrix).log_prob(x)
            return log_prob, torch.zeros_like(log_prob)
        if not 2 <= len(self.pure) <= n or self.scatter == 0:
            raise InputError(f"log p(x) needs linear=True, or scatter and 2 to {n} substances, one a channel")
        precision = torch.linalg.inv(self.noise.covariance_matrix)
        found = [
            log_prob_of_mixtures(
                part, self.pure, self.baseline, precision, _CONCENTRATION, self.scatter, num_draws, seed
            )
            for part in x.split(100)
        ]
        log_prob, stderr = (torch.cat(values) for values in zip(*found, strict=True))
        return log_prob, stderr

    def sample(self, num: int, seed: int = 0) -> "SimulatedSpectra":
        """Draw ``num`` spectra."""
        if not isinstance(num, int) or num < 1:
            raise InputError(f"num must be a positive integer, not {num!r}")
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
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(2**31)))
            x = clean + self.noise.sample(torch.Size([num]))
        dtype = torch.get_default_dtype()
        table = {f"concentration_{i}": c for i, c in enumerate(concentrations.T.numpy())}
        targets = pd.DataFrame(table | {"scatter": scatter[:, 0]})
        return SimulatedSpectra(
            x.to(dtype), self.axis, self.unit, targets, "simulated", clean=clean.to(dtype), truth=self
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class SimulatedSpectra(Spectra):
    """Spectra that know where they come from.

    Attributes:
        clean: x without its noise, shape (num, n).
        truth: what they were drawn from.
    """

    clean: Tensor
    truth: SpectraTruth

    @property
    def concentrations(self) -> Tensor:
        """C of each spectrum, shape (num, K)."""
        columns = [c for c in self.targets if str(c).startswith("concentration_")]
        return torch.as_tensor(self.targets[columns].to_numpy(copy=True))

    def take(self, index: Tensor | Sequence[int]) -> Self:
        """The samples of these indices, in this order."""
        return dataclasses.replace(super().take(index), clean=self.clean[torch.as_tensor(index)])

    def between(self, low: float, high: float) -> Self:
        """Not of simulated spectra: their truth is of all channels; simulate fewer."""
        raise InputError("the truth of simulated spectra is of all their channels; choose them with axis=(low, high)")


def split_spectra(
    spectra: Spectra, time_column: str = "datetime", *, group: str | None = None, seed: int = 0
) -> tuple[list[Spectra], str, list[str]]:
    """70 % to train, 15 % to validate, 15 % to test, none leaking into another.

    At random, spectra that are the same in every channel kept together; or, where there is a column of times, in blocks
    of whole days; or by the groups that are given.

    Args:
        spectra: to be split.
        time_column: of ``spectra.targets``; it need not be there.
        group: column of ``spectra.targets`` whose equal values stay in one part, such as the sample of several
            measurements; it goes before the times.
        seed: of the random split.

    Returns:
        The three parts, how they were split, and what to know of it, in words.

    Raises:
        InputError: there is no such column, or it has too few values or some that are missing.
    """
    if group is not None:
        labels = spectra.groups(group)
        parts = split_by_group(labels, seed=seed)
        num_groups = [len(set(labels[part.numpy()])) for part in parts]
        how = f"by {group} ({sum(num_groups)} groups, none in two parts)"
        note = f"the test spectra are of {num_groups[-1]} group(s), and errors do not cover how groups differ"
        return [spectra.take(part) for part in parts], how, [note]
    if time_column in spectra.targets:
        ordered = spectra.sorted_by(time_column, dates=True)
        days = ordered.groups(time_column, by_day=True)
        parts = split_into_blocks(len(ordered), groups=days)
        num_days = len(set(days[parts[-1].numpy()]))
        how = f"in blocks of whole days by {time_column} ({len(set(days))} days, none in two parts)"
        note = f"the test spectra are of {num_days} day(s), and errors do not cover how days differ"
        return [ordered.take(part) for part in parts], how, [note]
    rows = np.ascontiguousarray(spectra.x.numpy())
    _, alike = np.unique(rows.view(np.dtype((np.void, rows[0].nbytes))), return_inverse=True)
    copies = len(spectra) - int(alike.max()) - 1
    parts = split_by_group(alike.ravel(), seed=seed) if copies else split_randomly(len(spectra), seed=seed)
    notes = [f"{copies} spectra are copies of others, and go where these go"] if copies else []
    return [spectra.take(part) for part in parts], "at random", notes


def simulated(
    num: int,
    channels: int,
    *,
    components: int = 3,
    peaks: int = 4,
    shapes: Sequence[str] = SHAPES,
    baseline_degree: int | None = 2,
    baseline_scale: float = 0.05,
    scatter: float = 0.05,
    correlation: float = 0.9,
    noise_scale: float | Sequence[float] = 0.01,
    linear: bool = False,
    axis: tuple[float, float] = (1000.0, 2500.0),
    unit: str = "nm",
    seed: int = 0,
) -> SimulatedSpectra:
    """Draw absorbance spectra of mixtures with known truth: peaks, baseline, scatter and correlated noise.

    x = s (Σ_k c_k ε_k + baseline) + noise: the pure spectra ε_k are sums of peaks of height 0.3 to 1 at random
    places, and c a mixture's fractions, which sum to 1. With ``linear`` there is no scatter and the c_k are
    independent Gaussians of the same mean 1/K and variance (of three, one in some 200 below 0): log p(x) is then
    known.

    Args:
        num: number of spectra.
        channels: number n of channels.
        components: number K of pure substances.
        peaks: number of peaks of each.
        shapes: that the peaks take turns in, of ``"gaussian"``, ``"lorentzian"`` and ``"voigt"``.
        baseline_degree: of the polynomial baseline; None for none.
        baseline_scale: standard deviation of each of its coefficients, in units of x.
        scatter: standard deviation of the log of the multiplicative scatter s.
        correlation: ρ between the noise of neighbouring channels.
        noise_scale: standard deviation of the noise, one number or one a channel.
        linear: whether x is to be Gaussian.
        axis: first and last channel position.
        unit: of the axis.
        seed: of the truth and of the draws.

    Raises:
        InputError: settings out of their range.

    Example:
        >>> spectra = simulated(100, 60, linear=True)
        >>> spectra.x.shape, spectra.truth.log_prob(spectra.x).shape
        (torch.Size([100, 60]), torch.Size([100]))
    """
    for name, value in (("num", num), ("channels", channels), ("components", components), ("peaks", peaks)):
        if not isinstance(value, int) or value < 1:
            raise InputError(f"{name} must be a positive integer, not {value!r}")
    if baseline_degree is not None and (not isinstance(baseline_degree, int) or baseline_degree < 0):
        raise InputError(f"baseline_degree must be an integer ≥ 0 or None, not {baseline_degree!r}")
    if not shapes or any(shape not in SHAPES for shape in shapes):
        raise InputError(f"shapes must be some of {', '.join(SHAPES)}, not {shapes!r}")
    if not -1 < correlation < 1:
        raise InputError(f"correlation must be inside (−1, 1), not {correlation!r}")
    sigma = torch.atleast_1d(torch.as_tensor(noise_scale, dtype=torch.float64))
    if sigma.shape not in ((1,), (channels,)) or not (sigma.isfinite() & (sigma > 0)).all():
        raise InputError(f"noise_scale must be a positive number or {channels} of them, not {noise_scale!r}")
    if not (math.isfinite(scatter) and scatter >= 0 and math.isfinite(baseline_scale) and baseline_scale >= 0):
        raise InputError(f"scatter and baseline_scale must be finite and ≥ 0, not {scatter!r} and {baseline_scale!r}")
    if not axis[0] < axis[1]:
        raise InputError(f"axis must be the first and the last position, in this order, not {axis!r}")
    rng = np.random.default_rng([seed, 0])
    positions, unit_axis = np.linspace(*axis, channels), np.linspace(-1, 1, channels)
    pure = np.zeros((components, channels))
    for spectrum in pure:
        for i in range(peaks):
            centre, width, height = rng.uniform(-0.9, 0.9), rng.uniform(0.05, 0.2), rng.uniform(0.3, 1.0)
            spectrum += height * peak(unit_axis - centre, width, shapes[i % len(shapes)])
    degrees = 0 if baseline_degree is None else baseline_degree + 1
    legendre = np.polynomial.legendre.legvander(unit_axis, max(degrees - 1, 0))[:, :degrees].T
    truth = SpectraTruth(
        axis=torch.as_tensor(positions),
        unit=unit,
        pure=torch.as_tensor(pure),
        baseline=baseline_scale * torch.as_tensor(legendre),
        scatter=0.0 if linear else scatter,
        noise_scale=sigma,
        correlation=correlation,
        linear=linear,
    )
    return truth.sample(num, seed)


def peak(distance: NDArray[np.float64], width: float, shape: str) -> NDArray[np.float64]:
    """A peak of height 1 and full width ``width`` at half of it, at these distances from its centre.

    A Voigt peak is a Gaussian convolved with a Lorentzian, here of equal widths; its own is within 0.1 % of
    ``width`` (Olivero & Longbothum 1977).
    """
    if shape == "gaussian":
        return np.exp(-4 * math.log(2) * (distance / width) ** 2)
    if shape == "lorentzian":
        return 1 / (1 + 4 * (distance / width) ** 2)
    own = width / (0.5346 + math.sqrt(0.2166 + 1))  # full width of each of the two
    sigma, gamma = own / (2 * math.sqrt(2 * math.log(2))), own / 2
    return voigt_profile(distance, sigma, gamma) / voigt_profile(0.0, sigma, gamma)
