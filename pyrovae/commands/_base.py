"""What the subcommands share: the trained model, the data and the output file."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import tyro

from pyrovae.commands._options import chosen, with_options
from pyrovae.commands._read import ReadLine, Summary
from pyrovae.datasets import ChannelAxis, ReadingSettings, Spectra, read_data
from pyrovae.errors import InputError
from pyrovae.files import make_folder

if TYPE_CHECKING:
    import pandas as pd

    from pyrovae.trained_model import TrainedModel

__all__ = ["OnAModel", "OnData", "Summary"]


@dataclass
class OnAModel:
    """A subcommand that applies a trained model."""

    model: tyro.conf.Positional[Path]
    """Folder that pyrovae fit wrote, or a .safetensors file."""

    @property
    def folder(self) -> Path:
        """The model's folder."""
        return self.model.parent if self.model.suffix == ".safetensors" else self.model

    def trained(self) -> "TrainedModel":
        """The model."""
        from pyrovae.trained_model import TrainedModel

        return TrainedModel.load(self.model)

    def write(self, table: "pd.DataFrame", out: Path | None, name: str) -> Path:
        """Write rows to ``out``, by default a CSV beside the model."""
        from pyrovae.trained_model import write_rows

        path = out or self.folder / f"{name}.csv"
        if path.suffix not in (".csv", ".parquet"):
            raise InputError(f"--out {path} must end in .csv or .parquet")
        make_folder(path.parent)
        write_rows(path, table)
        return path


@with_options(ReadingSettings(), omit=("samples",))
@dataclass
class OnData(OnAModel):
    """A subcommand that applies a trained model to a file of data."""

    COMMON: ClassVar[tuple[str, ...]] = (
        "out", "num_samples", "channels", "samples", "axis", "label", "drop", "missing", "missing_value", "table",
        "dry_run", "json",
    )  # fmt: skip
    """Options of the brief help."""

    data: tyro.conf.Positional[Path]
    """File or folder of data with the model's channels, in any format that `pyrovae fit` reads."""
    out: Path | None = None
    """File to write, .csv or .parquet; by default a .csv beside the model."""
    samples: Literal["rows", "columns"] | int | None = None
    """Whether a sample is a row or a column of the file. By default this is found from the file."""
    dry_run: bool = False
    """Say what was read from the file, then stop."""
    json: bool = False
    """Print one line of JSON instead of words."""

    def __call__(self) -> Summary:
        """Read the data, say what was read, and apply the model."""
        said, trained = ReadLine(quiet=self.json), self.trained()
        data = self.read(self.data, said)
        if self.dry_run:
            return said.summary()
        return {**self.apply(trained, data), **said.said}

    def read(self, path: Path, said: ReadLine) -> Spectra:
        """Read the data, keep the model's channels, and say what was read."""
        axis = ChannelAxis.read(self.folder)
        samples = None if isinstance(self.samples, int) else self.samples
        data = read_data(path, chosen(self, ReadingSettings(), samples=samples), to_train=False)
        said(data)
        return data if axis is None else axis.matched(data)

    def apply(self, trained: "TrainedModel", data: Spectra) -> Summary:
        """Apply the model to data of its channels."""
        raise NotImplementedError

    def num_samples_given(self, usual: int) -> int:
        """The number of draws, which was called --samples in version 0.1."""
        if isinstance(self.samples, int):
            import warnings

            warnings.warn(f"--samples {self.samples} is now --num-samples {self.samples}", stacklevel=2)
            return self.samples
        return usual


def with_names(table: "pd.DataFrame", data: Spectra) -> "pd.DataFrame":
    """Add the file's labels of each datum after the row number."""
    taken = set(table.columns)
    about = data.targets.rename(columns={name: f"{name}_" for name in data.targets.columns if name in taken})
    for place, name in enumerate(about.columns, 1):
        table.insert(place, name, about[name].to_numpy())
    return table
