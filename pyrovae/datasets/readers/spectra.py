"""Read spectra from files."""

from __future__ import annotations

import dataclasses
import stat
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

import numpy as np
import torch
from numpy.typing import NDArray

from pyrovae.blocks import first_where, in_blocks, step_of
from pyrovae.datasets.readers._axis import given_axis, positions_in_columns
from pyrovae.datasets.readers._interpret import interpret
from pyrovae.datasets.readers._replicates import warn_of_replicates
from pyrovae.datasets.readers._samples import check_samples, without_rows
from pyrovae.datasets.readers._table import Head, Layout, Table
from pyrovae.datasets.readers._targets import targets_of
from pyrovae.datasets.readers._values import check_values, checked_targets, constant, constant_channel
from pyrovae.datasets.readers.formats import read_table
from pyrovae.datasets.readers.idx import PIXEL
from pyrovae.datasets.readers.settings import ReadingKeywords, ReadingSettings
from pyrovae.datasets.reading import AxisSource, Place, Reading
from pyrovae.datasets.spectra import Spectra
from pyrovae.errors import InputError, Option
from pyrovae.keywords import accepts


@accepts(ReadingSettings)
def read_spectra(
    path: str | Path,
    settings: ReadingSettings | None = None,
    *,
    to_train: bool = True,
    group: str | None = None,
    **keywords: Unpack[ReadingKeywords],
) -> Spectra:
    """Read spectra from a file: text tables, arrays, Excel, instruments' formats; images from IDX or ``.npz``.

    The layout of a table is found from its content: a header, positions in a row or a column, labels at an edge,
    samples in rows or in columns. ``Spectra.reading`` says what was read and what was guessed. A file that could be
    read in two ways is refused, in a line that names both. In a table with a header, the channels are the largest group
    of columns named by numbers (``899.327``, ``450 nm``) or by one prefix and a number (``absorbance_12``). All other
    columns become ``targets``. A folder has one spectrum per file, on one axis. Nothing in a file is ever executed.
    Text is read in blocks. Numbers have torch's default dtype. A ``.npy`` file of more than 256 MiB stays in its file,
    and a folder's tables of more than that go to a temporary one.

    Args:
        path: the file, or a folder of files with one spectrum each.
        settings: how to read it.
        to_train: whether to refuse data that cannot train a model: a single spectrum, or a constant channel (except in
            images). A trained model accepts both.
        group: the column by which the data will be split, if any; without it, there is a warning of replicates.
        **keywords: the fields of :class:`~pyrovae.datasets.ReadingSettings`, in place of those of ``settings``. With
            ``missing="mask"``, missing values are NaN, which ``GenerativeModel(…, missing=True)`` accepts.

    Raises:
        FileNotFoundError: there is no such file.
        MissingExtraError: the format needs a package that is not installed.
        InputError: the file cannot be read as spectra, or could be read in two ways. In one line: the file, the row and
            the column (both counted from 1, a header included), what is there, and how to correct it.

    Warns:
        InputWarning: there are more channels than samples, most columns of numbers are not channels, or a column seems
            to name replicates.
    """
    settings, path = _complete(settings, keywords), Path(path)
    _check_path(path)

    def choose(head: Head) -> Layout:
        return interpret(head, settings)

    try:
        table = read_table(path, settings, choose)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None
    return _spectra(table, path, settings, to_train=to_train, group=group)


read_data = read_spectra
"""The same function, under a name that fits tables and images too."""


def _check_path(path: Path) -> None:
    """Raise unless the path is a file with content, or a folder."""
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        return
    kinds = {
        stat.S_IFIFO: "a pipe (FIFO)",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
        stat.S_IFSOCK: "a socket",
    }
    if stat.S_IFMT(mode) in kinds:
        name = kinds[stat.S_IFMT(mode)]
        raise InputError(f"{path} is {name}, not a file; write its content to a file, and give that")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty")


def _spectra(table: Table, path: Path, settings: ReadingSettings, *, to_train: bool, group: str | None) -> Spectra:
    """Spectra of a table, checked."""
    table = without_rows(table, settings)
    layout, in_columns = table.layout, table.layout.in_columns
    x = torch.from_numpy(np.ascontiguousarray(table.numbers.T if in_columns else table.numbers))

    def where(sample: int, channel: int) -> str:
        return table.cell(channel, sample) if in_columns else table.cell(sample, channel)

    empty = first_where(lambda rows: rows.isnan().all(1), x)
    if empty is not None:
        first = empty[0]
        leave_out = (
            Option("drop", str(layout.columns[first] + 1))
            if in_columns
            else Option("drop_rows", str(table.rows[first]))
        )
        raise InputError(f"{where(first, 0)}: every value of this spectrum is missing; leave it out with ", leave_out)
    markers, num_missing = check_values(table, settings, layout.unit)
    positions, names = positions_in_columns(table) if layout.axis is not None else _positions(table, x.shape[1])
    unit, source, (targets, notes) = layout.unit, layout.source, targets_of(table)
    targets = checked_targets(targets, table, settings)
    if unit != PIXEL:
        counted = source is AxisSource.COUNTED
        some, step = table.every(step_of(x)), step_of(x)
        values = some.numbers.T if in_columns else some.numbers
        check_samples(some, values, targets[::step], None if counted else positions, settings)
    if settings.gives_axis:
        positions, unit, source = given_axis(settings.axis), "", AxisSource.GIVEN
        if positions.shape != x.shape[1:]:
            raise InputError(f"axis has {len(positions)} positions, and {path} has {x.shape[1]} channels")
        names = ()
    to_train = to_train and unit != PIXEL
    if to_train and len(x) < 2:
        raise InputError(
            f"{path} holds one spectrum of {x.shape[1]} channels; a model of spectra needs at least two: give a "
            "table, or a folder with one spectrum in each file (are samples in the table's other direction? say ",
            Option("samples", "rows" if in_columns else "columns"),
            ")",
        )
    left_out: tuple[str, ...] = tuple(table.names[i] or f"column {i + 1}" for i in layout.dropped)
    is_constant = constant(x)
    if to_train and is_constant.all():
        raise InputError(f"{path}: every channel is constant, so there is nothing to model")
    if settings.drop_constant and not is_constant.all():
        kept = ~is_constant
        shown = names or tuple(f"{position:g}" for position in positions)
        left_out += tuple(name for name, keep in zip(shown, kept, strict=True) if not keep)
        names = tuple(name for name, keep in zip(names, kept, strict=False) if keep)
        chosen = torch.from_numpy(kept)
        x, positions = in_blocks(lambda rows: rows[:, chosen], x), positions[kept]
        is_constant = is_constant[kept]
    if to_train and is_constant.any():
        channel = int(is_constant.argmax())
        raise constant_channel(x[:, channel], where(0, channel))
    num, n = x.shape
    if to_train and n > num:
        warnings.warn(
            f"{path} has more channels ({n}) than samples ({num}): a full covariance of the channels is not determined "
            "by the data",
            stacklevel=4,
        )
    if to_train and group is None:
        warn_of_replicates(targets, path, stacklevel=4)
    x, axis = x.contiguous(), torch.as_tensor(positions)
    unit = unit if settings.unit is None else settings.unit
    reading = Reading(
        num=num,
        num_channels=n,
        ends=(float(positions[0]), float(positions[-1])),
        unit=unit,
        source=source,
        samples=Place.FILES if path.is_dir() else Place.COLUMNS if in_columns or layout.is_turned else Place.ROWS,
        kept_apart=tuple(map(str, targets.columns)),
        num_missing=num_missing,
        left_out=left_out,
        findings=(*layout.findings, *notes, *markers),
    )
    return Spectra(x, axis, unit, targets, path.stem, names, reading)


def _complete(settings: ReadingSettings | Sequence[str] | None, keywords: ReadingKeywords) -> ReadingSettings:
    """The settings, with those that are given as keywords; the channels may still stand in their place."""
    if settings is not None and not isinstance(settings, ReadingSettings):
        warnings.warn(
            "read_spectra(path, channels) is now read_spectra(path, channels=…)", DeprecationWarning, stacklevel=4
        )
        settings = ReadingSettings(channels=settings if isinstance(settings, str) else tuple(settings))
    return dataclasses.replace(settings or ReadingSettings(), **keywords)


def _positions(table: Table, n: int) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """The channels' positions, and their names, where there is no column of them."""
    layout = table.layout
    positions = np.arange(n, dtype=float) if layout.positions is None or layout.in_columns else layout.positions
    names = () if layout.in_columns else tuple(table.names[i] for i in layout.columns)
    return positions, names if all(names) else ()
