"""A record of what was read from a file, for the console and the report."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pyrovae.errors import Message, Option


class AxisSource(StrEnum):
    """Where the channels' positions come from."""

    HEADER = "from the header"
    ROW = "from a row of its own"
    COLUMN = "from the first column"
    FILE = "from the file"
    GIVEN = "as given"
    COUNTED = "counted"


class Place(StrEnum):
    """What a file's rows are, or its columns."""

    ROWS = "rows"
    COLUMNS = "columns"
    FILES = "files"


@dataclass(frozen=True)
class Finding:
    """An answer to a question about a file, found by evidence.

    Attributes:
        answer: what was found, such as ``"samples in columns"``.
        evidence: what speaks for it.
        overruled_by: the option that says otherwise; None if there is none.
        guessed: whether the file could be meant otherwise.
    """

    answer: str
    evidence: str
    overruled_by: Option | None = None
    guessed: bool = True

    @property
    def message(self) -> Message:
        """The finding in words."""
        otherwise = (" (else ", self.overruled_by, ")") if self.overruled_by else ()
        return Message(self.answer, f", as {self.evidence}" if self.evidence else "", *otherwise)


@dataclass(frozen=True)
class Reading:
    """How a file was read.

    Attributes:
        num: number of spectra.
        num_channels: number of channels.
        ends: first and last position of the axis.
        unit: unit of the axis.
        source: source of the axis.
        samples: where the samples are.
        kept_apart: names of the columns that are not channels.
        num_missing: number of values that are missing.
        left_out: names of the columns that were left out.
        findings: what was found by evidence.
    """

    num: int
    num_channels: int
    ends: tuple[float, float]
    unit: str
    source: AxisSource
    samples: Place
    kept_apart: tuple[str, ...] = ()
    num_missing: int = 0
    left_out: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()

    @property
    def guesses(self) -> tuple[Finding, ...]:
        """The findings that could be meant otherwise."""
        return tuple(finding for finding in self.findings if finding.guessed)

    @property
    def line(self) -> str:
        """What was read, in one line.

        Example:
            >>> Reading(120, 9, (4000, 400), "cm⁻¹", AxisSource.HEADER, Place.ROWS, ("ID",)).line
            'read 120 spectra × 9 channels, 4000 … 400 cm⁻¹ (from the header), samples in rows; kept apart: ID'
        """
        first, last = (f"{end:.6g}" for end in self.ends)
        unit = f" {self.unit}" if self.unit not in ("", "channel") else ""
        axis = "channels counted" if self.source is AxisSource.COUNTED else f"{first} … {last}{unit} ({self.source})"
        what = "images" if self.unit == "pixel" else "spectra" if self.num > 1 else "spectrum"
        parts = [f"read {self.num} {what} × {self.num_channels} channels, {axis}, samples in {self.samples}"]
        for title, names in (("kept apart", self.kept_apart), ("left out", self.left_out)):
            if names:
                more = f" and {len(names) - 8} more" if len(names) > 8 else ""
                parts.append(f"{title}: {', '.join(names[:8])}{more}")
        if self.num_missing:
            parts.append(f"{self.num_missing} missing")
        return "; ".join(parts)

    def lines(self, *, on_console: bool = False) -> list[str]:
        """What was read, then a line for each guess, with the option that says otherwise."""
        guesses = [guess.message for guess in self.guesses]
        return [self.line, *(f"guessed: {g.on_console if on_console else g}" for g in guesses)]
