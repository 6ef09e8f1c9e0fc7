"""The plan of a comparison: its cells, their common settings, and the initial programs of each."""

import copy
import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import cast

from torch import Tensor

from pyrovae.comparison._data import PreparedData
from pyrovae.comparison._pairs import new_pair, seen_by
from pyrovae.comparison.settings import STANDARD, ComparisonSettings, judged_by_model
from pyrovae.descriptions import describe
from pyrovae.linear_gaussian.factor_model import FactorModel
from pyrovae.nn import MLP
from pyrovae.programs import Program
from pyrovae.randomness import seeded
from pyrovae.training import TrainingSettings
from pyrovae.training.settings import describe as describe_value
from pyrovae.training.settings import describe_settings, sha256
from pyrovae.vae import AmortizedGuide, GenerativeModel

GIVEN = "given"
"""Name of the likelihood of a given model, which is not trained."""


@dataclass(frozen=True)
class ModelKey:
    """The model of a run, by the names of its parts."""

    posterior: str
    estimator: str
    likelihood: str
    latent_dim: int
    prior: str = field(default=STANDARD, kw_only=True)


@dataclass(frozen=True)
class Cell(ModelKey):
    """One run of a comparison; ``learning_rate`` is None for that of the training settings."""

    seed: int
    learning_rate: float | None = None

    @property
    def model(self) -> ModelKey:
        """Its model."""
        return ModelKey(self.posterior, self.estimator, self.likelihood, self.latent_dim, prior=self.prior)

    @property
    def folder(self) -> str:
        """Name of the run's folder."""
        names = (self.posterior, self.estimator, self.likelihood, *([] if self.prior == STANDARD else [self.prior]))
        parts = "-".join(re.sub(r"[^\w.+]+", "-", name).strip("-") for name in names)
        rate = "" if self.learning_rate is None else f"-rate{self.learning_rate:g}"
        return f"{parts}-d{self.latent_dim}{rate}-seed{self.seed}"


@dataclass(frozen=True)
class Plan:
    """Everything that the runs of a comparison share.

    Attributes:
        settings: what is compared, and how.
        data: training, validation and test data.
        model: the model of which guides alone are trained; None to train a model with each.
        linear_only: likelihoods with which no VAE is trained.
        linear: the linear model to start as, by likelihood and latent dimension; None to start from random weights.
        out: folder for the runs; None writes nothing.
        pictures: whether each run's folder gets pictures.
    """

    settings: ComparisonSettings
    data: PreparedData
    model: Program | None = None
    linear_only: tuple[str, ...] = ()
    linear: dict[tuple[str, int], FactorModel] | None = None
    out: Path | None = None
    pictures: bool = True

    @property
    def cells(self) -> list[Cell]:
        """Every run, at the training's learning rate."""
        s = self.settings
        likelihoods = [name for name in s.named_likelihoods or (GIVEN,) if name not in self.linear_only]
        parts = (s.named_posteriors, s.named_estimators, likelihoods, s.dims, s.seeds)
        return [Cell(*names, prior=prior) for prior in s.named_priors for names in itertools.product(*parts)]

    @property
    def is_of_densities(self) -> bool:
        """Whether all models give densities of real numbers, as far as a model says."""
        n, settings = self.data.train.shape[-1], self.settings
        made = [make(1, n) for make in settings.named_likelihoods.values()] if self.model is None else []
        given = [self.model.likelihood] if isinstance(self.model, GenerativeModel) else []
        return all(head.is_continuous for head in (made or given))

    def training_of(self, cell: Cell) -> TrainingSettings:
        """How a run is trained; guides of a given model are compared by their ELBO."""
        training = self.settings.training_of(cell.estimator, cell.seed, cell.learning_rate)
        judges = self.data.validation is not None and self.model is None
        return judged_by_model(training) if judges else training

    def columns(self, cell: Cell) -> dict[str, object]:
        """A run's model and settings, as columns of the table."""
        training = self.training_of(cell)
        return {
            "dataset": self.data.name,
            **asdict(cell),
            "batch_size": training.batch_size,
            "schedule": _shown(training.schedule),
            "hidden": self.settings.hidden,
            "learning_rate": _shown(training.learning_rate),
            "start": "random" if self.linear is None else "linear",
            "epochs": training.epochs,
            **({"gap_data": self.settings.gap_data} if self.settings.gap_data else {}),
            **({"refit_epochs": self.settings.refit_epochs} if self.settings.refit_epochs else {}),
            "num_train": len(self.data.train),
            "num_test": len(self.data.test),
        }


def _shown(value: object) -> object:
    """A setting in a table: a function by its name."""
    return getattr(value, "__qualname__", type(value).__name__) if callable(value) else value


def make_pair(plan: Plan, cell: Cell) -> tuple[GenerativeModel, AmortizedGuide]:
    """A new model and guide, initialised with the run's seed."""
    settings, n, d = plan.settings, plan.data.train.shape[-1], cell.latent_dim
    posterior = settings.named_posteriors[cell.posterior]
    if plan.model is not None:
        with seeded(cell.seed):
            encoder = MLP(n, *settings.hidden)
            model = cast(GenerativeModel, copy.deepcopy(plan.model))  # or a program, which is only called
            network = seen_by(encoder, model)
            return model, AmortizedGuide(network, posterior(encoder.out_features, d))
    likelihood = settings.named_likelihoods[cell.likelihood]
    linear = None if plan.linear is None else plan.linear[cell.likelihood, d]
    prior = None if cell.prior == STANDARD else settings.named_priors[cell.prior]
    return new_pair(n, d, posterior, likelihood, settings, prior=prior, seed=cell.seed, linear=linear)


def num_parameters(plan: Plan, cell: Cell) -> int:
    """Number of parameters of a run's p(x), in its decoder and its noise; 0 for a given model."""
    if plan.model is not None:
        return 0
    return sum(parameter.numel() for parameter in make_pair(plan, cell)[0].parameters())


def configuration(plan: Plan, cell: Cell, model: GenerativeModel, guide: AmortizedGuide) -> dict[str, object]:
    """Everything that a run depends on, as plain values."""
    frozen = list(plan.model.state_dict().values()) if isinstance(plan.model, GenerativeModel) else []
    return {
        **plan.columns(cell),
        "training": describe_settings(plan.training_of(cell)),
        "model": describe(model, "model"),
        "guide": describe(guide, "guide"),
        "estimator_settings": describe_value(plan.settings.named_estimators[cell.estimator]),
        "log_marginal_samples": plan.settings.log_marginal_samples,
        "data_sha256": [
            sha256(x) for x in (plan.data.train, plan.data.test, plan.data.validation, *frozen) if isinstance(x, Tensor)
        ],
    }


def models_of(cells: Iterable[Cell]) -> dict[ModelKey, list[Cell]]:
    """The runs of each model over the seeds, in the order of its parts as given: the likelihood first."""
    cells = list(cells)
    parts = ("likelihood", "prior", "posterior", "estimator", "latent_dim")
    given = {part: list(dict.fromkeys(getattr(cell, part) for cell in cells)) for part in parts}
    ordered = sorted(cells, key=lambda cell: [given[part].index(getattr(cell, part)) for part in parts])
    models: dict[ModelKey, list[Cell]] = {}
    for cell in ordered:
        models.setdefault(cell.model, []).append(cell)
    return models


def names_of(models: Iterable[ModelKey]) -> dict[ModelKey, str]:
    """A readable name for each model, without the parts that all share."""
    models = list(models)
    several_estimators = len({model.estimator for model in models}) > 1
    several_dims = len({model.latent_dim for model in models}) > 1
    several_priors = len({model.prior for model in models}) > 1
    names = {}
    for model in models:
        parts = [f"{model.posterior} posterior"]
        parts += [f"{model.likelihood} likelihood"] if model.likelihood != GIVEN else []
        parts += [model.estimator] if several_estimators else []
        parts += [f"d = {model.latent_dim}"] if several_dims else []
        parts += [f"{model.prior} prior"] if several_priors else []
        names[model] = ", ".join(parts)
    return names


def groups(plan: Plan, cells: Sequence[Cell], workers: int) -> list[list[Cell]]:
    """Runs to train in one program: runs that differ only in consecutive seeds.

    There are at least as many groups as workers, where there are as many runs.
    """
    if not plan.settings.together:
        return [[cell] for cell in cells]
    if not cells:
        return []
    alike: dict[Cell, list[Cell]] = {}
    for cell in cells:
        alike.setdefault(replace(cell, seed=0), []).append(cell)
    pieces = -(-workers // len(alike))
    found = []
    for members in alike.values():
        size = -(-len(members) // pieces)
        group: list[Cell] = []
        for cell in sorted(members, key=lambda cell: cell.seed):
            if group and (cell.seed != group[-1].seed + 1 or len(group) == size):
                found.append(group)
                group = []
            group.append(cell)
        found.append(group)
    return found
