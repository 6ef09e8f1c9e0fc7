"""The script ``pyrovae``, and ``python -m pyrovae``."""

from pyrovae.commands.main import main

if __name__ == "__main__":
    main()
