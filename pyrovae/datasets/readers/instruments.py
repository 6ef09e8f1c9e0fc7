"""Formats of instruments, read by nirs4all-formats: JCAMP-DX, Bruker OPUS, Galactic SPC and some fifty others."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pyrovae.datasets.readers._channels import check_order
from pyrovae.datasets.readers._jcamp import Block, confirmed, standard
from pyrovae.datasets.readers._names import UNITS
from pyrovae.datasets.readers._table import Choose, Table, table_of
from pyrovae.datasets.readers.settings import ReadingSettings, check_size
from pyrovae.datasets.reading import AxisSource, Finding
from pyrovae.errors import InputError, Option, needing_extra, one_line

if TYPE_CHECKING:
    from nirs4all_formats import SpectralArray, SpectralRecordSet

_USUAL = ("absorbance", "reflectance", "transmittance", "signal", "raman_intensity", "counts")
_PLAIN = (str, int, float)
_IN_MEMORY = 40
"""Bytes in memory for a byte of a file, at most about."""


def read_instrument(path: Path, settings: ReadingSettings, choose: Choose) -> Table:
    """The spectra in an instrument's file: its only signal, or absorbance, reflectance, transmittance in this order."""
    kind = format_of(path)
    with needing_extra(f"{path} is {kind}: pip install 'pyrovae[formats]' to read it (nirs4all-formats)"):
        import nirs4all_formats
    check_size(str(path), float(_IN_MEMORY * path.stat().st_size), settings.max_gib)
    blocks: list[Block] = []
    try:
        if kind == "JCAMP-DX":
            text, blocks = standard(path.read_bytes().decode("latin-1"))
            with tempfile.TemporaryDirectory(prefix="pyrovae-") as folder:
                copy = Path(folder) / path.name
                copy.write_bytes(text.encode("latin-1"))
                records = nirs4all_formats.open_recordset(copy)
        else:
            records = nirs4all_formats.open_recordset(path)
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        what = re.sub(rf"\S*{re.escape(path.name)}", "the file", one_line(error, 200))
        raise InputError(f"{path} cannot be read as {kind}: {what}") from None
    return _table(path, records, settings, blocks)


def _table(path: Path, records: SpectralRecordSet, settings: ReadingSettings, blocks: list[Block]) -> Table:
    import pandas as pd

    names = records.signal_names()
    usual = [name for name in _USUAL if name in names]
    name = settings.table or (names[0] if len(names) == 1 else next(iter(usual), None))
    found = _blocks(records) if name is None else []
    if not found and (name is None or name not in names):
        said = f"no signal {settings.table!r}, but" if settings.table else "the signals"
        raise InputError(
            f"{path} holds {said} {', '.join(names) or 'nothing'}; say which is wanted with ",
            Option("table", names[0] if names else None),
        )
    if name is not None:
        for k, record in enumerate(records, 1):
            if name not in record.signals:
                others = ", ".join(record.signals)
                raise InputError(f"{path}: spectrum {k} has no {name}, but {others}; save each kind in its own file")
        found = [(record.metadata, record.targets, record.signals[name]) for record in records]
    first = found[0][2].axis
    axes = [np.asarray(signal.axis.values, dtype=float) for *_, signal in found]
    findings: list[Finding] = []
    if len(blocks) == len(axes) and not settings.gives_axis:
        some = [confirmed(block, axis, str(path)) for block, axis in zip(blocks, axes, strict=True)]
        axes = [axis for axis, _ in some]
        findings += dict.fromkeys(finding for _, finding in some if finding is not None)
    positions = axes[0]
    kind = _kind(found[0][2])
    for k, ((*_, signal), axis) in enumerate(zip(found, axes, strict=True)):
        if _kind(signal) != kind:
            raise InputError(
                f"{path}: spectrum {k + 1} holds {_kind(signal)}, and the first {kind}; convert them to one"
            )
        if signal.dims != ("x",):
            raise InputError(f"{path} ({name}) is an array of {signal.dims}, not one spectrum a record")
        if len(axis) != len(positions) or not np.allclose(axis, positions, rtol=1e-9):
            raise InputError(
                f"{path}: spectrum {k + 1} has {len(axis)} positions from {axis[0]:g}, and "
                f"the first {len(positions)} from {positions[0]:g}; bring them to one axis first"
            )
    check_order(str(path), positions)
    rows = []
    for metadata, targets, _ in found:
        rows.append({"sample": metadata["sample_id"]} if isinstance(metadata.get("sample_id"), _PLAIN) else {})
        rows[-1] |= {key: value for key, value in targets.items() if isinstance(value, _PLAIN)}
    unit = UNITS.get(first.unit.lower(), "" if first.unit == "index" else first.unit)
    array = np.array([signal.values for *_, signal in found])
    table = table_of(
        str(path),
        array,
        settings,
        positions=positions,
        unit=unit,
        source=AxisSource.FILE,
        others=pd.DataFrame(rows, index=range(len(rows))),
    )
    if name in usual and not settings.table and len(names) > 1:
        findings.append(Finding(f"{name} of the signals {', '.join(names)}", "it is the usual one", Option("table")))
    return replace(table, layout=replace(table.layout, findings=tuple(findings), signal=kind))


def _kind(signal: SpectralArray) -> str:
    """What the values are, such as ``%t``."""
    return str(signal.unit or signal.signal_type).lower()


def _blocks(records: SpectralRecordSet) -> list[tuple[Mapping[str, object], Mapping[str, object], SpectralArray]]:
    """The blocks of a compound JCAMP-DX file, if all hold one kind of signal, with their titles."""
    found: list[tuple[Mapping[str, object], Mapping[str, object], SpectralArray]] = []
    for record in records:
        blocks = record.metadata.get("jcamp_link", {}).get("blocks", ())
        for k, block in enumerate(blocks, 1):
            if f"signal_{k}" in record.signals:
                found.append(({"sample_id": block.get("title")}, record.targets, record.signals[f"signal_{k}"]))
    is_one = len({_kind(signal) for *_, signal in found}) == 1
    return found if is_one and len(found) == sum(len(record.signals) for record in records) else []


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
    b"## TITLE": "JCAMP-DX",
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
