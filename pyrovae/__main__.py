"""``python -m pyrovae``: the console command."""

from pyrovae.commands.main import main

if __name__ == "__main__":
    main()
