"""The console command: a first line at once, a subcommand's settings in, one summary out."""

import json
import math
import sys
from collections.abc import Sequence

from pyrovae.commands.console import errors_in_one_line, parse
from pyrovae.errors import visible
from pyrovae.progress import reports

_WITHOUT_A_FIRST_LINE = {"-h", "--help", "--help-all", "--json"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line, the process's own if none is given; bad input is one line and exit status 2."""
    with errors_in_one_line():
        words = sys.argv[1:]
        if arguments is None and words and reports() and not _WITHOUT_A_FIRST_LINE & set(words):
            print(visible(f"pyrovae {' '.join(words[:2])}: loading PyTorch"), file=sys.stderr, flush=True)
        from pyrovae.commands._subcommands import SUBCOMMANDS

        command = parse(SUBCOMMANDS, arguments, prog="pyrovae")
        summary = command()
        text = summary.pop("text")
        if command.json:
            finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in summary.items()}
            text = json.dumps(finite)
        if reports():
            print(visible(str(text)))
