"""Numbers in text: decimal signs, thousands separators, and markers of missing values."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pyrovae.datasets.readers._names import position_of
from pyrovae.datasets.readers._order import in_order
from pyrovae.datasets.readers.settings import ReadingSettings
from pyrovae.errors import InputError, Option

MISSING = frozenset((
    "", "na", "n/a", "#n/a", "<na>", "n.a.", "nd", "n.d.", "n/d", "nan", "-nan", "null", "none", "nil",
    "missing", "-", "--", "?", ".", "*", "1.#qnan", "1.#ind", "-1.#ind", "nan(ind)", "-nan(ind)", "nan(snan)",
    "#num!", "#div/0!", "#value!", "#ref!", "#name?", "#null!",
))  # fmt: skip
"""Words for a missing value, in upper or lower case."""

_SAMPLE = 1500
_HIGHEST = 20_000
"""No position lies above it, in nanometres or reciprocal centimetres."""
_SPACES = " \u00a0\u202f\u2009'’"
_EXPONENT = r"(?:[eEdD][+-]?\d+)?"
_SIGN = r"[+\-−]?"
_GROUPS = {sign: re.compile(rf"{_SIGN}\d{{1,3}}(?:{re.escape(sign)}\d{{3}})+") for sign in ",."}
_PROOFS = {
    ",": re.compile(rf"{_SIGN}(?:\d{{1,3}}(?:,\d{{3}})+\.\d+{_EXPONENT}|\d{{1,3}}(?:,\d{{3}}){{2,}})"),
    ".": re.compile(rf"{_SIGN}(?:\d{{1,3}}(?:\.\d{{3}})+,\d+{_EXPONENT}|\d{{1,3}}(?:\.\d{{3}}){{2,}})"),
}
_DECIMALS = {sign: re.compile(rf"{_SIGN}\d*{re.escape(sign)}\d+{_EXPONENT}") for sign in ",."}
_SPACED = re.compile(rf"{_SIGN}\d{{1,3}}(?:[{_SPACES}]\d{{3}})+(?:[.,]\d+)?")
_SPACED_NAME = re.compile(rf"([1-9]\d{{0,2}})([{_SPACES}])\d{{3}}(?!\d)")
_OF_FORTRAN = re.compile(r"([+-]?\d*\.\d*)[dD]([+-]?\d+)")
_PLAIN = re.compile(rf"{_SIGN}\d{{1,3}}")


@dataclass(frozen=True)
class Numerals:
    """How a file writes numbers.

    Attributes:
        decimal: the decimal sign.
        thousands: characters between thousands.
        missing: words for a missing value, in small letters.
        guessed: whether the file could be read in another way.
        percent: whether a percent sign stands after the numbers.
        is_given: whether the user says which sign is decimal.
    """

    decimal: str = "."
    thousands: str = ""
    missing: frozenset[str] = MISSING
    guessed: bool = False
    percent: bool = False
    is_given: bool = False

    def value(self, field: str) -> float | None:
        """The number in a field, NaN where it is missing; None of all other text, such as 1_0 or 1,5 amid points."""
        field = field.strip()
        if field.lower() in self.missing:
            return np.nan
        field = self._plain(field).replace("−", "-")
        if "_" in field or "," in field:
            return None
        try:
            return float(field)
        except ValueError:
            found = _OF_FORTRAN.fullmatch(field)
            return float(f"{found[1]}e{found[2]}") if found and len(found[1]) > 1 else None

    def _plain(self, field: str) -> str:
        """A field as Python writes numbers."""
        if self.percent and field.endswith("%"):
            field = field[:-1].rstrip()
        if self.thousands:
            whole, sign, rest = field.partition(self.decimal)
            if re.fullmatch(rf"{_SIGN}\d{{1,3}}(?:[{re.escape(self.thousands)}]\d{{3}})+", whole):
                field = re.sub(f"[{re.escape(self.thousands)}]", "", whole) + sign + rest
        if self.decimal == ",":
            field = field.replace(".", "\0").replace(",", ".")
        return field

    def of_column(self, fields: Sequence[str]) -> Numerals:
        """How one column writes numbers, which may have signs between thousands where no other column has any."""
        other = "." if self.decimal == "," else ","
        signed = [field for field in fields if any(sign in field[1:] for sign in other + _SPACES)]
        grouped = re.compile(rf"{_SIGN}[1-9]\d{{0,2}}(?:([{_SPACES}{other}])\d{{3}})+(?:{re.escape(self.decimal)}\d+)?")
        signs = {match[1] if match else "" for match in map(grouped.fullmatch, signed)}
        if len(signs) != 1 or "" in signs or any(re.fullmatch(rf"{_SIGN}\d{{4,}}.*", field) for field in fields):
            return self
        return replace(self, thousands="".join({*self.thousands, *signs}))

    def names(self, header: Sequence[str], where: str) -> list[str]:
        """Names of columns without signs between the thousands of their numbers, as in 1.100 beside decimal commas.

        Raises:
            InputError: the sign may be decimal, and nothing decides it.
        """
        header = _unspaced(header)
        sign = "." if self.decimal == "," else ","
        grouped = re.compile(rf"(?<![\d.,])[1-9]\d{{0,2}}(?:{re.escape(sign)}\d{{3}})+(?![\d{re.escape(sign)}])")
        signed = [name for name in header if sign in name]
        if not signed or not all(grouped.search(name) for name in signed):
            return list(header)
        found = [grouped.sub(lambda match: match[0].replace(sign, ""), name) for name in header]
        whole, parts = _positions(found), _positions(header)
        is_proven = sign in self.thousands
        if not _is_axis(whole) or (not is_proven and max(whole) > _HIGHEST):
            return list(header)
        if sign == "." and _is_axis(parts) and not (is_proven or self.is_given):
            raise InputError(
                f"{where}: {signed[0]!r} above numbers with decimal commas may be {whole[0]:g}, then say ",
                Option("decimal", self.decimal),
                f", or {parts[0]:g}, then write it with a comma",
            )
        return found

    def array(self, rows: Sequence[Sequence[str]]) -> tuple[NDArray[np.float64], NDArray[np.bool_] | None]:
        """Fields (rows, columns) as numbers, NaN where they are none; and which are text, None if none is."""
        shape = (len(rows), len(rows[0]) if rows else 0)
        values, text = np.full(shape, np.nan), np.zeros(shape, dtype=np.bool_)
        for j, column in enumerate(zip(*rows, strict=True)):
            if not self.thousands and not self.percent and "_" not in "".join(column):  # float("1_0") is 10
                try:
                    values[:, j] = np.array([*map(self._plain, column)] if self.decimal == "," else column, np.float64)
                    continue
                except ValueError:
                    pass
            for i, field in enumerate(column):
                value = self.value(field)
                values[i, j], text[i, j] = (np.nan, True) if value is None else (value, False)
        return values, text if text.any() else None


def _unspaced(names: Sequence[str]) -> Sequence[str]:
    """Names without spaces between the thousands of numbers that they begin with, as in ``4 000``.

    In ``1 400``, ``2 402`` a count stands before each position.
    """
    spaced = [_SPACED_NAME.match(name) for name in names]
    first = [int(match[1]) for match in spaced if match]
    if not first or (len(first) > 1 and (np.diff(first) == 1).all()):
        return names
    return [
        match[0].replace(match[2], "") + name[match.end() :] if match else name
        for match, name in zip(spaced, names, strict=True)
    ]


def _positions(names: Sequence[str]) -> NDArray[np.float64]:
    return np.array([position for position in map(position_of, names) if position is not None])


def _is_axis(positions: NDArray[np.float64]) -> bool:
    return len(positions) > 2 and in_order(positions)


def numerals_of(rows: Sequence[Sequence[str]], settings: ReadingSettings, where: str) -> Numerals:
    """How a file writes numbers, from some of its rows.

    Raises:
        InputError: a sign may be decimal or a thousands separator, and nothing decides it.
    """
    columns = [*zip(*rows, strict=False)]
    few = columns[:: max(1, len(rows) * len(columns) // _SAMPLE)]
    fields = [field.strip() for column in few for field in column]
    fields += [field.strip() for row in rows for field in row if "," in field and "." in field][:_SAMPLE]
    percent = [f for f in fields if f.endswith("%") and any(c.isdigit() for c in f)]
    if 2 * len(percent) > len(fields):
        rows = [[field.strip().removesuffix("%").rstrip() for field in row] for row in rows]
        return replace(numerals_of(rows, settings, where), percent=True)
    missing = MISSING | {word.lower() for word in settings.missing_words}
    spaced = [field for field in fields if _SPACED.fullmatch(field)]
    thousands = "".join(sorted({c for field in spaced for c in field if c in _SPACES}))
    if settings.decimal is not None:
        other = "," if settings.decimal == "." else "."
        grouped = any(_PROOFS[other].fullmatch(f) or _GROUPS[other].fullmatch(f) for f in fields)
        return Numerals(settings.decimal, thousands + other * grouped, missing, is_given=True)
    if thousands:
        fields = [re.sub(f"[{thousands}]", "", field) if _SPACED.fullmatch(field) else field for field in fields]
    proofs = {sign: any(proof.fullmatch(f) for f in fields) for sign, proof in _PROOFS.items()}
    if proofs[","] != proofs["."]:
        group = "," if proofs[","] else "."
        return Numerals("." if group == "," else ",", thousands + group, missing, guessed=True)
    counts = {sign: sum(pattern.fullmatch(f) is not None for f in fields) for sign, pattern in _DECIMALS.items()}
    decimal = "," if counts[","] > counts["."] else "."
    if not thousands and counts[decimal] and (decimal == "," or not counts[","]):
        _check_undivided(columns, decimal, where)
    return Numerals(decimal, thousands, missing, guessed=decimal == ",")


def _check_undivided(columns: Sequence[Sequence[str]], sign: str, where: str) -> None:
    """Raise where each number with this sign could have thousands there: 1,234 and never 0,5 or 1,25.

    A point stands between thousands only where numbers below 1000 have none beside it, as in 987 above 1.234.
    """
    signed, mixed = [], 0
    for column in columns:
        own = [field.strip() for field in column if sign in field and _DECIMALS[sign].fullmatch(field.strip())]
        if any(field.count(sign) > 1 for field in own):
            return
        if not all(_GROUPS[sign].fullmatch(field) and not re.match(rf"{_SIGN}0", field) for field in own):
            return
        signed.append(own)
        plain = [float(f.replace("−", "-")) for f in map(str.strip, column) if _PLAIN.fullmatch(f)] if own else []
        if plain:
            ratio = np.median([float(f.replace(sign, ".").replace("−", "-")) for f in own]) / (
                np.median(plain) or np.nan
            )
            if 0.5 < ratio < 2:  # 359.889 beside 350; if they were thousands, there would be nothing between
                return
            mixed += 1
    with_sign = [own for own in signed if own]
    if sign == "," or 4 * mixed > len(with_sign):
        other, first = "." if sign == "," else ",", with_sign[0][0]
        raise InputError(
            f"{where}: {first!r} may be {first.replace(sign, '.')} or {first.replace(sign, '')}; say which is the "
            "decimal sign, the first with ",
            Option("decimal", sign),
            " or the second with ",
            Option("decimal", other),
        )
