"""Spectra from the files that people have."""

import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from pyrovae.datasets.readers._channels import axis_unit, find_channels, number, out_of_order
from pyrovae.datasets.readers.arrays import from_npy, from_npz, from_parquet
from pyrovae.datasets.readers.text import MISSING, Table, default_dtype, read_text
from pyrovae.datasets.spectra import Spectra
from pyrovae.errors import InputError


def read_spectra(
    path: str | Path,
    channels: str | Sequence[str] | None = None,
    *,
    samples: str | None = None,
    missing: str = "error",
    axis: Sequence[float] | None = None,
    unit: str | None = None,
    drop_constant: bool = False,
    delimiter: str | None = None,
    decimal: str | None = None,
    encoding: str = "utf-8",
    max_gib: float = 4.0,
    to_train: bool = True,
) -> Spectra:
    """Read spectra from CSV or TSV (also gzipped), ``.npy``, ``.npz`` or ``.parquet``.

    Of a table, the channels are the largest group of columns named by numbers (``899.327``, ``450 nm``) or by one
    prefix and numbers (``absorbance_12``); all other columns become ``targets``. Where the first column is called
    wavelength, wavenumber, nm or the like and its numbers are in order, samples are in columns instead. An
    ``.npz`` holds the spectra as its one array of two axes (or ``x``, ``spectra``, ``data``), and may hold an
    ``axis`` and targets. Nothing in a file is ever executed. Text is read in blocks, numbers are in torch's default
    dtype.

    Args:
        path: the file.
        channels: the channels' prefix or their names, where they are not found by themselves; of an ``.npz`` the
            array's name.
        samples: ``"rows"`` or ``"columns"``; found by itself.
        missing: ``"error"``, or ``"mask"`` to read missing values (an empty field, NA, NaN) as NaN, which is what
            ``GenerativeModel(…, missing=True)`` takes.
        axis: the channels' positions, where the file does not tell them.
        unit: of the axis, likewise.
        drop_constant: whether to leave out channels that are constant, instead of refusing them.
        delimiter: between fields of a text file; found by itself.
        decimal: ``"."`` or ``","``; found by itself.
        encoding: of a text file.
        max_gib: refuse a file that would need more memory than this.
        to_train: whether to refuse what no model can be trained on: a single spectrum, a constant channel. A model
            that is trained already takes both.

    Raises:
        FileNotFoundError: there is no such file.
        MissingExtraError: a parquet file, and no pyarrow.
        InputError: the file cannot be read as spectra. In one line: the file, the row and the column (both counted
            from 1, a header included), what is there, and how to mend it.

    Warns:
        UserWarning: there are more channels than samples.
    """
    path = Path(path)
    if samples not in (None, "rows", "columns"):
        raise InputError(f"samples must be 'rows', 'columns' or None, not {samples!r}")
    if missing not in ("error", "mask"):
        raise InputError(f"missing must be 'error' or 'mask', not {missing!r}")
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    if not path.is_file():
        raise InputError(f"{path} is a folder, not a file")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty")
    chosen: dict[str, Any] = {"positions": None, "unit": "channel", "in_columns": False}

    def choose(names: list[str]) -> list[int]:
        first = axis_unit(names[0])
        if samples == "columns" or (samples is None and channels is None and first is not None):
            chosen.update(in_columns=True, unit=first or "")
            return list(range(1, len(names)))  # the first is the axis, whose positions are not rounded
        if not any(names):
            return list(range(len(names)))
        found, chosen["positions"], chosen["unit"] = find_channels(names, channels, f"{path}, row 1")
        return found

    try:
        if path.suffix == ".npy":
            table = from_npy(path, max_gib)
        elif path.suffix == ".npz":
            table, chosen["positions"] = from_npz(path, channels, max_gib)
        elif path.suffix in (".parquet", ".pq"):
            table = from_parquet(path, choose, max_gib)
        else:
            table = read_text(
                path,
                choose,
                delimiter=delimiter,
                decimal=decimal,
                encoding=encoding,
                max_gib=max_gib,
                dtype=default_dtype(),
            )
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None
    _check_finite(table, missing)
    if chosen["in_columns"]:
        values, targets, positions = _turned(table)
    elif samples == "columns":
        values, positions = table.numbers.T, None
        targets = pd.DataFrame(index=range(len(values)))
    else:
        values, targets, positions = table.numbers, _typed(table.others, table.decimal), chosen["positions"]

    def where(sample: int, channel: int) -> str:
        turned = samples == "columns" or chosen["in_columns"]
        return table.cell(channel, sample) if turned else table.cell(sample, channel)

    if np.isnan(values).all(1).any():
        sample = int(np.flatnonzero(np.isnan(values).all(1))[0])
        raise InputError(f"{where(sample, 0)}: every value of this spectrum is missing; remove it")
    if axis is not None:
        positions = np.asarray(axis, dtype=float)
        if positions.shape != values.shape[1:]:
            raise InputError(f"axis has {positions.size} positions, and {path} has {values.shape[1]} channels")
        wrong = out_of_order(positions)
        if wrong is not None:
            raise InputError(f"axis: position {wrong + 1}, {positions[wrong]:g}, is not in order, or is there twice")
    known = positions is not None
    if positions is None:
        positions = np.arange(values.shape[1], dtype=float)
    if to_train and len(values) < 2:
        raise InputError(f"{path} holds one spectrum; a model of spectra needs at least two (are samples in columns?)")
    if drop_constant and not _constant(values).all():
        kept = ~_constant(values)
        values, positions = values[:, kept], positions[kept]
    if to_train:
        _check_constant(values, where)
    if to_train and values.shape[1] > len(values):
        warnings.warn(
            f"{path} has more channels ({values.shape[1]}) than samples ({len(values)}): a full covariance of the "
            "channels is not determined by the data",
            stacklevel=2,
        )
    if unit is None:
        unit = chosen["unit"] if known and axis is None else "" if known else "channel"
    x = torch.as_tensor(np.ascontiguousarray(values))
    return Spectra(x, torch.as_tensor(positions), unit, targets.reset_index(drop=True), path.stem)


def _turned(table: Table) -> tuple[NDArray[np.floating], pd.DataFrame, NDArray[np.float64]]:
    """Spectra in columns, the first of which is the axis."""
    axis = [number(str(text)) for text in table.others.iloc[:, 0]]
    for row, position in enumerate(axis):
        if position is None or not math.isfinite(position):
            text = str(table.others.iloc[row, 0])
            raise InputError(f"{table.place(row, 0)}: {text[:40]!r} is not the position of a channel")
    positions = np.array(axis, dtype=np.float64)
    wrong = out_of_order(positions)
    if wrong is not None:
        raise InputError(
            f"{table.place(wrong, 0)}: the channel {positions[wrong]:g} is not in order, or is there twice"
        )
    return table.numbers.T, pd.DataFrame({"sample": [table.names[i] for i in table.columns]}), positions


def _check_finite(table: Table, missing: str) -> None:
    """Raise for infinite values, and for missing ones unless they are asked for."""
    infinite = np.isinf(table.numbers)
    if infinite.any():
        row, column = np.argwhere(infinite)[0]
        raise InputError(f"{table.cell(row, column)}: the value is infinite; correct it, or leave it empty as missing")
    absent = np.isnan(table.numbers)
    if missing == "error" and absent.any():
        row, column = np.argwhere(absent)[0]
        raise InputError(
            f"{table.cell(row, column)}: the value is missing, one of {int(absent.sum())}; pass missing='mask' to read "
            "them as missing data"
        )


def _check_constant(values: NDArray[np.floating], where: Callable[[int, int], str]) -> None:
    """Raise for a channel that never changes, or was never observed."""
    constant = _constant(values)
    if constant.any():
        j = int(np.flatnonzero(constant)[0])
        observed = values[~np.isnan(values[:, j]), j]
        what = "was never observed"
        if len(observed):
            what = f"is constant ({observed[0]:g} in all spectra), so its noise has no scale"
        raise InputError(f"{where(0, j)}: the channel {what}; pass drop_constant=True to leave such channels out")


def _constant(values: NDArray[np.floating]) -> NDArray[np.bool_]:
    unobserved = np.isnan(values).all(0)
    return (np.fmin.reduce(values, axis=0) == np.fmax.reduce(values, axis=0)) | unobserved


def _typed(others: pd.DataFrame, decimal: str) -> pd.DataFrame:
    """Columns of text as numbers where they all are; columns without a name and without content dropped."""
    columns: dict[str, Any] = {}
    for i, name in enumerate(others.columns):
        column = others.iloc[:, i]
        if not name and (column == "").all():
            continue
        key = name or f"column_{i}"
        while key in columns:
            key += "_"
        text = column.astype(str).str.strip()
        values = pd.to_numeric(text.str.replace(",", ".") if decimal == "," else text, errors="coerce")
        are_numbers = (values.notna() | text.str.lower().isin(MISSING)).all() and values.notna().any()
        columns[key] = values if are_numbers else column.where(column != "", None)
    return pd.DataFrame(columns, index=others.index)
