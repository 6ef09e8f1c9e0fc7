"""``pyrovae outliers DIR DATA``."""

import math
from dataclasses import dataclass
from pathlib import Path

from pyrovae.commands._base import OnData, Summary
from pyrovae.commands._read import ReadLine
from pyrovae.datasets import Spectra, TrainingRows
from pyrovae.errors import InputError

_NAMED = 3
"""Number of channels named for each datum."""
_FEW = 3
"""If fewer of the held-out data can be outliers, they may hide each other, which is said."""


@dataclass
class Outliers(OnData):
    """Find outliers, with at most a share alpha of false alarms, and name the channels that fit worst."""

    COMMON = (*OnData.COMMON, "calibration", "alpha")

    calibration: Path | None = None
    """File of good data; by default the data themselves. Rows that trained the model are left out."""
    alpha: float = 0.01
    """Share of good data that may be called outliers."""
    num_samples: int = 300
    """Draws of z per datum, if the model is a VAE."""

    def apply(self, data: Spectra) -> Summary:
        """Find them."""
        from pyrovae.fitted import Linear

        if not 0 < self.alpha < 1:
            raise InputError(f"--alpha must be between 0 and 1, not {self.alpha}")
        known = TrainingRows.read(self.folder)
        has_trained = None if known is None else known.are(data.x)
        source = self.calibration or self.data
        if source != self.data:
            rows = self.read(source, ReadLine(quiet=self.json)).x
            held_out = rows if known is None else rows[~known.are(rows)]
        elif has_trained is not None and has_trained.any():
            held_out = data.x[~has_trained]
        else:
            raise InputError(f"the model was not trained on {self.data}: give --calibration FILE with good data")
        least = math.ceil(1 / self.alpha - 1e-9) - (0 if source == self.data else 1)
        if len(held_out) < least:
            raise InputError(
                f"--alpha {self.alpha:g} needs at least {least} data that did not train the model, and "
                f"{source} has {len(held_out)}; give more, or a larger --alpha"
            )
        table, misfits = self.trained.outliers(
            data.x, held_out, trained=has_trained, num_samples=self.num_samples, progress=not self.json
        )
        table["outlier"] = table["p_value"] <= self.alpha
        table["trained"] = False if has_trained is None else has_trained.numpy()
        largest = misfits.topk(min(_NAMED, misfits.shape[1]), dim=1)
        table["channels"] = [
            ", ".join(
                f"{data.channel_names[j]} ({value:.1f})" for value, j in zip(values, places, strict=True) if value
            )
            for values, places in zip(largest.values.tolist(), largest.indices.tolist(), strict=True)
        ]
        found = table[table["outlier"]].sort_values("log_prob")
        path = self.write_rows(table, data, "outliers")
        text = f"{len(found)} of {len(table)} data are outliers at alpha = {self.alpha:g}"
        text += f" (held out: {len(held_out)} data): {path}"
        if num_trained := int(table["trained"].sum()):
            how = "they seem likelier than they are"
            if isinstance(self.trained.fitted, Linear):
                how = "each was judged by a model fitted without it"
            text += f"\n{num_trained} of the {len(table)} data trained the model; {how}"
        most = math.floor(self.alpha * len(held_out) + 1e-9)
        if source == self.data and most < _FEW:
            text += (
                f"\nof the {len(held_out)} held-out data at most {most} can be outliers at this alpha, as they are "
                "compared with each other: look at the lowest log_prob in the file, or give more data"
            )
        for row, channels in list(zip(found["row"], found["channels"], strict=True))[:10]:
            text += f"\n{data.row_names[row]}: {channels}"
        outliers = [data.row_names[row] for row in found["row"]]
        return {"num": len(table), "num_held_out": len(held_out), "outliers": outliers, "out": str(path), "text": text}
