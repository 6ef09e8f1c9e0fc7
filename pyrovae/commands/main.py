"""The console command: settings of a subcommand in, one summary out."""

import json
import math
from collections.abc import Sequence
from typing import Annotated, Any

import tyro

from pyrovae.commands.compare import Compare
from pyrovae.commands.console import errors_in_one_line, parse
from pyrovae.commands.encode import Encode
from pyrovae.commands.evaluate import Evaluate
from pyrovae.commands.fit import Fit
from pyrovae.commands.impute import Impute
from pyrovae.commands.outliers import Outliers
from pyrovae.commands.reconstruct import Reconstruct
from pyrovae.commands.resume import Resume
from pyrovae.commands.sample import Sample
from pyrovae.errors import visible

_COMMANDS: Any = (
    Annotated[Compare, tyro.conf.subcommand("compare")]
    | Annotated[Fit, tyro.conf.subcommand("fit")]
    | Annotated[Resume, tyro.conf.subcommand("resume")]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Encode, tyro.conf.subcommand("encode")]
    | Annotated[Reconstruct, tyro.conf.subcommand("reconstruct")]
    | Annotated[Impute, tyro.conf.subcommand("impute")]
    | Annotated[Outliers, tyro.conf.subcommand("outliers")]
    | Annotated[Sample, tyro.conf.subcommand("sample")]
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; bad input is one line and exit status 2."""
    with errors_in_one_line():
        command = parse(_COMMANDS, arguments, prog="pyrovae")
        summary = command()
        text = summary.pop("text")
        if command.json:
            finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in summary.items()}
            text = json.dumps(finite)
        print(visible(str(text)))
