"""Labels among columns that are named alike, or not at all: kept apart, or a question."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from pyrovae.datasets.readers._amid import columns_amid
from pyrovae.datasets.readers._labels import Apart, edge_columns, may_be_either
from pyrovae.datasets.readers._table import Head
from pyrovae.datasets.readers.settings import NONE, ReadingSettings
from pyrovae.datasets.reading import Finding
from pyrovae.errors import InputError, Option

_MOST_LABELS = 4


def without_labels(
    head: Head, evidence: NDArray[np.float64], columns: list[int], settings: ReadingSettings, *, is_named: bool
) -> tuple[list[int], list[Finding]]:
    """Channels without the labels at their edges.

    Raises:
        InputError: a column amid the channels may be a label, or names say channel and values say label.
    """
    findings: list[Finding] = []
    if settings.label is not None:
        return columns, findings
    asked = {columns[j]: found for j, found in columns_amid(evidence[:, columns])}
    clear: list[int] = []
    columns = [i for i in columns if i not in asked]
    for edge in (0, -1):
        for _ in range(_MOST_LABELS):
            values = evidence[:, columns]
            values[:, edge] = head.numbers[:, columns[edge]]
            found = edge_columns(values, edge)
            if found is None:
                break
            apart = columns[: found.count] if edge == 0 else columns[-found.count :]
            columns = columns[found.count :] if edge == 0 else columns[: -found.count]
            if is_named or not found.is_clear:
                asked |= dict.fromkeys(apart, found)
                break
            clear += apart
            title = _title(apart, head.header.names)
            findings.append(Finding(f"{title} as a label", f"it {found.evidence}", Option("label", NONE)))
    if asked:
        _ask_for_labels(asked, clear, head)
    unsure = [columns[edge] for edge in (0, -1) if may_be_either(evidence[:, columns], edge)]
    if unsure:
        option = Option("label", tuple(str(i + 1) for i in unsure))
        what = f"{_title(unsure, head.header.names)} as no label"
        findings.append(Finding(what, "the columns beside are noise too", option))
    return columns, findings


def _ask_for_labels(asked: dict[int, Apart], clear: list[int], head: Head) -> NoReturn:
    """Raise the question whether columns are labels; all that may be are named, as the answer must name them too."""
    reasons: dict[int, list[int]] = {}
    for i, found in sorted(asked.items()):
        reasons.setdefault(id(found), []).append(i)
    what = "; ".join(f"{_title(some, head.header.names)} {asked[some[0]].evidence}" for some in reasons.values())
    none = tuple(str(i + 1) for i in sorted(clear)) or NONE
    question = "are they labels or channels" if len(asked) > 1 else "is it a label or a channel"
    raise InputError(
        f"{head.where}: {what}: {question}? say ",
        Option("label", tuple(str(i + 1) for i in sorted([*asked, *clear]))),
        " or ",
        Option("label", none),
    )


def _title(columns: Sequence[int], names: Sequence[str]) -> str:
    """Columns by their numbers and names."""
    titles = [f"{i + 1} ({names[i]!r})" if names[i] else str(i + 1) for i in columns]
    return f"column{'s' if len(columns) > 1 else ''} {', '.join(titles)}"
