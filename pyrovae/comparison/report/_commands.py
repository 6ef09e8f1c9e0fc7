"""Command lines that repeat a study, and that use its winner."""

import shlex
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

from pyrovae.comparison.report._worst import alpha_for
from pyrovae.comparison.study import Study
from pyrovae.comparison.study_result import StudyResult
from pyrovae.datasets import ReadingSettings


@dataclass(frozen=True)
class Use:
    """A command and what it does.

    Attributes:
        purpose: its purpose, in words.
        command: to be pasted.
    """

    purpose: str
    command: str


def command_of(study: Study) -> str:
    """The command line that repeats a study: every setting and count that is not the default."""
    names = [name for name in study.to_dict() if name != "data"]
    data = "--demo" if study.data is None else str(study.data)
    return shlex.join(["pyrovae", "compare", data, *_options(study, names)])


def _options(study: Study, names: Iterable[str]) -> list[str]:
    """The settings with these names that are not the default."""
    given, usual, parts = study.to_dict(), Study(data=None).to_dict(), []
    for name in names:
        value = given.get(name, usual.get(name))
        if value == usual.get(name):
            continue
        option = f"--{name.replace('_', '-')}"
        if name == "budget":
            parts += [option, f"{value:g}s"]
        elif name == "seeds":
            parts += [option, str(len(study.settings.seeds))]
        elif name == "latent_dims":
            parts += ["--latent-dim", "auto" if value == "auto" else str(study.settings.dims[0])]
        elif isinstance(value, bool):
            parts.append(option if value else f"--no-{option[2:]}")
        elif value is not None:
            parts += [option, *map(str, value if isinstance(value, list) else [value])]
    return parts


def uses_of(result: StudyResult, folder: Path, *, has_latents: bool) -> list[Use]:
    """What can be done with the recommended model."""
    study, model = result.study, str((folder / result.model).absolute())
    own = [] if study.data is None else [str(study.data.absolute())]
    how = _options(study, [field.name for field in fields(ReadingSettings)])

    def command(name: str, data: str, *rest: str) -> str:
        return shlex.join(["pyrovae", name, model, data, *how, "--out", f"{name}.csv", *rest])

    alpha, found = alpha_for(len(result.split.validation) + len(result.split.test)), []
    if own and alpha is not None:
        share = ["--alpha", f"{alpha:g}"]
        found.append(
            Use("Name the outliers of this file, with their worst channels", command("outliers", own[0], *share))
        )
        new = command("outliers", "NEW.csv", "--calibration", own[0], *share)
        found.append(Use("Name the outliers of new spectra: put your file’s name for NEW.csv", new))
    found.append(Use("Score new spectra, read in the same way as this file", command("evaluate", "NEW.csv")))
    for one in own or ["NEW.csv"]:
        found.append(Use("Reconstruct every spectrum", command("reconstruct", one)))
        if has_latents:
            found.append(Use("The latent values of every spectrum, with their uncertainty", command("encode", one)))
    found.append(
        Use("Make 100 new spectra", shlex.join(["pyrovae", "sample", model, "--num", "100", "--out", "sample.csv"]))
    )
    return found
