"""Calibration of q(z|x) on data simulated from the model (Talts et al. 2018)."""

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
    """Ranks of the true z of simulated data among draws from q(z|x).

    Attributes:
        ranks: share of the draws that are smaller, in (0, 1), shape (num, d + 1): for each dimension of z, and last for
            log q(z|x). All are uniform if q(z|x) is the posterior.
    """

    ranks: Tensor

    @property
    def names(self) -> tuple[str, ...]:
        """The quantity of each column of ``ranks``."""
        return (*(f"z_{j}" for j in range(1, self.ranks.shape[1])), "log q(z|x)")

    @property
    def p_values(self) -> dict[str, float]:
        """P-values of the Kolmogorov–Smirnov test that the ranks are uniform, by name."""
        from scipy.stats import kstest

        tests = (kstest(ranks.numpy(), "uniform", method="asymp") for ranks in self.ranks.T)
        return {name: float(test.pvalue) for name, test in zip(self.names, tests, strict=True)}

    @property
    def p_value(self) -> float:
        """P-value for all together (Bonferroni). Below 0.01, q(z|x) is hardly the posterior."""
        return min(1.0, len(self.names) * min(self.p_values.values()))

    def coverage(self, level: float = 0.9) -> dict[str, float]:
        """Share of the true z inside q's central interval of this probability, by dimension."""
        if not 0 < level < 1:
            raise InputError(f"level must be between 0 and 1, not {level!r}")
        inside = (2 * self.ranks[:, :-1] - 1).abs() <= level
        return dict(zip(self.names, inside.double().mean(0).tolist(), strict=False))

    def plot(self) -> Figure:
        """Plot the ranks' distribution minus the uniform one, with the 95 % band of exact posteriors.

        A curve that first falls shows a q that is too wide; a curve that first rises, a q that is too narrow.
        """
        fig, axes = figure(1, size=4.5)
        ax, num = axes[0, 0], len(self.ranks)
        shares = (torch.arange(num) + 1) / num
        for color, name, ranks in zip(_colors(len(self.names)), self.names, self.ranks.T, strict=True):
            ordered = ranks.sort().values
            ax.plot(ordered, shares - ordered, color=color, linewidth=1, label=name)
        reach = 1.36 / math.sqrt(num)  # of Kolmogorov's distribution
        ax.axhspan(-reach, reach, color="0.9", zorder=0)
        ax.set(xlabel="rank of the true z among draws of q(z|x)", ylabel="distribution minus uniform")
        if len(self.names) <= len(COLORS):
            ax.legend(frameon=False)
        return fig

    def __repr__(self) -> str:
        return f"Calibration({self})"

    def __str__(self) -> str:
        low, high = (f(self.coverage(0.9).values()) for f in (min, max))
        return (
            f"test that q(z|x) is the posterior: p = {self.p_value:.2g}; its 90 % intervals hold {100 * low:.1f} % to "
            f"{100 * high:.1f} %, {len(self.ranks)} simulated data"
        )


@torch.no_grad()
def calibration(
    model: GenerativeModel, guide: AmortizedGuide, *, num: int = 2000, num_draws: int = 199, seed: int = 0
) -> Calibration:
    """Simulate z ~ p(z) and x ~ p(x|z), and rank z among draws from q(z|x): simulation-based calibration.

    If q(z|x) is the posterior, the rank of each z_j is uniform. So is the rank of log q(z|x), which also detects
    missing correlations (Modrák et al. 2023). A q that is too narrow has too many ranks near 0 and 1. This tests q on
    the model's own data. It does not test how well the model fits real data.

    Args:
        model: the generative model.
        guide: its guide.
        num: number of simulated data. 2,000 detect a q whose standard deviations are 20 % too small.
        num_draws: draws from q(z|x) for each.
        seed: seed of the simulation and the draws; the caller's random state does not change.

    Raises:
        InputError: fewer than 100 data, or fewer than 19 draws.

    Example:
        >>> import pyrovae as pv
        >>> loadings = torch.tensor([[3.0, 0.0], [3.0, 0.0], [0.0, 0.5], [0.0, 0.5]])
        >>> truth = pv.exact.LinearGaussianVAE(loadings, 0.5, torch.zeros(4))
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
