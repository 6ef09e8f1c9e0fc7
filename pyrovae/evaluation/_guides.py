"""What the evaluations ask of a guide beyond being a Pyro program."""

from typing import Protocol, Self, TypeVar, cast, runtime_checkable

from pyro.distributions import TorchDistribution
from torch import Tensor

from pyrovae.errors import InputError

Guide = TypeVar("Guide")


@runtime_checkable
class PosteriorGuide(Protocol):
    """A guide that gives q(z|x) as a distribution, such as an ``AmortizedGuide`` or a ``PerDatumGuide``."""

    def posterior(self, x: Tensor) -> TorchDistribution:
        """q(z|x) of each datum."""
        ...


@runtime_checkable
class DataGuide(Protocol):
    """A guide with parameters for each datum of one data set, such as a ``PerDatumGuide``."""

    def __len__(self) -> int: ...

    def select(self, rows: slice) -> Self:
        """The guide of some of the data."""
        ...


def rows_of(guide: Guide, rows: slice, x: Tensor) -> Guide:
    """The guide for some of the data x: a guide with parameters for each datum selects theirs.

    Raises:
        InputError: such a guide belongs to another number of data.
    """
    if not isinstance(guide, DataGuide):
        return guide
    if len(guide) != len(x):
        raise InputError(f"this guide is for {len(guide)} data of its own, not for {len(x)}; use its select")
    return cast(Guide, guide.select(rows))
