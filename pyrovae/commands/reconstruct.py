"""``pyrovae reconstruct DIR DATA``."""

from dataclasses import dataclass

from pyrovae.commands._base import OnData, Summary
from pyrovae.datasets import Spectra


@dataclass
class Reconstruct(OnData):
    """Write the model's reconstruction of each datum, in the data's units."""

    num_samples: int = 100
    """Draws of z per datum."""

    def apply(self, data: Spectra) -> Summary:
        """Reconstruct."""
        table = self.trained.reconstructions(data.x, num_samples=self.num_samples, progress=not self.json)
        residual = data.x.double().numpy() - table.drop(columns="row").to_numpy(dtype=float)
        rmse = float((residual[residual == residual] ** 2).mean() ** 0.5)
        table.columns = ["row", *data.channel_names]
        path = self.write_rows(table, data, "reconstructions")
        text = f"reconstructions of {len(table)}, root mean square error {rmse:.4g}: {path}"
        return {"num": len(table), "rmse": rmse, "out": str(path), "text": text}
