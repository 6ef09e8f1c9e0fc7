"""What the subcommands share: the trained model, the data and the output file."""

import csv
import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import tyro

from pyrovae.blocks import is_mapped
from pyrovae.commands._options import chosen, with_options
from pyrovae.commands._read import ReadLine, Summary
from pyrovae.datasets import ChannelAxis, ReadingSettings, Spectra, read_data
from pyrovae.datasets.readers.settings import check_size
from pyrovae.errors import InputError
from pyrovae.files import make_folder, write_table

if TYPE_CHECKING:
    import pandas as pd

    from pyrovae.trained_model import TrainedModel

__all__ = ["OnAModel", "OnData", "Summary"]


_FAR = 4.0
"""Standard deviations; of data like the training data, half lie less than one away."""


@dataclass
class OnAModel:
    """A subcommand that applies a trained model."""

    model: tyro.conf.Positional[Path]
    """Folder that pyrovae fit wrote, or a .safetensors file."""

    @property
    def folder(self) -> Path:
        """The model's folder."""
        return self.model.parent if self.model.suffix == ".safetensors" else self.model

    @cached_property
    def trained(self) -> "TrainedModel":
        """The model."""
        from pyrovae.trained_model import TrainedModel

        return TrainedModel.load(self.model)

    def check_out(self, path: Path, columns: Sequence[str] = ("row",)) -> None:
        """Raise an InputError where a result would replace data, or a file without these columns."""
        if path.suffix not in (".csv", ".parquet"):
            raise InputError(f"--out {path} must end in .csv or .parquet")
        for given in (getattr(self, name, None) for name in ("data", "calibration", "training")):
            if given is not None and any(place.exists() and place.samefile(given) for place in (path, path.parent)):
                raise InputError(
                    f"--out {path} would {'lie in' if given.is_dir() else 'replace'} the data; give another"
                )
        if path.exists() and not set(columns) <= set(_columns_of(path)):
            raise InputError(
                f"--out {path} would replace a file that is no result of this command with this model; move it, or "
                "give another"
            )

    def write(self, table: "pd.DataFrame", out: Path | None, name: str, beside: Collection[str] = ()) -> Path:
        """Write rows to ``out``, by default a CSV beside the model; only rows of the same kind are replaced.

        Args:
            table: the rows.
            out: the file, None for the one by default.
            name: its name by default.
            beside: columns that other data may lack.
        """
        path = out or self.folder / f"{name}.csv"
        self.check_out(path, [str(column) for column in table.columns if column not in beside])
        make_folder(path.parent)
        write_table(path, table)
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

    TAKES_LARGE: ClassVar = False
    """Whether data that lie in a file may stay there."""

    def __call__(self) -> Summary:
        """Read the data, say what was read, and apply the model."""
        said, _ = ReadLine(quiet=self.json), self.trained  # a model that is not there is an error before the data are
        data = self.read(self.data, said)
        if self.dry_run:
            return said.summary()
        if self.out is not None:
            self.check_out(self.out)
        if isinstance(self.samples, int) and hasattr(self, "num_samples"):  # as version 0.1 called the draws
            warnings.warn(f"--samples {self.samples} is now --num-samples {self.samples}", stacklevel=2)
            self.num_samples = self.samples
        return {**self.apply(data), **said.said}

    def read(self, path: Path, said: ReadLine) -> Spectra:
        """Read the data, keep the model's channels, and say what was read."""
        axis = ChannelAxis.read(self.folder)
        samples = None if isinstance(self.samples, int) else self.samples
        data = read_data(path, chosen(self, ReadingSettings(), samples=samples), to_train=False)
        said(data)
        if is_mapped(data.x) and not self.TAKES_LARGE:
            check_size(str(path), 3.0 * data.x.nbytes, self.max_gib)  # type: ignore[attr-defined]
            data = replace(data, x=data.x.clone())
        data = data if axis is None else axis.matched(data)
        self._warn_of_units(path, data)
        return data

    def _warn_of_units(self, path: Path, data: Spectra) -> None:
        """Warn where most values are far from those that trained the model, as percent are from fractions."""
        from pyrovae.datasets import Standardize

        step = self.trained.preprocessing
        if isinstance(step, Standardize):
            far = float(step.transform(data.x[:1000]).abs().nanmedian())
            if far > _FAR:
                warnings.warn(
                    f"half of the values in {path} lie more than {far:.3g} standard deviations from the training data: "
                    "are they in the same units?",
                    stacklevel=2,
                )

    def apply(self, data: Spectra) -> Summary:
        """Apply the model to data of its channels."""
        raise NotImplementedError

    def write_rows(self, table: "pd.DataFrame", data: Spectra, name: str) -> Path:
        """Write a row a datum, with what the file says of it after its number."""
        taken, beside = set(table.columns), []
        for place, column in enumerate(data.targets.columns, 1):
            beside.append(f"{column}_" if column in taken else column)
            table.insert(place, beside[-1], data.targets[column].to_numpy())
        return self.write(table, self.out, f"{self.data.stem}-{name}", beside)


def _columns_of(path: Path) -> list[str]:
    """The columns of a file of rows; none of any other file."""
    try:
        if path.suffix == ".parquet":
            from pyarrow.parquet import read_schema

            return list(read_schema(path).names)
        with path.open(encoding="utf-8", newline="") as file:
            return next(csv.reader(file), [])
    except (ImportError, ValueError, csv.Error):
        return []
