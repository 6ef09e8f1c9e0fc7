"""``pyrovae impute DIR DATA``."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pyrovae.commands._base import OnData, Summary
from pyrovae.commands._read import ReadLine
from pyrovae.datasets import Spectra, TrainingRows
from pyrovae.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Impute(OnData):
    """Fill in missing values from the other values of the same datum, with an interval for each."""

    COMMON = (*OnData.COMMON, "level", "refits", "training")

    missing: Literal["error", "mask"] = "mask"
    """Missing values (an empty field, NA, NaN): mask fills them in, error refuses them."""
    level: float = 0.9
    """Probability of an interval."""
    num_samples: int = 1000
    """Draws of z per datum, if the model is a VAE."""
    refits: int = 0
    """Refits of a linear model, such as 20: the intervals allow for its estimation. 0: they take it as known."""
    training: Path | None = None
    """For refits: file with the data that trained the model; by default the data themselves."""

    def apply(self, data: Spectra) -> Summary:
        """Impute."""
        import pandas as pd

        from pyrovae.fitted import Linear

        found = self.trained.impute(
            data.x,
            level=self.level,
            num_samples=self.num_samples,
            refits=self.refits,
            trained=self.trained_on(data) if self.refits else None,
            progress=not self.json,
        )
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
        if self.refits:
            text += f"\nthey allow for the estimation of the model ({self.refits} refits)"
        elif isinstance(self.trained.fitted, Linear):
            text += "\nthey take the fitted model as known; --refits 20 allows for its estimation"
        text += f"\nnote: the intervals of {unsure} data are not reliable (reliable = False)" if unsure else ""
        return {"num": len(rows), "num_unreliable": unsure, "out": str(path), "intervals": str(beside), "text": text}

    def trained_on(self, data: Spectra) -> "Tensor":
        """The rows that trained the model, (any, n)."""
        source, known = self.training or self.data, TrainingRows.read(self.folder)
        x = data.x if source == self.data else self.read(source, ReadLine(quiet=self.json)).x
        if known is None and self.training is not None:
            return x
        rows = x[:0] if known is None else x[known.are(x)]
        if known is None or known.missing_in(rows):
            raise InputError(
                f"--refits needs the data that trained the model, and {source} lacks some; give --training FILE"
            )
        return rows
