"""Spectra from the files that people have."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import numpy as np
import torch
from numpy.typing import NDArray

from pyrovae.datasets.readers._channels import axis_unit, find_channels, number, out_of_order
from pyrovae.datasets.readers._table import COUNTED, Layout, Table
from pyrovae.datasets.readers.formats import reader_of
from pyrovae.datasets.readers.idx import PIXEL
from pyrovae.datasets.readers.settings import Missing, ReadingKeywords, ReadingSettings
from pyrovae.datasets.readers.text import MISSING
from pyrovae.datasets.spectra import Spectra
from pyrovae.errors import InputError
from pyrovae.keywords import accepts

if TYPE_CHECKING:
    import pandas as pd


@accepts(ReadingSettings)
def read_spectra(
    path: str | Path,
    settings: ReadingSettings | None = None,
    *,
    to_train: bool = True,
    **keywords: Unpack[ReadingKeywords],
) -> Spectra:
    """Read spectra from CSV or TSV (also gzipped), ``.npy``, ``.npz`` or ``.parquet``, or images from IDX.

    In a table, the channels are the largest group of columns named by numbers (``899.327``, ``450 nm``) or by one
    prefix and numbers (``absorbance_12``); all other columns become ``targets``. If the first column is called
    wavelength, wavenumber, nm or the like and its numbers are in order, samples are in columns instead. An ``.npz``
    holds the spectra as its one array of two axes (or ``x``, ``spectra``, ``data``), and may hold an ``axis`` and
    targets. The channels of images (such as MNIST's) are their pixels, grey values in [0, 1]. Nothing in a file is
    ever executed. Text is read in blocks. Numbers are in torch's default dtype.

    Args:
        path: the file.
        settings: how to read it.
        to_train: whether to refuse what no model can be trained on: a single spectrum, or a constant channel (except
            in images). A trained model takes both.
        **keywords: the fields of :class:`~pyrovae.datasets.ReadingSettings`, in place of those of ``settings``. With
            ``missing="mask"`` missing values are NaN, which ``GenerativeModel(…, missing=True)`` takes.

    Raises:
        FileNotFoundError: there is no such file.
        MissingExtraError: a parquet file, and no pyarrow.
        InputError: the file cannot be read as spectra. In one line: the file, the row and the column (both counted
            from 1, a header included), what is there, and how to mend it.

    Warns:
        UserWarning: there are more channels than samples.
    """
    settings, path = _complete(settings, keywords), Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    if not path.is_file():
        raise InputError(f"{path} is a folder, not a file")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty")
    try:
        table = reader_of(path)(path, settings, partial(_layout, settings=settings, where=f"{path}, row 1"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None
    _check_finite(table, settings.missing)
    in_columns = settings.samples == "columns" or table.layout.axis is not None
    values = table.numbers.T if in_columns else table.numbers
    positions, unit, targets = _axis_and_targets(table, in_columns)

    def where(sample: int, channel: int) -> str:
        return table.cell(channel, sample) if in_columns else table.cell(sample, channel)

    empty = np.isnan(values).all(1)
    if empty.any():
        raise InputError(f"{where(int(empty.argmax()), 0)}: every value of this spectrum is missing; remove it")
    if settings.axis is not None:
        positions, unit = np.asarray(settings.axis, dtype=float), ""
        if positions.shape != values.shape[1:]:
            raise InputError(f"axis has {len(positions)} positions, and {path} has {values.shape[1]} channels")
    to_train = to_train and unit != PIXEL
    if to_train and len(values) < 2:
        raise InputError(f"{path} holds one spectrum; a model of spectra needs at least two (are samples in columns?)")
    if settings.drop_constant and not _constant(values).all():
        kept = ~_constant(values)
        values, positions = values[:, kept], positions[kept]
    if to_train:
        _check_constant(values, where)
    num, n = values.shape
    if to_train and n > num:
        warnings.warn(
            f"{path} has more channels ({n}) than samples ({num}): a full covariance of the channels is not determined "
            "by the data",
            stacklevel=3,
        )
    x, axis = torch.as_tensor(np.ascontiguousarray(values)), torch.as_tensor(positions)
    unit = unit if settings.unit is None else settings.unit
    return Spectra(x, axis, unit, targets.reset_index(drop=True), path.stem)


read_data = read_spectra
"""The same function, under a name that fits tables and images too."""


def _complete(settings: ReadingSettings | Sequence[str] | None, keywords: ReadingKeywords) -> ReadingSettings:
    """The settings, with those that are given as keywords; the channels may still stand in their place."""
    if settings is not None and not isinstance(settings, ReadingSettings):
        warnings.warn(
            "read_spectra(path, channels) is now read_spectra(path, channels=…)", DeprecationWarning, stacklevel=4
        )
        settings = ReadingSettings(channels=settings if isinstance(settings, str) else tuple(settings))
    return dataclasses.replace(settings or ReadingSettings(), **keywords)


def _layout(names: list[str], settings: ReadingSettings, where: str) -> Layout:
    """What the columns of these names mean."""
    unit = axis_unit(names[0])
    if settings.samples == "columns" or (settings.samples is None and settings.channels is None and unit is not None):
        # the axis is no column of numbers, so its positions are not rounded to their dtype
        return Layout(list(range(1, len(names))), unit=unit or "", axis=0)
    if not any(names):
        return Layout(list(range(len(names))))
    return find_channels(names, settings.channels, where)


def _axis_and_targets(table: Table, in_columns: bool) -> tuple[NDArray[np.float64], str, pd.DataFrame]:
    """The channels' positions, their unit, and the targets of the samples in the rows or columns of a table."""
    import pandas as pd

    layout, (rows, columns) = table.layout, table.numbers.shape
    if layout.axis is not None:
        return _positions(table), layout.unit, pd.DataFrame({"sample": [table.names[i] for i in layout.columns]})
    if in_columns:
        return np.arange(rows, dtype=float), COUNTED, pd.DataFrame(index=range(columns))
    positions = np.arange(columns, dtype=float) if layout.positions is None else layout.positions
    return positions, layout.unit, _typed(table.others, table.decimal)


def _positions(table: Table) -> NDArray[np.float64]:
    """The channel positions in the first column, which is the only one that is not a sample."""
    texts = [str(text) for text in table.others.iloc[:, 0]]
    found = [number(text) for text in texts]
    for row, position in enumerate(found):
        if position is None or not math.isfinite(position):
            raise InputError(f"{table.place(row, 0)}: {texts[row][:40]!r} is not the position of a channel")
    positions = np.array(found, dtype=np.float64)
    wrong = out_of_order(positions)
    if wrong is not None:
        where = table.place(wrong, 0)
        raise InputError(f"{where}: the channel {positions[wrong]:g} is not in order, or is there twice")
    return positions


def _check_finite(table: Table, missing: Missing) -> None:
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
        channel = int(constant.argmax())
        observed = values[~np.isnan(values[:, channel]), channel]
        what = "was never observed"
        if len(observed):
            what = f"is constant ({observed[0]:g} in all spectra), so its noise has no scale"
        raise InputError(f"{where(0, channel)}: the channel {what}; pass drop_constant=True to leave such channels out")


def _constant(values: NDArray[np.floating]) -> NDArray[np.bool_]:
    same = np.fmin.reduce(values, axis=0) == np.fmax.reduce(values, axis=0)
    found: NDArray[np.bool_] = same | np.isnan(values).all(0)
    return found


def _typed(others: pd.DataFrame, decimal: str) -> pd.DataFrame:
    """Columns of text as numbers if they all are; without the columns that have neither a name nor content."""
    import pandas as pd

    columns: dict[str, pd.Series] = {}
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
