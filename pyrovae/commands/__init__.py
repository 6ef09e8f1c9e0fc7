"""The console command ``pyrovae``, one file a subcommand."""

from pyrovae.commands.main import main

__all__ = ["main"]
