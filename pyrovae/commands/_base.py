"""What the subcommands share: the trained model, the data, and where rows go."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from torch import Tensor

from pyrovae.commands._options import chosen, with_options
from pyrovae.datasets import ReadingSettings, read_data
from pyrovae.errors import InputError
from pyrovae.files import make_folder

if TYPE_CHECKING:
    import pandas as pd

    from pyrovae.trained_model import TrainedModel

Summary = dict[str, object]
"""What a subcommand found, as plain values; ``"text"`` is what it says without --json."""


@dataclass
class OnAModel:
    """A subcommand that applies a trained model."""

    model: tyro.conf.Positional[Path]
    """Folder that pyrovae fit wrote, or a .safetensors file."""

    def trained(self) -> "TrainedModel":
        """The model."""
        from pyrovae.trained_model import TrainedModel

        return TrainedModel.load(self.model)

    def write(self, table: "pd.DataFrame", out: Path | None, name: str) -> Path:
        """Write rows to ``out``, by default a CSV beside the model."""
        from pyrovae.trained_model import write_rows

        beside = self.model.parent if self.model.suffix == ".safetensors" else self.model
        path = out or beside / f"{name}.csv"
        if path.suffix not in (".csv", ".parquet"):
            raise InputError(f"--out {path} must end in .csv or .parquet")
        make_folder(path.parent)
        write_rows(path, table)
        return path


@with_options(ReadingSettings(), omit=("samples",))  # --samples is a number of draws here
@dataclass
class OnData(OnAModel):
    """A subcommand that applies a trained model to a file of data."""

    data: tyro.conf.Positional[Path]
    """CSV, TSV (also gzipped), .npy, .npz or .parquet, one datum a row, of the model's channels; or images."""
    out: Path | None = None
    """File to write, .csv or .parquet; by default a .csv beside the model."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print one line of JSON instead of words."""

    def read(self) -> Tensor:
        """The data (num, n)."""
        return read_data(self.data, chosen(self, ReadingSettings(), samples=None), to_train=False).x
