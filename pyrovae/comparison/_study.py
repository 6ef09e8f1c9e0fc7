"""What a study compares: its settings, and how they are kept in its folder."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyrovae.comparison._pairs import LikelihoodFactory, can_start_as_linear
from pyrovae.comparison._plan import Cell
from pyrovae.comparison.fit_file import likelihood_of_own_data
from pyrovae.comparison.recommendation import THRESHOLD
from pyrovae.datasets import Spectra, read_data, simulated
from pyrovae.elbo import ESTIMATORS
from pyrovae.errors import InputError
from pyrovae.likelihoods import LIKELIHOODS
from pyrovae.posteriors import POSTERIORS
from pyrovae.training import TrainingSettings


@dataclass(frozen=True)
class Study:
    """What is compared on a file of data: posteriors, likelihoods and estimators by their names.

    Attributes:
        data: the file; None for simulated spectra.
        epochs: passes over the training data; None to make the most of the budget.
        budget: seconds for everything.
        threshold: nats per datum below which there is no difference.
        group: column whose equal values are not parted by the split.
        missing: ``"error"``, or ``"mask"`` for values that were not observed.
    """

    data: Path | None
    posteriors: tuple[str, ...] = ("diagonal", "full-covariance")
    likelihoods: tuple[str, ...] = ("gaussian", "ar1", "ar1-per-dimension", "full-covariance")
    estimators: tuple[str, ...] = ("analytic",)
    latent_dim: int = 2
    seeds: int = 3
    epochs: int | None = None
    budget: float = 600.0
    batch_size: int = 32
    learning_rate: float = 3e-3
    hidden: tuple[int, ...] = (64, 64)
    samples: int = 200
    threshold: float = THRESHOLD
    channels: str | None = None
    group: str | None = None
    missing: str = "error"

    def __post_init__(self) -> None:
        if self.missing not in ("error", "mask"):
            raise InputError(f"missing must be 'error' or 'mask', not {self.missing!r}")
        for option, names, choices in (
            ("posteriors", self.posteriors, POSTERIORS),
            ("likelihoods", self.likelihoods, LIKELIHOODS),
            ("estimators", self.estimators, ESTIMATORS),
        ):
            unknown = [name for name in names if name not in choices]
            if unknown or not names:
                what = f"unknown {unknown[0]!r}" if unknown else "none given"
                raise InputError(f"{option}: {what}; choose from {', '.join(choices)}")
        if self.seeds < 2:
            raise InputError(f"seeds must be at least 2, not {self.seeds}: one shows no spread to judge a gain by")
        if not self.budget > 0:
            raise InputError(f"the budget must be a positive time, not {self.budget!r}")
        TrainingSettings(1 if self.epochs is None else self.epochs, self.batch_size, self.learning_rate)

    @property
    def start(self) -> str:
        """Where training starts: at the linear model of the same noise, where every model can."""
        possible = can_start_as_linear(self.posteriors, self.likelihoods, self.missing == "mask")
        return "linear" if possible else "random"

    @property
    def correlated_noise(self) -> dict[str, LikelihoodFactory]:
        """The likelihoods whose linear models are baselines, too: of independent noise these are the classical ones."""
        names = [name for name in self.likelihoods if name.startswith(("ar1", "low-rank", "full-covariance"))]
        return {name: LIKELIHOODS[name] for name in names}

    @property
    def parts(self) -> dict[str, Any]:
        """What :func:`pyrovae.compare` is to train, and how."""
        return {
            "posteriors": {name: POSTERIORS[name] for name in self.posteriors},
            "estimators": {name: ESTIMATORS[name]() for name in self.estimators},
            "likelihoods": {name: likelihood_of_own_data(name) for name in self.likelihoods},
            "batch_size": self.batch_size,
            "learning_rate": self.learning_rate,
            "hidden": self.hidden,
        }

    def read(self) -> Spectra:
        """The data."""
        if self.data is None:
            return simulated(400, 60)
        return read_data(self.data, channels=self.channels, missing=self.missing)


def cells_of(study: Study, seed: int = 0) -> list[Cell]:
    """One cell a model, the simplest first, in the order that they are given in."""
    return [
        Cell(posterior, estimator, likelihood, study.latent_dim, seed)
        for likelihood in study.likelihoods
        for posterior in study.posteriors
        for estimator in study.estimators
    ]


def read_config(folder: Path) -> dict[str, Any] | None:
    """What a study was begun with; None where none was.

    Raises:
        InputError: the file is damaged.
    """
    path = folder / "config.json"
    if not path.exists():
        return None
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(config["study"], dict) or not int(config["epochs"]) > 0 or "gap_data" not in config:
            raise InputError("it holds no study")
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"cannot read {path} as a study: {' '.join(str(error).split())}") from None
    return config


def holds_study(folder: Path) -> bool:
    """Whether a folder is a study's, begun at least, rather than that of one model's training."""
    try:
        return "study" in json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return (folder / "runs").is_dir()


def load_study(folder: str | Path) -> Study:
    """The study that a folder was begun with.

    Raises:
        InputError: it holds none.
    """
    config = read_config(Path(folder))
    if config is None:
        raise InputError(f"{folder} holds no study to go on with; give what pyrovae compare wrote")
    settings: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in config["study"].items()}
    try:
        data = settings.pop("data")
        return Study(data=None if data is None else Path(data), **settings)
    except (KeyError, TypeError) as error:
        raise InputError(f"cannot read the study in {folder}: {error}") from None
