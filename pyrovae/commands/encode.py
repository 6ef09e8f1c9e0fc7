"""``pyrovae encode DIR DATA``."""

from dataclasses import dataclass

from pyrovae.commands._base import OnData, Summary
from pyrovae.datasets import Spectra


@dataclass
class Encode(OnData):
    """Write the mean and the covariance of q(z|x) for each datum."""

    def apply(self, data: Spectra) -> Summary:
        """Encode."""
        table = self.trained.latents(data.x, progress=not self.json)
        path = self.write_rows(table, data, "latents")
        return {"num": len(table), "out": str(path), "text": f"latent means and covariances of {len(table)}: {path}"}
