"""What is done with a file of data: many models compared, or one trained; and how that is kept in a folder."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

import torch

from pyrovae.comparison.settings import ComparisonSettings, LikelihoodFactory, ModelSettings
from pyrovae.datasets import ReadingSettings, Spectra, SpectraSplit, read_data, simulated, split_spectra
from pyrovae.errors import InputError, check_choice, check_integer, one_line
from pyrovae.linear_gaussian.keys import PCA_BY_VALIDATION, SHRUNK_GAUSSIAN, LinearKey, linear_with
from pyrovae.training import TrainingSettings

T = TypeVar("T")

MAX_EPOCHS = 500
"""Passes over the training data at most, however long the budget."""

INITIAL_SCALE = 0.25
"""Where a Gaussian σ starts, in units of the data's standard deviation: near the error that training starts with."""

COMPARED_BY_DEFAULT = ComparisonSettings(
    posteriors=("diagonal", "full-covariance"),
    likelihoods=("gaussian", "ar1", "ar1-per-dimension", "full-covariance"),
    estimators=("analytic",),
    seeds=(0, 2, 4),
    hidden=(64, 64),
    start="auto",
    preprocessing="mean",
    log_marginal_samples=200,
    together=False,
    training=TrainingSettings(epochs=MAX_EPOCHS, learning_rate=3e-3),
)
TRAINED_BY_DEFAULT = ModelSettings(start="auto", preprocessing="mean")
READ_BY_DEFAULT = ReadingSettings()
HOW_BY_DEFAULT = TrainingSettings(epochs=100, learning_rate=3e-3)


@dataclass(frozen=True, kw_only=True)
class FileSettings:
    """A file of data, and which of its rows stay together."""

    data: Path | None
    """The file; None for simulated spectra."""
    reading: ReadingSettings = READ_BY_DEFAULT
    """How it is read."""
    group: str | None = None
    """Column that names the sample. Rows of one sample stay in one part."""
    allow_replicates: bool = False
    """Let copies of one sample be in both training and test data. Results then look too good."""

    max_test: int = 2000
    """Score at most this many test data."""

    def __post_init__(self) -> None:
        check_integer("max_test", self.max_test, least=2)

    def read(self) -> Spectra:
        """The data."""
        return simulated(400, 60) if self.data is None else read_data(self.data, self.reading, group=self.group)

    def split(self, data: Spectra, seed: int = 0) -> SpectraSplit:
        """What is trained on, what chooses, and what is tested on."""
        return split_spectra(data, group=self.group, allow_replicates=self.allow_replicates, seed=seed)

    @classmethod
    def _of(cls, values: Mapping[str, object], **parts: Any) -> Self:
        """Settings from values that stand side by side, with these parts."""
        data = values["data"]
        if not isinstance(data, str | None):
            raise InputError(f"its data is not a file name: {data!r}")
        own = _picked(cls(data=None), {name: value for name, value in values.items() if name != "data"})
        return replace(own, data=None if data is None else Path(data), reading=_reading(values), **parts)


@dataclass(frozen=True, kw_only=True)
class Study(FileSettings):
    """What is compared on a file of data."""

    settings: ComparisonSettings = COMPARED_BY_DEFAULT
    """What is compared, by names."""
    budget: float = 600.0
    """Seconds for everything."""
    epochs: int | None = None
    """Passes over the training data. If given, the budget is ignored."""
    gap_data: int | None = None
    """Number of test data for which log p(x) − ELBO is split into family and encoder; 32 if the budget allows."""
    linear_only: tuple[str, ...] = ()
    """Likelihoods for which only linear models are compared, no VAEs."""
    linear_left_out: tuple[str, ...] = ()
    """Linear models that are not fitted, by their names in comparison.csv."""

    def __post_init__(self) -> None:
        super().__post_init__()
        num_seeds = len(self.settings.seeds)
        if num_seeds < 2:
            raise InputError(f"seeds must be at least 2, not {num_seeds}: one seed shows no spread to judge a gain by")
        if not self.budget > 0:
            raise InputError(f"the budget must be a positive time, not {self.budget!r}")
        if self.epochs is not None:
            check_integer("epochs", self.epochs)
        if self.gap_data is not None:
            check_integer("gap_data", self.gap_data, least=0)
        for name in self.linear_only:
            check_choice("likelihood", name, self.settings.named_likelihoods)
        for name in self.linear_left_out:
            check_choice("linear model", name, self.linear_keys)

    @property
    def linear_keys(self) -> dict[str, LinearKey]:
        """The linear models that may be left out, by their names."""
        keys = [*map(linear_with, self.settings.named_likelihoods), PCA_BY_VALIDATION, SHRUNK_GAUSSIAN]
        return {str(key): key for key in keys}

    def to_dict(self) -> dict[str, object]:
        """All settings side by side, as values that JSON has."""
        return _side_by_side(self.settings, self.settings.training, self.reading, self)

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> Self:
        """The study that :meth:`to_dict` described, in this version or in 0.1."""
        values = {**values}
        if isinstance(num_seeds := values.get("seeds"), int):  # of version 0.1
            values["seeds"] = range(0, 2 * num_seeds, 2)
        if "latent_dim" in values:
            values["latent_dims"] = (values["latent_dim"],)
        if isinstance(values.get("samples"), int):  # version 0.1's draws of z
            values["log_marginal_samples"] = values.pop("samples")
        of_models = {name: value for name, value in values.items() if name not in ("epochs", "gap_data")}
        training = _picked(COMPARED_BY_DEFAULT.training, of_models)
        return cls._of(values, settings=_picked(replace(COMPARED_BY_DEFAULT, training=training), of_models))


@dataclass(frozen=True, kw_only=True)
class Project(FileSettings):
    """One model of a file of data."""

    model: ModelSettings = TRAINED_BY_DEFAULT
    """The model's parts."""
    training: TrainingSettings = HOW_BY_DEFAULT
    """How it is trained; the seed is the split's and the initialisation's, too."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("seed", self.training.seed, least=0)

    def to_dict(self) -> dict[str, object]:
        """All settings side by side, as values that JSON has."""
        return _side_by_side(self.model, self.training, self.reading, self)

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> Self:
        """The project that :meth:`to_dict` described, in this version or in 0.1."""
        return cls._of(values, model=_picked(TRAINED_BY_DEFAULT, values), training=_picked(HOW_BY_DEFAULT, values))


def _side_by_side(*settings: object) -> dict[str, object]:
    """The fields of settings as plain values, parts of models by their names."""
    found: dict[str, object] = {}
    for part in settings:
        for name, value in vars(part).items():
            if isinstance(value, Mapping | tuple):
                found[name] = list(value)
            elif isinstance(value, Path):
                found[name] = str(value.resolve())
            elif value is None or isinstance(value, bool | int | float | str):
                found[name] = value
    return found


def _picked(defaults: T, values: Mapping[str, object]) -> T:
    """The settings, with the values that are theirs in place of the defaults."""
    names = {field.name for field in fields(defaults)} - {"training"}  # type: ignore[arg-type]
    own = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items() if name in names}
    return replace(defaults, **own)  # type: ignore[type-var]


def _reading(values: Mapping[str, object]) -> ReadingSettings:
    """How a file is read; where earlier versions took UTF-8 unless told, it is found now."""
    if "label" not in values and values.get("encoding") == "utf-8":
        values = {name: value for name, value in values.items() if name != "encoding"}
    return _picked(READ_BY_DEFAULT, values)


@dataclass(frozen=True)
class Begun:
    """What a folder was begun with, and all of its config.json."""

    work: Study | Project
    config: dict[str, object]


def begun_in(folder: Path) -> Begun | None:
    """What a folder was begun with; None where nothing was begun.

    Raises:
        InputError: its config.json is damaged.
    """
    path = folder / "config.json"
    if not path.exists():
        return None
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(config, dict) or not {"study", "project"} & config.keys():
            raise ValueError("pyrovae fit and compare did not write it; give another folder")
        work = Study.from_dict(config["study"]) if "study" in config else Project.from_dict(config["project"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"cannot read {path}: {one_line(error, 300)}") from error
    return Begun(work, config)


def check_same(folder: Path, wanted: Study | Project, begun: Begun) -> None:
    """Raise an InputError that names the settings in which a folder differs from what is to be done in it."""
    what = "study" if isinstance(begun.work, Study) else "training"
    if type(begun.work) is not type(wanted):
        raise InputError(f"{folder} holds a {what}; give another folder")
    found = begun.work.to_dict()
    differences = [
        f"{name} {_said(found.get(name))}, not {_said(value)}"
        for name, value in wanted.to_dict().items()
        if found.get(name) != value
    ]
    if differences:
        raise InputError(f"{folder} holds a {what} with {'; '.join(differences)}; give another folder")


def load_begun(folder: str | Path) -> Study | Project:
    """The study or the project that a folder was begun with.

    Raises:
        InputError: it holds neither, or a damaged one.
    """
    begun = begun_in(Path(folder))
    if begun is None:
        path = Path(folder) / "config.json"
        raise InputError(
            f"{folder} holds no training to resume (there is no {path}); give the folder of pyrovae fit or compare"
        )
    return begun.work


def _said(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


@torch.random.fork_rng(devices=[])
def at_scale_of_data(make: LikelihoodFactory) -> LikelihoodFactory:
    """The likelihood for standardised data: Gaussian noise starts small."""
    if not make(1, 2).takes_initial_scale:
        return make
    return partial(make, initial_scale=INITIAL_SCALE)  # type: ignore[call-arg]
