"""Moments of gradients, summed up while they are made, with errors by the jackknife."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

Part = TypeVar("Part")

_GROUPS = 32
"""Groups of repeats that the jackknife leaves out one by one."""


@dataclass(frozen=True)
class Moments:
    """Moments of the gradient of some parameters.

    Attributes:
        signal: ‖E g‖² without the noise's share; below 0 where the noise hides it.
        variance: tr Cov(g).
        variance_stderr: its standard error.
        snr: √(signal / variance), 0 where the noise hides the signal.
        snr_stderr: its standard error.
    """

    signal: float
    variance: float
    variance_stderr: float
    snr: float
    snr_stderr: float


class GradientSums(Generic[Part]):
    """Sums of gradients by group of repeats, relative to the first gradient so that no digits are lost.

    Args:
        parts: positions of each part's entries in a gradient.
        chunks: rows (num, 1 + parameters) of a loss and its gradient.
        num_repeats: number of rows in all, at least 2.
    """

    def __init__(self, parts: Mapping[Part, Tensor], chunks: Iterator[Tensor], num_repeats: int) -> None:
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

    def moments(self, part: Part) -> Moments:
        """The moments of one part's gradient."""
        entries, squares, total = self.parts[part], self._squares[part], self._sums.sum(0)
        num = torch.tensor(self.num_repeats, dtype=torch.float64)
        signal, variance, snr = self._moments(total[entries], squares.sum(), num, entries)
        variance_stderr = snr_stderr = math.nan
        if self._groups > 2:
            _, variances, snrs = self._moments(
                (total - self._sums)[:, entries], squares.sum() - squares, num - self._counts, entries
            )
            variance_stderr, snr_stderr = _jackknife(variances), _jackknife(snrs)
        return Moments(signal.item(), variance.item(), variance_stderr, snr.item(), snr_stderr)

    def _moments(self, sums: Tensor, squares: Tensor, num: Tensor, entries: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Signal, variance and signal-to-noise ratio of one or many sets of repeats."""
        variance = ((squares - sums.square().sum(-1) / num) / (num - 1)).clamp_min(0)
        mean = self._origin[entries] + sums / num.unsqueeze(-1)
        signal = mean.square().sum(-1) - variance / num
        return signal, variance, (signal.clamp_min(0) / variance).sqrt()


def _jackknife(values: Tensor) -> float:
    """Standard error from the values with one group left out each."""
    groups = len(values)
    return ((groups - 1) / groups * (values - values.mean()).square().sum()).sqrt().item()
