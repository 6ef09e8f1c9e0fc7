"""Mean, variance and signal-to-noise ratio of a gradient's parts, from sums over its repeats."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

_GROUPS = 32
"""Groups of repeats that the jackknife leaves out one by one."""


class Part(StrEnum):
    """A part of the two programs; ``ENCODER`` is all of an ``AmortizedGuide``, ``GUIDE`` any other guide."""

    LOCATION_HEAD = "encoder location head"
    COVARIANCE_HEAD = "encoder covariance head"
    BODY = "encoder body"
    ENCODER = "encoder"
    GUIDE = "guide"
    DECODER = "decoder"


@dataclass(frozen=True)
class PartStatistics:
    """Statistics of the gradient of one part, of the loss in nats per datum; ± by the jackknife.

    Attributes:
        part: which.
        num_parameters: its size.
        mean_norm: ‖E g‖, with the noise's part subtracted; 0 where the noise is larger.
        variance: tr Cov(g), summed over the part's parameters.
        variance_stderr: its standard error.
        snr: signal-to-noise ratio ‖E g‖ / √(tr Cov(g)); 0 where the noise hides the mean (its standard
            error may then be 0 as well), infinite without noise, NaN where the gradient is 0.
        snr_stderr: its standard error.
        variance_seconds: variance × seconds of one gradient; smaller is better: n times the speed outweighs n times the
            variance.
    """

    part: Part
    num_parameters: int
    mean_norm: float
    variance: float
    variance_stderr: float
    snr: float
    snr_stderr: float
    variance_seconds: float


class GradientSums:
    """Sums of gradients by group of repeats, relative to the first gradient so that no digits are lost.

    Args:
        parts: positions of each part's entries in a gradient.
        chunks: rows (num, 1 + parameters) of a loss and its gradient.
        num_repeats: number of rows in all, at least 2.
    """

    def __init__(self, parts: dict[Part, Tensor], chunks: Iterator[Tensor], num_repeats: int) -> None:
        self.parts, self.num_repeats = parts, num_repeats
        self._groups = min(_GROUPS, num_repeats)
        self._counts = torch.zeros(self._groups, dtype=torch.float64)
        losses: list[Tensor] = []
        row = 0
        for chunk in chunks:
            rows = chunk.detach().double().cpu()
            losses.append(rows[:, 0])
            gradients = rows[:, 1:]
            if row == 0:
                self._origin = gradients[0].clone()
                self._sums = torch.zeros(self._groups, gradients.shape[1], dtype=torch.float64)
                self._squares = {part: torch.zeros(self._groups, dtype=torch.float64) for part in parts}
            shifted = gradients - self._origin
            group = (torch.arange(row, row + len(rows)) * self._groups) // num_repeats
            self._sums.index_add_(0, group, shifted)
            self._counts.index_add_(0, group, torch.ones(len(rows), dtype=torch.float64))
            for part, entries in parts.items():
                self._squares[part].index_add_(0, group, shifted[:, entries].square().sum(1))
            row += len(rows)
        self.losses = torch.cat(losses)
        """Each repeat's loss, shape (num_repeats,)."""
        self.mean = self._origin + self._sums.sum(0) / num_repeats
        """The mean gradient, shape (parameters,)."""

    def statistics(self, part: Part, seconds: float) -> PartStatistics:
        """The statistics of one part's gradient, of which one takes so many seconds."""
        entries, squares, total = self.parts[part], self._squares[part], self._sums.sum(0)
        num = torch.tensor(self.num_repeats, dtype=torch.float64)
        signal, variance, snr = self._moments(total[entries], squares.sum(), num, entries)
        variance_stderr = snr_stderr = math.nan
        if self._groups > 2:
            _, variances, snrs = self._moments(
                (total - self._sums)[:, entries], squares.sum() - squares, num - self._counts, entries
            )
            variance_stderr, snr_stderr = _jackknife(variances), _jackknife(snrs)
        return PartStatistics(
            part=part,
            num_parameters=len(entries),
            mean_norm=signal.clamp_min(0).sqrt().item(),
            variance=variance.item(),
            variance_stderr=variance_stderr,
            snr=snr.item(),
            snr_stderr=snr_stderr,
            variance_seconds=variance.item() * seconds,
        )

    def _moments(self, sums: Tensor, squares: Tensor, num: Tensor, entries: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """‖E g‖² without the noise's share, tr Cov(g) and the signal-to-noise ratio, of one or many sets of repeats."""
        variance = ((squares - sums.square().sum(-1) / num) / (num - 1)).clamp_min(0)
        mean = self._origin[entries] + sums / num.unsqueeze(-1)
        signal = mean.square().sum(-1) - variance / num
        return signal, variance, (signal.clamp_min(0) / variance).sqrt()


def _jackknife(values: Tensor) -> float:
    """Standard error from the values with one group left out each."""
    groups = len(values)
    return ((groups - 1) / groups * (values - values.mean()).square().sum()).sqrt().item()
