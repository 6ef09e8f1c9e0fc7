"""``pyrovae encode DIR DATA``."""

from dataclasses import dataclass

from pyrovae.commands._base import OnData, Summary


@dataclass
class Encode(OnData):
    """Write the mean and the covariance of q(z|x), one row a datum."""

    def __call__(self) -> Summary:
        """Encode."""
        table = self.trained().latents(self.read(), progress=not self.json)
        path = self.write(table, self.out, f"{self.data.stem}-latents")
        return {"num": len(table), "out": str(path), "text": f"latent means and covariances of {len(table)}: {path}"}
