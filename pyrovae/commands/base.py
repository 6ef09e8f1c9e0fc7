"""What the subcommands share: where rows go, and what is said at the end."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import tyro
from torch import Tensor

from pyrovae.datasets import read_data
from pyrovae.errors import InputError
from pyrovae.files import make_folder
from pyrovae.trained_model import TrainedModel, write_rows

Summary = dict[str, Any]
"""What a subcommand found, as plain values; ``"text"`` is what it says without --json."""


@dataclass
class OnAModel:
    """A subcommand that applies a trained model."""

    model: tyro.conf.Positional[Path]
    """Folder that pyrovae fit wrote, or a .safetensors file."""

    def trained(self) -> TrainedModel:
        """The model."""
        return TrainedModel.load(self.model)

    def write(self, table: pd.DataFrame, out: Path | None, name: str) -> Path:
        """Write rows to ``out``, by default a CSV beside the model."""
        beside = self.model.parent if self.model.suffix == ".safetensors" else self.model
        path = out or beside / f"{name}.csv"
        if path.suffix not in (".csv", ".parquet"):
            raise InputError(f"--out {path} must end in .csv or .parquet")
        make_folder(path.parent)
        write_rows(path, table)
        return path


@dataclass
class OnData(OnAModel):
    """A subcommand that applies a trained model to a file of data."""

    data: tyro.conf.Positional[Path]
    """CSV, TSV (also gzipped), .npy, .npz or .parquet, one datum a row, of the model's channels; or images."""
    channels: str | None = None
    """Prefix of the columns that are channels, where they are not found by themselves."""
    missing: str = "error"
    """What a missing value is: error, or mask for one that was not observed."""
    out: Path | None = None
    """File to write, .csv or .parquet; by default a .csv beside the model."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print one line of JSON instead of words."""

    def read(self) -> Tensor:
        """The data (num, n)."""
        return read_data(self.data, channels=self.channels, missing=self.missing, to_train=False).x
