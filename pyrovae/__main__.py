"""The script ``pyrovae``, and ``python -m pyrovae``: a first line at once, before the imports that take seconds."""

import sys

from pyrovae.commands.console import errors_in_one_line
from pyrovae.errors import visible

_WITHOUT_A_FIRST_LINE = {"-h", "--help", "--help-all", "--json"}


def main() -> None:
    """Print a first line, then load the library and run the command line."""
    arguments = sys.argv[1:]
    with errors_in_one_line():
        if arguments and not _WITHOUT_A_FIRST_LINE & set(arguments):
            print(visible(f"pyrovae {' '.join(arguments[:2])}: loading PyTorch"), file=sys.stderr, flush=True)
        from pyrovae.commands.main import main as run

        run(arguments)


if __name__ == "__main__":
    main()
