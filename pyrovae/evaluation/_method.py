"""Input and output of a method that estimates log p(x)."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import ClassVar, Self

import pyro.poutine as poutine
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from pyrovae.blocks import in_blocks
from pyrovae.errors import InputError
from pyrovae.evaluation._weights import check_density, check_rows_apart, takes_some
from pyrovae.evaluation.estimate import LogMarginal
from pyrovae.evaluation.per_datum import AnyGuide, rows_of
from pyrovae.frames import Data
from pyrovae.programs import Program, check_data, evaluating, running_on, takes_any_axes, trace_pair
from pyrovae.vae import GenerativeModel

ROWS_AT_ONCE = 2**13
"""Draws × data in one pass."""

VALUES_AT_ONCE = 2**20
"""Draws × data × the width of a datum in one pass."""

_LOOKED_AT = 64
"""Data that checks of the library's programs run on."""


class Center(StrEnum):
    """Where a grid lies, or where annealing starts."""

    PRIOR = "prior"
    GUIDE = "guide"
    MODE = "mode"


@dataclass(frozen=True)
class Problem:
    """Programs in evaluation mode, and the data whose log p(x) is wanted.

    Attributes:
        model: Pyro program of the joint density.
        guide: Pyro program of q(z|x).
        x: data (num, …).
        latents: the z that each x was simulated with, (num, latent_dim), for a bound from above.
        progress: whether to show a progress bar (on a terminal).
        max_rows: draws × data evaluated in one pass at most; wide data lower it. It bounds the memory.
        takes_some: whether the programs give a datum the same terms without the other data.
    """

    model: Program
    guide: Program
    x: Tensor
    latents: Tensor | None = None
    progress: bool = False
    max_rows: int = ROWS_AT_ONCE
    takes_some: bool = True

    @classmethod
    def of(
        cls,
        model: Program,
        guide: Program,
        x: Tensor,
        latents: Tensor | None = None,
        progress: bool = False,
    ) -> Self:
        """A problem whose programs were asked whether they take some of the data alone."""
        found = cls(model, guide, x, latents, progress)
        if found.is_dense:
            return found
        guide, x = found.looked_at(len(x))
        with running_on(x):
            return replace(found, takes_some=takes_some(model, guide, x, lambda rows: rows_of(guide, rows, x)))

    @property
    def has_parts(self) -> bool:
        """Whether the programs give p(z), p(x|z) and q(z|x) as distributions."""
        return isinstance(self.model, GenerativeModel) and isinstance(self.guide, AnyGuide)

    @property
    def is_dense(self) -> bool:
        """Whether the programs are the library's, of layers that keep the data's rows apart."""
        return self.has_parts and takes_any_axes(self.model) and takes_any_axes(self.guide)

    def looked_at(self, most: int) -> tuple[Program, Tensor]:
        """The first data, at most so many, that checks run on, and their guide; of the library's programs a few.

        All data of programs that take no part of them.
        """
        rows = slice(0, min(len(self.x), _LOOKED_AT if self.has_parts else most) if self.takes_some else None)
        return rows_of(self.guide, rows, self.x), self.x[rows]

    def check(self) -> None:
        """Raise an InputError where programs have no log p(x, z) and log q(z|x) of each datum."""
        self.check_rows_apart(is_density=True)

    def check_rows_apart(self, *, is_density: bool = False) -> None:
        """Raise an InputError where a datum's terms change with other data; for a density, those of the model alone."""
        if self.is_dense:
            return
        guide, x = self.looked_at(1024)
        with running_on(x):
            pair = trace_pair(self.model, guide, x, check=True)
            if is_density:
                check_density(pair)
            if not isinstance(poutine.unwrap(guide), Messenger):
                plate = pair.data_plate(len(x))
                check_rows_apart(self.model, guide, x, plate, takes_some=self.takes_some, of_guide=not is_density)

    def at_once(self, num: int) -> int:
        """How many data to evaluate in one pass, ``num`` if the programs take some of them."""
        return num if self.takes_some else len(self.x)

    def check_takes_some(self, what: str) -> None:
        """Raise an InputError where programs take only all of the data, and a method needs some."""
        if not self.takes_some:
            raise InputError(
                f"the terms of a datum change with its place or with the other data, and {what} takes some of them; "
                "let each row depend on its own x and z alone (a table of all data: add its rows to x)"
            )

    @property
    def rows_at_once(self) -> int:
        """Draws × data to evaluate in one pass."""
        return max(1, min(self.max_rows, VALUES_AT_ONCE // self.x[0].numel()))

    def parts(self, method: str) -> tuple[GenerativeModel, AnyGuide]:
        """The programs, for a method that needs p(z), p(x|z) and q(z|x) as distributions.

        Raises:
            InputError: programs that do not give them.
        """
        if not isinstance(self.model, GenerativeModel) or not isinstance(self.guide, AnyGuide):
            raise InputError(
                f"method={method!r} needs a GenerativeModel and an AmortizedGuide; use method='importance'"
            )
        return self.model, self.guide


@contextmanager
def problem_of(
    model: Program,
    guide: Program,
    x: Data,
    seed: int,
    *,
    latents: Tensor | None = None,
    progress: bool = False,
    part_for: str | None = None,
) -> Iterator[Problem]:
    """A problem after all checks; inside, its programs are evaluated without gradients, from a seed.

    Copies of programs that are modules, and the data likewise, are in float64: in float32 the density of a nearly
    singular q has no correct digits at its draws. Functions stay as they are.

    Args:
        model: Pyro program of the joint density.
        guide: Pyro program of q(z|x).
        x: data (num, …).
        seed: seed of the draws.
        latents: see :class:`Problem`.
        progress: see :class:`Problem`.
        part_for: what needs programs that take some of the data, if anything does.
    """
    x = check_data(x, model, guide)
    if isinstance(model, nn.Module) and isinstance(guide, nn.Module):
        model, guide, x = copy.deepcopy(model).double(), copy.deepcopy(guide).double(), in_blocks(Tensor.double, x)
    with torch.no_grad(), evaluating(model, guide, x, seed):
        problem = Problem.of(model, guide, x, latents, progress)
        problem.check()
        if part_for is not None:
            problem.check_takes_some(part_for)
        yield problem


@dataclass(frozen=True)
class Method(ABC):
    """A way to estimate log p(x); its fields are its options.

    Attributes:
        name: what :func:`~pyrovae.log_marginal` calls it.
        takes_latents: whether it gives a bound from above of data that were simulated with known latents.
    """

    name: ClassVar[str]
    takes_latents: ClassVar[bool] = False

    @abstractmethod
    def estimate(self, problem: Problem) -> LogMarginal:
        """Estimate log p(x) of each datum, without gradients and under the random state as it is."""
