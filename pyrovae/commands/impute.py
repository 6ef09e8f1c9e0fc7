"""``pyrovae impute DIR DATA``."""

from dataclasses import dataclass
from typing import Literal

from pyrovae.commands._base import OnData, Summary
from pyrovae.datasets import Spectra


@dataclass
class Impute(OnData):
    """Fill in missing values from the other values of the same datum, with an interval for each."""

    COMMON = (*OnData.COMMON, "level")

    missing: Literal["error", "mask"] = "mask"
    """Missing values (an empty field, NA, NaN): mask fills them in, error refuses them."""
    level: float = 0.9
    """Probability of an interval."""
    num_samples: int = 1000
    """Draws of z per datum, if the model is a VAE."""

    def apply(self, data: Spectra) -> Summary:
        """Impute."""
        import pandas as pd

        found = self.trained.impute(data.x, level=self.level, num_samples=self.num_samples, progress=not self.json)
        table = pd.DataFrame(found.mean.numpy(), columns=list(data.channel_names))
        table.insert(0, "row", range(len(table)))
        path = self.write_rows(table, data, "imputed")
        rows, channels = data.x.isnan().nonzero(as_tuple=True)
        intervals = pd.DataFrame(
            {
                "row": rows.numpy(),
                "name": [data.row_names[i] for i in rows],
                "channel": [data.channel_names[j] for j in channels],
                **{name: getattr(found, name)[rows, channels].numpy() for name in ("mean", "lower", "upper")},
                "reliable": found.reliable[rows].numpy(),
            }
        )
        beside = self.write(intervals, path.with_name(f"{path.stem}-intervals{path.suffix}"), "")
        unsure = int((~found.reliable[rows.unique()]).sum())
        text = f"{len(rows)} missing values of {len(rows.unique())} data filled in: {path}\n"
        text += f"{100 * self.level:.0f} % intervals: {beside}"
        text += f"\nnote: the intervals of {unsure} data are not reliable (reliable = False)" if unsure else ""
        return {"num": len(rows), "num_unreliable": unsure, "out": str(path), "intervals": str(beside), "text": text}
