"""``pyrovae sample DIR``."""

from dataclasses import dataclass
from pathlib import Path

from pyrovae.commands._base import OnAModel, Summary
from pyrovae.datasets import ChannelAxis


@dataclass
class Sample(OnAModel):
    """Draw data from the model, in the data's units."""

    num: int = 100
    """Number of draws."""
    seed: int = 0
    """Seed of the draws."""
    out: Path | None = None
    """File to write, .csv or .parquet; by default a .csv beside the model."""
    json: bool = False
    """Print one line of JSON instead of words."""

    def __call__(self) -> Summary:
        """Draw."""
        table = self.trained.samples(self.num, seed=self.seed)
        axis = ChannelAxis.read(self.folder)
        if axis is not None and len(axis.names) == table.shape[1] - 1:
            table.columns = ["row", *axis.names]
        path = self.write(table, self.out, "samples")
        return {"num": len(table), "out": str(path), "text": f"{len(table)} draws: {path}"}
