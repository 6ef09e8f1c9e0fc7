"""Studies, one script each: ``python -m experiments.<name>``."""
