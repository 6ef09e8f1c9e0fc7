"""``pyrovae reconstruct DIR DATA``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyrovae.commands._base import OnData, Summary, with_names
from pyrovae.datasets import Spectra

if TYPE_CHECKING:
    from pyrovae.trained_model import TrainedModel


@dataclass
class Reconstruct(OnData):
    """Write the model's reconstruction of each datum, in the data's units."""

    num_samples: int = 100
    """Draws of z per datum."""

    def apply(self, trained: TrainedModel, data: Spectra) -> Summary:
        """Reconstruct."""
        draws = self.num_samples_given(self.num_samples)
        table = trained.reconstructions(data.x, num_samples=draws, progress=not self.json)
        residual = data.x.double().numpy() - table.drop(columns="row").to_numpy(dtype=float)
        rmse = float((residual[residual == residual] ** 2).mean() ** 0.5)
        table.columns = ["row", *data.channel_names]
        path = self.write(with_names(table, data), self.out, f"{self.data.stem}-reconstructions")
        text = f"reconstructions of {len(table)}, root mean square error {rmse:.4g}: {path}"
        return {"num": len(table), "rmse": rmse, "out": str(path), "text": text}
