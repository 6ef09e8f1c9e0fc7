"""A study's report: one self-contained HTML file, in its reader's words."""

from pyrovae.comparison.report._commands import command_of
from pyrovae.comparison.report._page import write_report

__all__ = ["command_of", "write_report"]
