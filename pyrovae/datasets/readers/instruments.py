"""Formats of instruments, read by nirs4all-formats: JCAMP-DX, Bruker OPUS, Galactic SPC and some fifty others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pyrovae.datasets.readers._channels import UNITS, check_order
from pyrovae.datasets.readers._table import Choose, Table, table_of
from pyrovae.datasets.readers.settings import ReadingSettings, check_size
from pyrovae.datasets.reading import AxisSource, Finding
from pyrovae.errors import InputError, MissingExtraError, Option, one_line

if TYPE_CHECKING:
    from nirs4all_formats import SpectralRecordSet

_USUAL = ("absorbance", "reflectance", "transmittance", "signal", "raman_intensity", "counts")
_IN_MEMORY = 40
"""Bytes in memory for a byte of a file, at most about."""


def read_instrument(path: Path, settings: ReadingSettings, choose: Choose) -> Table:
    """The spectra in an instrument's file: its only signal, or absorbance, reflectance, transmittance in this order."""
    try:
        import nirs4all_formats
    except ImportError:
        raise MissingExtraError(
            f"{path} is {format_of(path)}: pip install 'pyrovae[formats]' to read it (nirs4all-formats)"
        ) from None
    check_size(str(path), float(_IN_MEMORY * path.stat().st_size), settings.max_gib)
    try:
        records = nirs4all_formats.open_recordset(path)
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        what = one_line(error, 200).replace(str(path), "the file")
        raise InputError(f"{path} cannot be read as {format_of(path)}: {what}") from None
    return _table(path, records, settings, choose)


def _table(path: Path, records: SpectralRecordSet, settings: ReadingSettings, choose: Choose) -> Table:
    import pandas as pd

    names = records.signal_names()
    usual = [name for name in _USUAL if name in names]
    name = settings.table or (names[0] if len(names) == 1 else next(iter(usual), None))
    if name is None or name not in names:
        said = f"no signal {settings.table!r}, but" if settings.table else "the signals"
        raise InputError(
            f"{path} holds {said} {', '.join(names) or 'nothing'}; say which is wanted with ",
            Option("table", names[0] if names else None),
        )
    found = [(record, record.signals[name]) for record in records if name in record.signals]
    first = found[0][1].axis
    positions = np.asarray(first.values, dtype=float)
    for k, (_, signal) in enumerate(found):
        if signal.dims != ("x",):
            raise InputError(f"{path} ({name}) is an array of {signal.dims}, not one spectrum a record")
        if len(signal.axis.values) != len(positions) or not np.allclose(signal.axis.values, positions, rtol=1e-9):
            raise InputError(
                f"{path}: spectrum {k + 1} has {len(signal.axis.values)} positions from {signal.axis.values[0]:g}, and "
                f"the first {len(positions)} from {positions[0]:g}; bring them to one axis first"
            )
    check_order(str(path), positions)
    rows = []
    for record, _ in found:
        known = {key: value for key, value in record.metadata.items() if isinstance(value, str | int | float)}
        rows.append({"sample": known["sample_id"]} if "sample_id" in known else {})
        rows[-1] |= {key: value for key, value in record.targets.items() if isinstance(value, str | int | float)}
    unit = UNITS.get(first.unit.lower(), "" if first.unit == "index" else first.unit)
    array = np.array([signal.values for _, signal in found])
    table = table_of(
        str(path),
        array,
        settings,
        positions=positions,
        unit=unit,
        source=AxisSource.FILE,
        others=pd.DataFrame(rows, index=range(len(rows))),
    )
    if settings.table or len(names) == 1:
        return table
    finding = Finding(f"{name} of the signals {', '.join(names)}", "it is the usual one", Option("table"))
    from dataclasses import replace

    return replace(table, layout=replace(table.layout, findings=(finding,)))


_BY_SUFFIX = {
    ".jdx": "JCAMP-DX",
    ".dx": "JCAMP-DX",
    ".jcm": "JCAMP-DX",
    ".jcamp": "JCAMP-DX",
    ".spc": "Galactic SPC",
    ".spa": "Nicolet OMNIC",
    ".spg": "Nicolet OMNIC",
    ".srs": "Nicolet OMNIC",
    ".sp": "PerkinElmer SP",
    ".asd": "ASD FieldSpec",
    ".sed": "Spectral Evolution",
    ".sig": "SVC or GER",
    ".wdf": "Renishaw WDF",
    ".wip": "WiTec",
    ".wid": "WiTec",
    ".jws": "JASCO JWS",
    ".dpt": "Bruker OPUS (text)",
    ".msa": "EMSA/MAS",
    ".nir": "BUCHI NIRCal",
    ".animl": "AnIML",
}
SUFFIXES = tuple(_BY_SUFFIX)
"""How the names of instruments' files end."""

_MAGIC = {
    b"\x0a\x0a\xfe\xfe": "Bruker OPUS",
    b"##TITLE": "JCAMP-DX",
    b"##title": "JCAMP-DX",
    b"##Title": "JCAMP-DX",
    b"Spectral Data File": "Nicolet OMNIC",
    b"Spectral Exte File": "Nicolet OMNIC",
    b"PEPE": "PerkinElmer SP",
    b"WDF1": "Renishaw WDF",
    b"WIT_P": "WiTec",
    b"ASD": "ASD FieldSpec",
    b"as7": "ASD FieldSpec",
    b"as8": "ASD FieldSpec",
}


def format_of(path: Path, start: bytes | None = None) -> str:
    """The name of an instrument's format, by the file's first bytes or its name; empty if neither is known."""
    if start is None:
        with path.open("rb") as file:
            start = file.read(64)
    for magic, name in _MAGIC.items():
        if start.startswith(magic):
            return name
    if len(start) > 2 and start[1] in b"\x4b\x4c\x4d\xcf" and path.suffix.lower() == ".spc":
        return "Galactic SPC"
    return _BY_SUFFIX.get(path.suffix.lower(), "")
