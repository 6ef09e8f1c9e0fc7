"""``pyrovae resume DIR``."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from pyrovae.commands import compare, fit
from pyrovae.commands._options import chosen, with_options
from pyrovae.commands._read import ReadLine, Summary, resuming
from pyrovae.comparison.settings import Execution
from pyrovae.comparison.study import Study, load_begun
from pyrovae.errors import InputError


@with_options(Execution())
@dataclass
class Resume:
    """Continue an interrupted `pyrovae fit` or `pyrovae compare`."""

    folder: tyro.conf.Positional[Path]
    """The folder that was given to --out."""
    checkpoint_seconds: float = 30.0
    """Seconds between checkpoints."""
    json: bool = False
    """Print one line of JSON instead of words."""

    def __call__(self) -> Summary:
        """Continue the run."""
        import torch

        from pyrovae.comparison.compare_file import compare_file
        from pyrovae.comparison.fit_file import fit_file

        begun, progress, said = load_begun(self.folder), not self.json, ReadLine(self.json)
        execution = chosen(self, Execution())
        if not isinstance(begun, Study) and execution != Execution():
            raise InputError(
                f"--workers and --scheduler are for comparisons, and {self.folder} holds a fit: leave them out"
            )
        with resuming(self.folder):
            if isinstance(begun, Study):
                torch.set_num_threads(1)
                study = compare_file(begun, self.folder, execution=execution, progress=progress, on_read=said)
                return {**compare.summary_of(study, self.folder), **said.said}
            metrics = fit_file(
                begun, self.folder, checkpoint_seconds=self.checkpoint_seconds, progress=progress, on_read=said
            )
            return {**fit.summary_of(metrics, self.folder), **said.said}
