"""``pyrovae reconstruct DIR DATA``."""

from dataclasses import dataclass

from pyrovae.commands._base import OnData, Summary


@dataclass
class Reconstruct(OnData):
    """Write what the model makes of each datum, in the data's own units."""

    samples: int = 100
    """Draws of z per datum."""

    def __call__(self) -> Summary:
        """Reconstruct."""
        x = self.read()
        table = self.trained().reconstructions(x, num_samples=self.samples, progress=not self.json)
        residual = x.double().numpy() - table.drop(columns="row").to_numpy(dtype=float)
        rmse = float((residual[residual == residual] ** 2).mean() ** 0.5)
        path = self.write(table, self.out, f"{self.data.stem}-reconstructions")
        text = f"reconstructions of {len(table)}, root mean square error {rmse:.4g}: {path}"
        return {"num": len(table), "rmse": rmse, "out": str(path), "text": text}
