"""Data to train an encoder on: draws from the model, and jittered training data."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pyrovae.distributions import mean_of
from pyrovae.evaluation.per_datum import NUM_DRAWS
from pyrovae.programs import undisturbed
from pyrovae.vae import AmortizedGuide, GenerativeModel


@dataclass(frozen=True)
class Draws:
    """Transform for training: replaces the data by new draws from the model each time.

    Args:
        model: in evaluation mode.
        observed: which values of real data are observed, booleans (num, n): where the model takes missing values, the
            draws lack some in the same patterns.
    """

    model: GenerativeModel
    observed: Tensor = field(repr=False)

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """One draw for each datum of x (num, n)."""
        with _from(generator, x, self.model):
            return self.draw(len(x)).to(x)

    def draw(self, num: int) -> Tensor:
        """The given number of draws, under torch's random state."""
        x = self.model.sample(num)
        return _with_gaps(x, self.observed) if self.model.missing else x


_SHARE_OF_DRAWS = 0.25
_WIDENED = 0.5
"""Size of a move of z, in units of the difference of two data's z."""
_RESIDUALS = 3
"""Residuals that are combined."""
_RESIDUAL_SIZES = (0.3, 5.0)
"""Of such a combination, in units of a residual."""
_NOISE_SIZES = (0.03, 1.0)
"""Of white noise, in units of the data's standard deviation."""


class Jittered:
    """Transform for training: training data with new jitter each time, and a quarter draws from the model.

    A datum becomes x̂(z) + r + s Σ_k ε_k r_k + t ε, where each of four moves is made or left out at random: z and the
    residual r = x − x̂ on their way to those of another datum; z away along a difference of two data's; a combination
    of residuals of others, from less than one to a few times as large (what a model does not explain is not white); and
    white noise.

    Args:
        model: in evaluation mode.
        guide: at whose posterior means the residuals are taken.
        x: training data (num, n).
    """

    def __init__(self, model: GenerativeModel, guide: AmortizedGuide, x: Tensor) -> None:
        self._model, self._observed = model, ~x.isnan()
        with torch.no_grad(), undisturbed(x, model, guide):
            torch.manual_seed(0)
            self._z = mean_of(guide.posterior(x), num_draws=NUM_DRAWS)
            reconstructed = self._reconstructed(self._z)
            self._x = torch.where(self._observed, x, reconstructed)
            self._residuals = self._x - reconstructed
        self._draws = Draws(model, self._observed)
        self._spread = self._x.std(correction=0)

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """As many data as x (num, n) has."""
        with _from(generator, x, self._model):
            num = math.ceil(_SHARE_OF_DRAWS * len(x))
            return torch.cat([self._draws.draw(num), self._jittered(len(x) - num)]).to(x)

    def _jittered(self, num: int) -> Tensor:
        z, residuals = self._z, self._residuals
        first, second, third, fourth = (self._rows(num) for _ in range(4))
        way = self._some(num) * self._uniform(num)
        z = torch.lerp(z[first], z[second], way) + _WIDENED * self._some(num) * (z[third] - z[fourth])
        x = self._reconstructed(z) + torch.lerp(residuals[first], residuals[second], way)
        size = self._some(num) * self._log_uniform(num, *_RESIDUAL_SIZES) / math.sqrt(_RESIDUALS)
        for _ in range(_RESIDUALS):
            x = x + size * torch.randn_like(size) * residuals[self._rows(num)]
        x = x + self._some(num) * self._log_uniform(num, *_NOISE_SIZES) * self._spread * torch.randn_like(x)
        for replaced in (self._mixed_with_draws, lambda rows: self._predicted(self._z[rows])):
            outside = ~self._model.likelihood.in_support(x).all(1)
            if outside.any():
                x[outside] = replaced(first[outside])
        return _with_gaps(x, self._observed) if self._model.missing else x

    def _reconstructed(self, z: Tensor) -> Tensor:
        """The mean of p(x|z), or a draw where it has none."""
        p = self._model.likelihood(self._model.decoder(z))
        try:
            mean: Tensor = p.mean
        except NotImplementedError:
            return self._predicted(z)
        return mean

    def _predicted(self, z: Tensor) -> Tensor:
        drawn: Tensor = self._model.likelihood(self._model.decoder(z)).sample()
        return drawn

    def _mixed_with_draws(self, rows: Tensor) -> Tensor:
        """Training data of which a random share of the values is drawn from p(x|z) at their z instead."""
        x = self._x[rows]
        return torch.where(torch.rand_like(x) < self._uniform(len(rows)), self._predicted(self._z[rows]), x)

    def _rows(self, num: int) -> Tensor:
        return torch.randint(len(self._z), (num,), device=self._z.device)

    def _uniform(self, num: int) -> Tensor:
        return torch.rand(num, 1, dtype=self._z.dtype, device=self._z.device)

    def _some(self, num: int) -> Tensor:
        """1 or 0 at random, shape (num, 1)."""
        return (self._uniform(num) < 0.5).to(self._z)

    def _log_uniform(self, num: int, low: float, high: float) -> Tensor:
        return low * (high / low) ** self._uniform(num)


def _with_gaps(x: Tensor, observed: Tensor) -> Tensor:
    """Data x (num, n) that lack what random rows of ``observed`` lack."""
    rows = torch.randint(len(observed), (len(x),), device=observed.device)
    return x.masked_fill(~observed[rows], math.nan)


@contextmanager
def _from(generator: torch.Generator, x: Tensor, model: GenerativeModel) -> Iterator[None]:
    """Draw what follows from a seed that the generator gives; torch's random state does not change."""
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    with torch.no_grad(), undisturbed(x, model):
        torch.manual_seed(seed)
        yield
