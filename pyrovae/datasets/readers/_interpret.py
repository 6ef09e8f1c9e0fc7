"""The layout of a table, from the evidence in its first rows: one question after the other."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pyrovae.datasets.readers._channels import Channels, check_mangled, either, find_channels
from pyrovae.datasets.readers._header import Header
from pyrovae.datasets.readers._labels import follows
from pyrovae.datasets.readers._missing import cleaned
from pyrovae.datasets.readers._nameless import without_labels
from pyrovae.datasets.readers._names import Group, axis_unit, groups_of, largest_group
from pyrovae.datasets.readers._order import counts_up, in_order
from pyrovae.datasets.readers._shape import Kind, Shape, check_is_wide, shape_of
from pyrovae.datasets.readers._table import Head, Layout
from pyrovae.datasets.readers.settings import NONE, ReadingSettings
from pyrovae.datasets.reading import AxisSource, Finding
from pyrovae.errors import InputError, InputWarning, Option

ALL = "all"
"""The word for all columns of numbers."""

_LEAP = 5.0
"""A last step so many times as long as all others leads to no channel of theirs."""


def interpret(head: Head, settings: ReadingSettings) -> Layout:
    """What the columns of a table mean.

    Raises:
        InputError: the layout is ambiguous, or the user's settings do not fit.
    """
    header, where, width = head.header, head.where, head.numbers.shape[1]
    dropped = _columns("drop", settings.drop, header, where)
    apart = _columns("label", settings.label, header, where)
    is_empty = np.logical_and.reduce(np.isnan(head.numbers), axis=0)
    if head.text is not None:
        is_empty &= ~head.text.any(0)
    usable = [i for i in range(width) if i not in {*dropped, *apart} and (header.axis_names[i] or not is_empty[i])]
    if not usable:
        raise InputError(f"{where}: no column is left to be a channel")
    is_text = np.zeros(width, dtype=np.bool_) if head.text is None else head.text.mean(0) > 0.5
    numeric = [i for i in usable if not is_text[i]]
    evidence = head.numbers.copy()
    evidence[:, numeric] = cleaned(head.numbers[:, numeric])
    group = largest_group(head.edge) if 0 in usable and is_text[0] else None
    row_names = group if group is not None and len(group.members) == len(head.edge) else None
    if settings.samples is None:
        check_is_wide(evidence, numeric, header, where)
    shape = shape_of(header, evidence, numeric, settings, where, row_names)
    if shape.kind is Kind.ROWS:
        layout = _in_rows(head, evidence, usable, numeric, settings)
    else:
        layout = _in_columns(header, evidence, usable, numeric, shape, row_names)
    findings = (*head.findings, *header.findings, *([shape.finding] if shape.finding else []), *layout.findings)
    return replace(layout, dropped=dropped, findings=findings)


def _columns(option: str, names: Sequence[str] | str | None, header: Header, where: str) -> list[int]:
    """Columns that the user names, or numbers from 1."""
    found: list[int] = []
    last = len(header.names)
    for name in names or ():
        if name == NONE:
            continue
        number = {"first": 1, "last": last}.get(name, int(name) if name.isdecimal() else 0)
        if name in header.names:
            found.append(header.names.index(name))
        elif 0 < number <= last:
            found.append(number - 1)
        else:
            raise InputError(f"{where} has no column {name!r}: give ", Option(option), " a column's name or number")
    return found


def _in_columns(
    header: Header,
    evidence: NDArray[np.float64],
    usable: list[int],
    numeric: list[int],
    shape: Shape,
    row_names: Group | None,
) -> Layout:
    """Samples in columns, beside a column of positions or not."""
    if shape.axis is None:
        return Layout(usable, in_columns=True)
    unit = axis_unit(header.axis_names[shape.axis])
    axis = shape.axis
    columns = [i for i in usable if i != axis and not (i < axis and counts_up(evidence[:, i]))]
    axes: list[int] = []
    findings: tuple[Finding, ...] = ()
    if shape.kind is Kind.PAIRS:
        columns, axes = numeric[1::2], numeric[2::2]
    else:
        may_be = [i for i in columns[:1] if i in numeric and len(columns) > 2]
        second = [i for i in may_be if _is_axis_too(header, evidence, axis, i)]
        columns = [i for i in columns if i not in second]
        findings = tuple(
            Finding(f"column {i + 1} as a second axis", "it follows from the first", Option("axis", f"column:{i + 1}"))
            for i in second
        )
    if row_names is not None and axis == 0:
        unit = unit or row_names.unit
    about = {row[shape.axis] or f"row {k + 2}": [row[i] for i in columns] for k, row in enumerate(header.others)}
    found = unit or next((u for u in map(axis_unit, (row[shape.axis] for row in header.others)) if u), "")
    about = {name: values for name, values in about.items() if axis_unit(name) is None and any(values)}
    return Layout(
        columns, None, found, shape.axis, True, axes=axes, source=AxisSource.COLUMN, about=about, findings=findings
    )


def _is_axis_too(header: Header, numbers: NDArray[np.float64], axis: int, column: int) -> bool:
    """Whether a column says the positions once more, in another unit."""
    first, values = numbers[:, axis], numbers[:, column]
    if not (len(values) > 4 and in_order(values) and np.isfinite(first).all()):
        return False
    if axis_unit(header.axis_names[column]) is not None:
        return True
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = (first * values, values / first)
    return any(bool(np.isfinite(r).all() and np.ptp(r) < 1e-3 * abs(r.mean())) for r in ratios)


def _in_rows(
    head: Head, evidence: NDArray[np.float64], usable: list[int], numeric: list[int], settings: ReadingSettings
) -> Layout:
    """Samples in rows: the channels by their names, or all nameless columns of numbers but labels at the edges."""
    header, where = head.header, head.where
    names = [name if i in usable else "" for i, name in enumerate(header.axis_names)]
    everything = settings.channels == (ALL,) and all(group.prefix != ALL for group in groups_of(names)[:1])
    findings: list[Finding] = []
    if not any(header.axis_names):
        if settings.channels is not None and not everything:
            raise InputError(f"{where} has no names of columns, so there are none for ", Option("channels"))
        if not numeric:
            raise InputError(f"{where} has no column of numbers")
        columns, findings = without_labels(head, evidence, numeric, settings, is_named=False)
        if len(columns) < 2:
            raise InputError(
                f"{where} has one column of numbers, and no header: is it cut at the right places? say ",
                Option("delimiter"),
            )
        return Layout(columns, findings=tuple(findings))
    row = f"{where}, row {header.num_rows}" if header.num_rows else where
    if settings.channels is None:
        check_mangled(names, row)
    found = _positions_of_all(names, numeric) if everything else find_channels(names, settings.channels, row)
    columns, positions, unit = found.columns, found.positions, found.unit
    source = AxisSource.ROW if header.is_own_row else AxisSource.HEADER
    if unit == "channel" or everything:
        source = AxisSource.COUNTED if unit == "channel" else source
        columns, findings = without_labels(head, evidence, columns, settings, is_named=True)
        positions = positions[[found.columns.index(i) for i in columns]]
    if settings.channels is None and settings.label is None and source is not AxisSource.COUNTED:
        _check_ends(positions, columns, header, where)
    if settings.axis == NONE:
        positions, unit, source = np.arange(len(columns), dtype=float), "channel", AxisSource.COUNTED
    elif not unit:
        unit = axis_unit(header.corner) or ""
    if settings.channels is None:
        _check_groups(names, found, where)
        _check_neighbours(columns, numeric, evidence, header, where)
        _warn_of_others(columns, numeric, header, where)
    return Layout(columns, positions, unit, source=source, findings=tuple(findings))


def _positions_of_all(names: Sequence[str], numeric: list[int]) -> Channels:
    """All columns of numbers, at the positions that they are named by or counted."""
    try:
        found = find_channels([names[i] if i in numeric else "" for i in range(len(names))], None, "")
    except InputError:
        found = None
    if found is not None and found.columns == numeric:
        return found
    return Channels(numeric, np.arange(len(numeric), dtype=float), "channel")


def _check_ends(positions: NDArray[np.float64], columns: list[int], header: Header, where: str) -> None:
    """Raise for a first or a last position that is far from all others, as a year in the header is."""
    steps = np.abs(np.diff(positions))
    if len(steps) < 8:
        return
    for edge in (0, -1):
        others = np.delete(steps, edge)
        if steps[edge] > _LEAP * others.max() and others.max() < _LEAP * others.min():
            column = columns[edge]
            raise InputError(
                f"{where}, column {column + 1}: {header.names[column]!r} is far from the positions of the other "
                "channels: is it a label or a channel? say ",
                Option("label", str(column + 1)),
                " or ",
                Option("label", NONE),
            )


def _check_groups(names: Sequence[str], found: Channels, where: str) -> None:
    """Raise if other columns are named by positions too, as visible and near infrared in two groups are."""
    first, *others = groups_of(names)
    for group in others:
        enough = len(group.members) >= max(4, len(found.columns) / 4)
        if enough and not group.is_counted and in_order(group.positions):
            raise InputError(
                f"{where}: {len(found.columns)} columns {first.title!r} and {len(group.members)} columns "
                f"{group.title!r} may be the channels; say which with ",
                *either(first, group),
            )


def _check_neighbours(
    columns: list[int], numeric: list[int], evidence: NDArray[np.float64], header: Header, where: str
) -> None:
    """Raise for a column of numbers amid the channels, or beside them and like them, that is not named as they are."""
    chosen = set(columns)
    for i in numeric:
        if i in chosen:
            continue
        amid = columns[0] < i < columns[-1]
        beside = next((j for j in (i - 1, i + 1) if j in chosen), None)
        name = header.axis_names[i]
        is_like = not name or any(c.isdigit() for c in name)
        if amid or (beside is not None and is_like and follows(evidence[:, i], evidence[:, beside])):
            raise InputError(
                f"{where}, column {i + 1}: {header.axis_names[i]!r} stands {'among' if amid else 'beside'} the "
                "channels and is not named like them: correct the name, or keep the column apart with ",
                Option("label", header.names[i] or str(i + 1)),
                ", or leave it out with ",
                Option("drop", header.names[i] or str(i + 1)),
                *(_as_channel(name, header.axis_names[columns[0]]) if not amid else ()),
            )


def _as_channel(name: str, channel: str) -> tuple[str | Option, ...]:
    """How to take a column for a channel that has another prefix than the others."""
    own, others = (next((group.prefix for group in groups_of([text])), "") for text in (name, channel))
    return (", or if it is a channel too, say ", Option("channels", (own, others))) if own and others else ()


def _warn_of_others(columns: list[int], numeric: list[int], header: Header, where: str) -> None:
    """Warn where most columns of numbers are not channels."""
    others = [i for i in numeric if i not in set(columns)]
    if len(others) > len(columns):
        chosen = ", ".join(repr(header.names[i]) for i in columns[:4]) + (" …" if len(columns) > 4 else "")
        warnings.warn(
            InputWarning(
                f"{where}: of {len(numeric)} columns of numbers, {len(columns)} are taken for channels ({chosen}), as "
                "they are named alike, and the others are kept apart; name the channels with ",
                Option("channels"),
                ", or take all with ",
                Option("channels", ALL),
            ),
            stacklevel=2,
        )
