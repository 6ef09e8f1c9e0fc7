"""Comparisons of models on one set of data: settings, plan, runs, recommendation, tables and report."""

from pyrovae.comparison._result import RunStatus
from pyrovae.comparison.compare import compare
from pyrovae.comparison.notes import Note, NoteKind
from pyrovae.comparison.recommendation import Recommendation, Verdict, recommend
from pyrovae.comparison.settings import ComparisonSettings

__all__ = ["ComparisonSettings", "Note", "NoteKind", "Recommendation", "RunStatus", "Verdict", "compare", "recommend"]
