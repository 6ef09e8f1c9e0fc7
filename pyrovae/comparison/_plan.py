"""What a comparison is to run: its cells, what they share, and the programs that each starts from."""

import copy
import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from pyro.infer import ELBO
from torch import Tensor

from pyrovae.comparison._data import Data
from pyrovae.comparison._pairs import LikelihoodFactory, PosteriorFactory, new_pair
from pyrovae.io import describe
from pyrovae.linear_gaussian.factor_model import FactorModel
from pyrovae.nn import MLP
from pyrovae.vae import AmortizedGuide, GenerativeModel

_ESTIMATOR_SETTINGS = ("beta", "num_particles", "vectorize_particles")


@dataclass(frozen=True)
class Cell:
    """One run of a comparison, by the names of its parts."""

    posterior: str
    estimator: str
    likelihood: str
    latent_dim: int
    seed: int
    learning_rate: float | None = None
    """Where it is not the plan's."""

    @property
    def folder(self) -> str:
        """Name of the run's folder."""
        names = (self.posterior, self.estimator, self.likelihood)
        plain = "-".join(re.sub(r"[^\w.+]+", "-", name).strip("-") for name in names)
        rate = "" if self.learning_rate is None else f"-rate{self.learning_rate:g}"
        return f"{plain}-d{self.latent_dim}{rate}-seed{self.seed}"


@dataclass(frozen=True)
class Plan:
    """Everything that the runs of a comparison share."""

    data: Data
    posteriors: Mapping[str, PosteriorFactory]
    estimators: Mapping[str, ELBO]
    likelihoods: Mapping[str, LikelihoodFactory]
    epochs: Mapping[str, int]
    batch_size: int
    learning_rate: float
    schedule: str
    hidden: tuple[int, ...]
    log_marginal_samples: int
    engine: str
    out: Path | None
    pictures: bool = True
    linear: Mapping[tuple[str, int], FactorModel] | None = None
    """By likelihood and latent dimension, the linear model to start as; None to start from random weights."""
    model: GenerativeModel | None = None
    """Of which guides alone are trained; None to train a model with each."""
    missing: bool = False
    """Whether NaN is a value that was not observed."""
    gap_data: int = 0
    """Test data whose log p(x) − ELBO is split in the runs of ``gap_seed``."""
    gap_seed: int = 0

    def rate(self, cell: Cell) -> float:
        """The learning rate of a run."""
        return self.learning_rate if cell.learning_rate is None else cell.learning_rate

    def settings(self, cell: Cell) -> dict[str, Any]:
        """What a run depends on, as plain values."""
        shared = {k: getattr(self, k) for k in ("batch_size", "schedule", "hidden")}
        shared["learning_rate"] = self.rate(cell)
        shared["start"] = "random" if self.linear is None else "linear"
        shared["epochs"] = self.epochs[cell.estimator]
        if self.gap_data:
            shared["gap_data"] = self.gap_data
        sizes = {"num_train": len(self.data.train), "num_test": len(self.data.test)}
        return {"dataset": self.data.name, **asdict(cell), **shared, **sizes}


def make_pair(plan: Plan, cell: Cell) -> tuple[GenerativeModel, AmortizedGuide]:
    """A fresh model and guide, initialised under the run's seed."""
    n, d, posterior = plan.data.train.shape[-1], cell.latent_dim, plan.posteriors[cell.posterior]
    if plan.model is not None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(cell.seed)
            encoder = MLP(n, *plan.hidden)
            return copy.deepcopy(plan.model), AmortizedGuide(encoder, posterior(encoder.out_features, d))
    return new_pair(
        n,
        d,
        plan.hidden,
        posterior,
        plan.likelihoods[cell.likelihood],
        seed=cell.seed,
        missing=plan.missing,
        linear=None if plan.linear is None else plan.linear[cell.likelihood, d],
    )


def description(plan: Plan, cell: Cell, model: GenerativeModel, guide: AmortizedGuide) -> dict[str, Any]:
    """What a run depends on and is made of, as plain values."""
    own = vars(plan.estimators[cell.estimator])
    return {
        **plan.settings(cell),
        "model": describe(model, "model"),
        "guide": describe(guide, "guide"),
        "estimator_settings": {k: v for k, v in own.items() if k in _ESTIMATOR_SETTINGS},
        "log_marginal_samples": plan.log_marginal_samples,
        "data_sha256": [
            hashlib.sha256(x.numpy().tobytes()).hexdigest()
            for x in (plan.data.train, plan.data.test, plan.data.validation, *_frozen_values(plan))
            if x is not None
        ],
    }


def _frozen_values(plan: Plan) -> list[Tensor]:
    return [] if plan.model is None else list(plan.model.state_dict().values())
