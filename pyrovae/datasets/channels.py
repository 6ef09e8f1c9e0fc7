"""The channels of a model's data, stored beside the model and compared with those of new data."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch

from pyrovae.datasets.spectra import Spectra
from pyrovae.errors import InputError, one_line
from pyrovae.files import write_json

_FILE = "channels.json"
_COUNTED = ("channel", "pixel")
_TOLERANCE = 0.01
"""How far two positions of one channel may be apart, in steps of the axis."""


@dataclass(frozen=True)
class ChannelAxis:
    """The channels that a model was trained on.

    Attributes:
        names: as the file called them.
        positions: on the axis.
        unit: unit of the positions, empty if unknown, ``"channel"`` where they are counted.
    """

    names: tuple[str, ...]
    positions: tuple[float, ...]
    unit: str

    @classmethod
    def of(cls, spectra: Spectra) -> Self:
        """The channels of data."""
        return cls(spectra.channel_names, tuple(spectra.axis.tolist()), spectra.unit)

    def write(self, folder: Path) -> None:
        """Write them beside a model."""
        write_json(folder / _FILE, vars(self))

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """The channels beside a model; None where there are none, as version 0.1 wrote none.

        Raises:
            InputError: the file is damaged.
        """
        path = folder / _FILE
        if not path.is_file():
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            found = cls(
                tuple(map(str, content["names"])), tuple(map(float, content["positions"])), str(content["unit"])
            )
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(f"cannot read {path}: {one_line(error)}") from None
        if len(found.names) != len(found.positions):
            raise InputError(f"{path} is damaged: {len(found.names)} names for {len(found.positions)} positions")
        return found

    def matched(self, spectra: Spectra) -> Spectra:
        """The data at these channels, in their order; more channels than these are left out.

        Raises:
            InputError: the data have other channels.
        """
        n, found = len(self.positions), spectra.x.shape[1]
        if self.unit in _COUNTED and spectra.unit == self.unit and found >= n:
            return spectra if found == n else self._chosen(spectra)
        if self.unit in _COUNTED or spectra.unit in _COUNTED:
            if found != n:
                raise InputError(f"the data have {found} channels, and the model was trained on {n}")
            return spectra
        if self.unit and spectra.unit and self.unit != spectra.unit:
            raise InputError(f"the data's axis is in {spectra.unit}, and the model was trained on one in {self.unit}")
        return self._chosen(spectra)

    def _chosen(self, spectra: Spectra) -> Spectra:
        """The channels of data that are nearest to these."""
        wanted, axis = torch.tensor(self.positions, dtype=torch.float64), spectra.axis.double()
        distance, nearest = (wanted[:, None] - axis).abs().min(1)
        step = wanted.diff().abs().min() if len(wanted) > 1 else torch.tensor(1.0)
        wrong = distance > _TOLERANCE * step
        if wrong.any():
            k = int(wrong.nonzero()[0])
            raise InputError(
                f"the data have no channel at {self.positions[k]:g}, which the model was trained on (the nearest is "
                f"{float(axis[nearest[k]]):g}): the model's channels go from {self.positions[0]:g} to "
                f"{self.positions[-1]:g}, the data's from {float(axis[0]):g} to {float(axis[-1]):g}"
            )
        if len(axis) == len(wanted) and torch.equal(nearest, torch.arange(len(axis))):
            return spectra
        return spectra.at(nearest)
