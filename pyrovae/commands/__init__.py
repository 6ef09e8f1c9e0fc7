"""The console command ``pyrovae``, one file a subcommand."""
