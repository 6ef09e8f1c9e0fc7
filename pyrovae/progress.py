"""Progress of a long job: a bar on a terminal, a line every ten seconds in a file."""

import os
import sys
from collections.abc import Iterable
from typing import Any, TypeVar

from tqdm.auto import tqdm

T = TypeVar("T")

_SECONDS = 10.0
"""Between two lines; a job that is shorter prints none."""


class ProgressLines(tqdm):  # type: ignore[type-arg]
    """A bar whose every state is a line of its own, without control characters."""

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Print the state."""
        print(str(self) if msg is None else msg, file=sys.stderr, flush=True)

    def clear(self, nolock: bool = False) -> None:
        """Leave what is printed."""

    def close(self) -> None:
        """End without a last line."""
        self.disable = True


def reports(*, on_each_machine: bool = False) -> bool:
    """Whether this process prints: the only one, or the first of those that ``torchrun`` started."""
    rank = os.environ.get("LOCAL_RANK" if on_each_machine else "RANK", "0")
    return rank == "0" or "TORCHELASTIC_RUN_ID" not in os.environ


def progress_bar(work: Iterable[T] | None = None, desc: str | None = None, *, show: bool = True, **options: Any) -> Any:
    """A tqdm bar on a terminal or in a notebook; where standard error is a file or a pipe, a line every ten seconds.

    Args:
        work: what to iterate over; none for a bar that is updated by hand.
        desc: what is done.
        show: whether to show anything.
        **options: tqdm's own.
    """
    show = show and reports()
    if sys.stderr.isatty() or "ipykernel" in sys.modules:
        return tqdm(work, desc=desc, disable=not show, **options)
    lines: dict[str, Any] = {"delay": _SECONDS, "mininterval": _SECONDS, "maxinterval": _SECONDS, "miniters": 1}
    return ProgressLines(work, desc=desc, disable=not show, ncols=0, **options, **lines)
