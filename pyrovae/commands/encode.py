"""``pyrovae encode DIR DATA``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyrovae.commands._base import OnData, Summary, with_names
from pyrovae.datasets import Spectra

if TYPE_CHECKING:
    from pyrovae.trained_model import TrainedModel


@dataclass
class Encode(OnData):
    """Write the mean and the covariance of q(z|x) for each datum."""

    def apply(self, trained: TrainedModel, data: Spectra) -> Summary:
        """Encode."""
        table = with_names(trained.latents(data.x, progress=not self.json), data)
        path = self.write(table, self.out, f"{self.data.stem}-latents")
        return {"num": len(table), "out": str(path), "text": f"latent means and covariances of {len(table)}: {path}"}
