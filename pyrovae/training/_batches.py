"""The data of an epoch: in a new order, and transformed again if a transform is given."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import overload

import torch
from torch import Tensor

from pyrovae.blocks import gathered, in_blocks, is_mapped
from pyrovae.errors import InputError

Transform = Callable[[Tensor, torch.Generator], Tensor]
"""Data (num, …) and a generator of random numbers on their device -> data of the same shape and dtype."""


@dataclass(frozen=True)
class Order(Sequence[Tensor]):
    """Indices (R, size) of batches, of which the last may be smaller; a slice is an order, too.

    Attributes:
        rows: indices of all of them, shape (R, num).
        batch_size: data per batch.
    """

    rows: Tensor
    batch_size: int

    def __len__(self) -> int:
        return math.ceil(self.rows.shape[1] / self.batch_size)

    @overload
    def __getitem__(self, key: int) -> Tensor: ...
    @overload
    def __getitem__(self, key: slice) -> "Order": ...
    def __getitem__(self, key: int | slice) -> "Tensor | Order":
        if isinstance(key, int):
            first = range(len(self))[key] * self.batch_size
            return self.rows[:, first : first + self.batch_size]
        start, stop, _ = key.indices(len(self))
        return Order(self.rows[:, start * self.batch_size : stop * self.batch_size], self.batch_size)

    def stacked(self) -> Tensor:
        """Batches of one size as one tensor, shape (batches, R, size)."""
        return self.rows.reshape(len(self.rows), len(self), -1).transpose(0, 1).contiguous()


class Batches:
    """Mini-batches of the data, epoch by epoch, for replicas that differ in their seeds.

    An epoch depends only on the generators' states at its beginning, so an interrupted epoch can be resumed.

    Args:
        x: data (num, …).
        batch_size: data per step; the last batch of an epoch may be smaller.
        seeds: one seed per replica, for its batches.
        transform: applied to the data at the start of each epoch, such as :func:`~pyrovae.datasets.binarize`.

    Attributes:
        in_order: whether the data keep their order in each epoch.
    """

    def __init__(self, x: Tensor, batch_size: int, seeds: Sequence[int], transform: Transform | None = None) -> None:
        self.x, self.batch_size, self.transform = x, batch_size, transform
        self.in_order = False
        self.steps_per_epoch = math.ceil(len(x) / batch_size)
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.states = [generator.get_state() for generator in self._generators]

    def epoch(self) -> tuple[Tensor, Order]:
        """The data of the current epoch, and the indices (R, size) of its batches.

        Raises:
            InputError: the transform gave data of another shape or dtype.
        """
        for generator, state in zip(self._generators, self.states, strict=True):
            generator.set_state(state)
        order = torch.stack([torch.randperm(len(self.x), generator=generator) for generator in self._generators])
        if self.in_order:
            order = torch.arange(len(self.x)).expand_as(order).clone()
        x = self.x
        if self.transform is not None:
            # each replica has its own data, one replica's after the other's
            parts = (self._transformed(generator) for generator in self._generators)
            x = gathered(parts) if is_mapped(self.x) else torch.cat(list(parts))
            order += len(self.x) * torch.arange(len(order)).unsqueeze(-1)
        return x, Order(order.to(x.device), self.batch_size)

    def _transformed(self, generator: torch.Generator) -> Tensor:
        assert self.transform is not None
        seed = int(torch.randint(2**62, (), generator=generator))
        random = torch.Generator(self.x.device).manual_seed(seed)
        transform = self.transform
        return in_blocks(lambda rows: self._checked(transform(rows, random), rows), self.x)

    @staticmethod
    def _checked(x: object, given: Tensor) -> Tensor:
        if not isinstance(x, Tensor) or x.shape != given.shape or x.dtype != given.dtype:
            found = f"{x.dtype} of shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            wanted = f"{given.dtype} of shape {tuple(given.shape)}"
            raise InputError(f"transform must keep the dtype and shape of its data, {wanted}, not {found}")
        return x

    def end_epoch(self) -> None:
        """Begin the next epoch; call it after :meth:`data` of the current one."""
        self.states = [generator.get_state() for generator in self._generators]
