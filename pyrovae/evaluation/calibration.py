"""Whether the probabilities of q(z|x) hold, on data simulated from the model (Talts et al. 2018)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pyrovae.errors import InputError, check_integer
from pyrovae.plotting import COLORS, figure
from pyrovae.programs import check_data, evaluating
from pyrovae.vae import AmortizedGuide, GenerativeModel

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ROWS_AT_ONCE = 2**15
"""Draws × data in one pass."""


@dataclass(frozen=True, repr=False)
class Calibration:
    """Ranks of the z that data were simulated with, among draws from q(z|x).

    Attributes:
        ranks: share of the draws that are smaller, in (0, 1), shape (num, d + 1): of each dimension of z, and last of
            log q(z|x). All are uniform if q(z|x) is the posterior.
    """

    ranks: Tensor

    @property
    def names(self) -> tuple[str, ...]:
        """What each column of ``ranks`` is of."""
        return (*(f"z_{j}" for j in range(1, self.ranks.shape[1])), "log q(z|x)")

    @property
    def p_values(self) -> dict[str, float]:
        """Of Kolmogorov and Smirnov's test that the ranks are uniform, by name."""
        from scipy.stats import kstest

        tests = (kstest(ranks.numpy(), "uniform", method="asymp") for ranks in self.ranks.T)
        return {name: float(test.pvalue) for name, test in zip(self.names, tests, strict=True)}

    @property
    def p_value(self) -> float:
        """The smallest of them, for all together (Bonferroni): below 0.01, q(z|x) is hardly the posterior."""
        return min(1.0, len(self.names) * min(self.p_values.values()))

    def coverage(self, level: float = 0.9) -> dict[str, float]:
        """Share of the z inside q's central interval of this probability, by dimension."""
        if not 0 < level < 1:
            raise InputError(f"level must be between 0 and 1, not {level!r}")
        inside = (2 * self.ranks[:, :-1] - 1).abs() <= level
        return dict(zip(self.names, inside.double().mean(0).tolist(), strict=False))

    def plot(self) -> Figure:
        """How far the ranks' distribution lies above the uniform one, with the band of 95 % of right posteriors.

        An S that falls at first is a q too wide; one that rises at first is a q too narrow.
        """
        fig, axes = figure(1, size=4.5)
        ax, num = axes[0, 0], len(self.ranks)
        shares = (torch.arange(num) + 1) / num
        for color, name, ranks in zip(_colors(len(self.names)), self.names, self.ranks.T, strict=True):
            ordered = ranks.sort().values
            ax.plot(ordered, shares - ordered, color=color, linewidth=1, label=name)
        reach = 1.36 / math.sqrt(num)  # of Kolmogorov's distribution
        ax.axhspan(-reach, reach, color="0.9", zorder=0)
        ax.set(xlabel="rank of the true z among draws of q(z|x)", ylabel="distribution less the uniform one")
        if len(self.names) <= len(COLORS):
            ax.legend(frameon=False)
        return fig

    def __repr__(self) -> str:
        return f"Calibration({self})"

    def __str__(self) -> str:
        low, high = (f(self.coverage(0.9).values()) for f in (min, max))
        return (
            f"test that q(z|x) is the posterior: p = {self.p_value:.2g}; its 90 % intervals hold {low:.1%} to "
            f"{high:.1%}, {len(self.ranks)} simulated data"
        )


@torch.no_grad()
def calibration(
    model: GenerativeModel, guide: AmortizedGuide, *, num: int = 2000, num_draws: int = 199, seed: int = 0
) -> Calibration:
    """Simulate z ~ p(z) and x ~ p(x|z), and rank z among draws from q(z|x): simulation-based calibration.

    If q(z|x) is the posterior, the rank of each z_j is uniform, and so is that of log q(z|x), which sees what single
    dimensions do not, such as correlations that q lacks (Modrák et al. 2023). A q that is too narrow has too many ranks
    near 0 and 1. The test is of q on the model's own data; that a model is calibrated says nothing of how well it fits
    other data.

    Args:
        model: the generative model.
        guide: its guide.
        num: number of simulated data. With 2,000 a q whose standard deviations are 20 % too small is found.
        num_draws: draws from q(z|x) of each.
        seed: of the simulation and the draws; the caller's random state is left as it was.

    Raises:
        InputError: fewer than 100 data, or fewer than 19 draws.

    Example:
        >>> import pyrovae as pv
        >>> truth = pv.exact.LinearGaussianVAE(torch.randn(4, 2), 0.5, torch.zeros(4))
        >>> found = calibration(truth.to_model(), truth.to_guide())
        >>> found.p_value > 0.01, calibration(truth.to_model(), truth.to_guide("isotropic")).p_value < 0.01
        (True, True)
    """
    check_integer("num", num, least=100)
    check_integer("num_draws", num_draws, least=19)
    like = next(model.parameters())
    with evaluating(model, guide, torch.zeros(1, dtype=like.dtype, device=like.device), seed):
        z, x = model.simulate(num)
        x, parts = check_data(x, model, guide), []
        for some_x, some_z in zip(*(t.split(max(1, _ROWS_AT_ONCE // num_draws)) for t in (x, z)), strict=True):
            q = guide.posterior(some_x)
            draws = q.sample(torch.Size([num_draws]))
            below, lower = (draws < some_z).sum(0), (q.log_prob(draws) < q.log_prob(some_z)).sum(0)
            counts = torch.cat([below, lower.unsqueeze(-1)], dim=-1)
            parts.append((counts + torch.rand(counts.shape, device=counts.device)) / (num_draws + 1))
    return Calibration(torch.cat(parts).double().cpu())


def _colors(num: int) -> list[str]:
    """A colour a line; of more lines than colours all but the last are grey."""
    return list(COLORS[:num]) if num <= len(COLORS) else ["0.6"] * (num - 1) + [COLORS[0]]
