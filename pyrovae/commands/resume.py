"""``pyrovae resume DIR``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from pyrovae.commands import compare
from pyrovae.commands.base import Summary
from pyrovae.commands.fit import train
from pyrovae.comparison._study import holds_study, load_study
from pyrovae.comparison.fit_file import load_project


@dataclass
class Resume:
    """Go on with an interrupted `pyrovae fit` or `pyrovae compare`, a fit to the same bits as if it had not been."""

    folder: tyro.conf.Positional[Path]
    """What was given to --out."""
    checkpoint_seconds: float = 30.0
    """Seconds between checkpoints."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print one line of JSON instead of words."""

    def __call__(self) -> Summary:
        """Go on."""
        if holds_study(self.folder):
            return compare.run(load_study(self.folder), self.folder, not self.json)
        return train(load_project(self.folder), self.folder, self.checkpoint_seconds, not self.json)
