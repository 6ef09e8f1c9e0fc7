"""``python -m pyrovae``: the console command."""

from pyrovae.commands import main

if __name__ == "__main__":
    main()
