"""A model of a file of data: trained, evaluated and kept in a folder, from which an interrupted training goes on."""

import dataclasses
import json
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from pyrovae.comparison._pairs import LikelihoodFactory, can_start_as_linear, new_pair
from pyrovae.datasets import Preprocessing, Spectra, Standardize, read_data, split_spectra
from pyrovae.elbo import ESTIMATORS
from pyrovae.errors import InputError
from pyrovae.files import locked_folder, versions, write_json, write_table
from pyrovae.io import save
from pyrovae.likelihoods import LIKELIHOODS
from pyrovae.linear_gaussian.warm_start import linear_models
from pyrovae.posteriors import POSTERIORS
from pyrovae.trained_model import TrainedModel, summary_of
from pyrovae.training import ENGINES, TrainingSettings, fit
from pyrovae.vae import AmortizedGuide, GenerativeModel

INITIAL_SCALE = 0.25
"""Where a Gaussian σ starts, in units of the data's standard deviation: near the error that training starts with."""

PREPROCESSING = ("mean", "channel", "all", "none")
"""What :class:`~pyrovae.datasets.Standardize` does, or nothing."""


STARTS = ("auto", "linear", "random")
"""Probabilistic PCA, or random weights; by itself PCA wherever the model can be one."""


@dataclass(frozen=True)
class Project:
    """What a model of a file of data is made with: posterior, likelihood and estimator by their names.

    Raises:
        InputError: a setting out of its range.
    """

    data: Path
    posterior: str = "diagonal"
    likelihood: str = "gaussian"
    estimator: str = "analytic"
    latent_dim: int = 2
    epochs: int = 100
    batch_size: int = 32
    learning_rate: float = 3e-3
    hidden: tuple[int, ...] = (128, 128)
    preprocessing: str = "mean"
    channels: str | None = None
    group: str | None = None
    missing: str = "error"
    seed: int = 0
    engine: str = "auto"
    start: str = "auto"

    def __post_init__(self) -> None:
        for name, choices in (
            ("posterior", POSTERIORS),
            ("likelihood", LIKELIHOODS),
            ("estimator", ESTIMATORS),
            ("preprocessing", PREPROCESSING),
            ("engine", ENGINES),
            ("start", STARTS),
        ):
            if getattr(self, name) not in choices:
                raise InputError(f"unknown {name} {getattr(self, name)!r}; choose one of {', '.join(choices)}")
        TrainingSettings(self.epochs, self.batch_size, self.learning_rate, seed=self.seed)

    def read(self) -> Spectra:
        """The data in the file.

        Raises:
            FileNotFoundError: there is no such file.
            InputError: it cannot be read; says where and how to mend it.
        """
        return read_data(self.data, channels=self.channels, missing=self.missing)

    def make_pair(self, data: Tensor, validation: Tensor | None = None) -> tuple[GenerativeModel, AmortizedGuide]:
        """A fresh model of training data (num, n), preprocessed, and its guide, initialised under the seed."""
        missing, linear = self.missing == "mask", self.start == "linear"
        if self.start == "auto":
            linear = self.latent_dim < data.shape[1]
            linear &= can_start_as_linear([self.posterior], [self.likelihood], missing)
        likelihood, n = likelihood_of_own_data(self.likelihood), data.shape[1]
        noise = {self.likelihood: likelihood} if linear else {}
        start = linear_models(data, noise, [self.latent_dim], validation, progress=False)
        return new_pair(
            n,
            self.latent_dim,
            self.hidden,
            POSTERIORS[self.posterior],
            likelihood,
            seed=self.seed,
            missing=missing,
            linear=start.get((self.likelihood, self.latent_dim)),
        )


def likelihood_of_own_data(name: str) -> LikelihoodFactory:
    """The likelihood of that name for standardised data: Gaussian noise starts small."""
    make = LIKELIHOODS[name]
    return make if "bernoulli" in name else partial(make, initial_scale=INITIAL_SCALE)


def preprocessing_of(name: str) -> Preprocessing | None:
    """The step of that name, not yet fitted."""
    return None if name == "none" else Standardize(name)


def fit_project(
    project: Project, out: str | Path, *, checkpoint_seconds: float = 30.0, progress: bool = True
) -> dict[str, Any]:
    """Train the model on 70 % of the data, keep the best epoch by 15 %, evaluate it on the rest, and write all of it.

    ``out`` gets ``config.json``, ``checkpoints/``, ``history.csv``, ``metrics.json``, ``model.safetensors`` and
    ``model.json``. The same call goes on where an earlier one was interrupted, see :func:`pyrovae.fit`.

    Args:
        project: what to make.
        out: a folder that is new, or of the same project.
        checkpoint_seconds: how long to train between two checkpoints.
        progress: whether to show progress bars (on a terminal).

    Returns:
        The metrics, in nats per datum of the original data.

    Raises:
        InputError: data or settings that cannot be used, or a folder of another project, or one in use.
    """
    spectra = project.read()
    train, validation, test = (part.x for part in split_spectra(spectra, group=project.group, seed=project.seed).parts)
    step = preprocessing_of(project.preprocessing)
    step = None if step is None else step.fit(train)
    parts = (train, validation) if step is None else (step.transform(train), step.transform(validation))
    model, guide = project.make_pair(*parts)
    trained = TrainedModel(model, guide, step)
    data, held_out = trained.prepare(train), trained.prepare(validation)  # before anything is written
    folder = Path(out)
    with locked_folder(folder):
        _claim(folder, project)
        history = fit(
            model,
            guide,
            data,
            ESTIMATORS[project.estimator](),
            epochs=project.epochs,
            batch_size=project.batch_size,
            learning_rate=project.learning_rate,
            seed=project.seed,
            validation=held_out,
            engine=project.engine,
            progress=progress,
            checkpoint=folder / "checkpoints",
            checkpoint_seconds=checkpoint_seconds,
        )
        found = summary_of(trained.scores(test, progress=progress))
        metrics = {
            "dataset": spectra.name,
            "num_train": len(train),
            "test_neg_elbo": -found["elbo"],
            "test_kl": found["kl"],
            "test_log_marginal": found["log_prob"],
            "test_log_marginal_stderr": found["log_prob_stderr"],
            "best_epoch": history.best_epoch,
            "steps": history.steps,
            "seconds": history.seconds,
            "engine": history.engine,
        }
        write_table(folder / "history.csv", history.to_frame())
        save(folder / "model.safetensors", model, guide, preprocessing=step)
        write_json(folder / "metrics.json", metrics)
    return metrics


def load_project(folder: str | Path) -> Project:
    """The project that a folder was begun with.

    Raises:
        InputError: it holds none, or a damaged one.
    """
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise InputError(f"{folder} holds no training to go on with (there is no {path}); give what pyrovae fit wrote")
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))["project"]
        settings["data"], settings["hidden"] = Path(settings["data"]), tuple(settings["hidden"])
        return Project(**settings)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"cannot read {path}: {' '.join(str(error).split())}") from None


def _claim(folder: Path, project: Project) -> None:
    """Write the project into its folder, where there is no other."""
    config = {**dataclasses.asdict(project), "data": str(project.data.resolve())}
    if (folder / "config.json").exists():
        begun = dataclasses.asdict(load_project(folder))
        for name, value in config.items():
            if name == "data" and Path(value) == begun[name].resolve():
                continue
            if begun[name] != value and not (isinstance(value, float) and math.isclose(begun[name], value, rel_tol=0)):
                raise InputError(
                    f"{folder} holds a training with {name} {begun[name]}, not {value}; give another folder to --out"
                )
        return
    write_json(folder / "config.json", {"project": config, "versions": versions()})
