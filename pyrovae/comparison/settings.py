"""The settings of a comparison and of a single model, each declared once."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, Required, cast

from pyro.infer import ELBO

from pyrovae.comparison.recommendation import THRESHOLD
from pyrovae.datasets import Preprocessing, Standardize
from pyrovae.elbo import ESTIMATORS
from pyrovae.errors import InputError, InputTypeError, Option, check_choice, check_integer, named_parts
from pyrovae.evaluation import RefinedELBO
from pyrovae.likelihoods import LIKELIHOODS, Likelihood
from pyrovae.nn import MLP
from pyrovae.posteriors import POSTERIORS, Posterior
from pyrovae.priors import PRIORS, Prior
from pyrovae.training import SharedTrainingKeywords, TrainingSettings, check_learning_rate

PosteriorFactory = Callable[[int, int], Posterior]
"""(in_features, latent_dim) -> a head for q(z|x)."""
LikelihoodFactory = Callable[[int, int], Likelihood]
"""(in_features, n) -> a head for p(x|z)."""
PriorFactory = Callable[[int], Prior]
"""latent_dim -> p(z)."""
Posteriors = Mapping[str, PosteriorFactory] | Sequence[str | PosteriorFactory]
Estimators = Mapping[str, ELBO] | Sequence[str | ELBO]
Likelihoods = Mapping[str, LikelihoodFactory] | Sequence[str | LikelihoodFactory]
Priors = Mapping[str, PriorFactory] | Sequence[str | PriorFactory]

STANDARD = "standard-normal"
"""Name of the prior N(0, I)."""
STARTS = ("random", "linear", "auto")
"""Where training can start."""
MISSING = ("error", "mask")
"""What a missing value may be."""
LOOKS = 8
"""At the validation data, where the model is judged at them."""
PREPROCESSING = ("mean", "channel", "all", "none")
"""What :class:`~pyrovae.datasets.Standardize` does, or nothing."""


@dataclass(frozen=True)
class Execution:
    """Where the runs of a comparison are made: in this process, in others of this machine, or on a cluster."""

    workers: int = 1
    """Processes on this machine that share the runs, each with one thread."""
    scheduler: str | None = None
    """Address of a Dask cluster that makes the runs instead, such as tcp://10.0.0.5:8786 (needs the extra cluster)."""

    def __post_init__(self) -> None:
        check_integer("workers", self.workers)
        if self.scheduler is not None and self.workers > 1:
            raise InputError("workers are processes on this machine, a scheduler has its own: give only one")


@dataclass(frozen=True, kw_only=True)
class NetworkSettings:
    """Settings shared by a comparison and a single model: networks, their start, and preprocessing."""

    hidden: tuple[int, ...] = (128, 128)
    """Widths of the encoder's hidden layers, and in reverse order of the decoder's."""
    start: str = "random"
    """Where training starts: at random weights (random), at the linear model with the same noise (linear), or there
    if every compared model can (auto)."""
    missing: str = "error"
    """What to do with missing values: error refuses them, mask treats them as unobserved."""
    preprocessing: Preprocessing | str | None = None
    """How to standardise: subtract each channel's mean and divide by one deviation (mean) or by each channel's own
    (channel), use one mean and one deviation for all (all), or leave the values (none)."""
    refit_epochs: int = 0
    """Passes in which the encoder alone is trained again, first over 20000 draws from the trained model, then over
    jittered training data. The outcome is kept if validation data prefer it. 0: no pass; 30 are many."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", _as_tuple("hidden", self.hidden, "hidden width"))
        MLP(1, *self.hidden)  # checks the widths
        check_choice("start", self.start, STARTS)
        check_choice("missing", self.missing, MISSING)
        check_integer("refit_epochs", self.refit_epochs, least=0)
        if isinstance(self.preprocessing, str):
            check_choice("preprocessing", self.preprocessing, PREPROCESSING)
        elif not isinstance(self.preprocessing, Preprocessing | None):
            raise InputTypeError(f"preprocessing must be a Preprocessing, a name or None, not {self.preprocessing!r}")

    @property
    def preprocessing_step(self) -> Preprocessing | None:
        """The step, not yet fitted."""
        if isinstance(self.preprocessing, str):
            return None if self.preprocessing == "none" else Standardize(self.preprocessing)
        return self.preprocessing


@dataclass(frozen=True, kw_only=True)
class ModelSettings(NetworkSettings):
    """One model, by the names of its parts."""

    posterior: str = "diagonal"
    """Family of q(z|x): isotropic, diagonal, ar1, ar1-per-dimension, ar1-per-step, low-rank, full-covariance or
    flow."""
    likelihood: str = "gaussian"
    """Noise p(x|z): gaussian, gaussian-per-dimension, gaussian-per-datum, ar1, ar1-per-dimension, ar1-per-datum,
    low-rank, low-rank-per-datum, full-covariance, full-covariance-per-datum, bernoulli, bernoulli-soft-targets or
    continuous-bernoulli; of counts poisson or negative-binomial, without preprocessing."""
    estimator: str = "analytic"
    """Estimators of the ELBO: monte-carlo, analytic, closed-form-entropy, sticking-the-landing, importance-weighted or
    doubly-reparameterized."""
    latent_dim: int | Literal["auto"] = 2
    """Dimension of z, or auto for the one that linear models of the validation data prefer."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("posterior", self.posterior, POSTERIORS)
        check_choice("likelihood", self.likelihood, LIKELIHOODS)
        _check_counts({self.likelihood: LIKELIHOODS[self.likelihood]}, self.preprocessing_step)
        check_choice("estimator", self.estimator, ESTIMATORS)
        if self.latent_dim != "auto":
            check_integer("latent_dim", self.latent_dim)


@dataclass(frozen=True, kw_only=True)
class ComparisonSettings(NetworkSettings):
    """What is compared, and how; with the fields of ``training`` the keywords of :func:`~pyrovae.compare`."""

    posteriors: Posteriors
    """Families of q(z|x), the simplest first: isotropic, diagonal, ar1, ar1-per-dimension, ar1-per-step, low-rank,
    full-covariance, flow."""
    estimators: Estimators
    """Estimators of the ELBO: monte-carlo, analytic, closed-form-entropy, sticking-the-landing, importance-weighted,
    doubly-reparameterized."""
    likelihoods: Likelihoods | None = None
    """Noise p(x|z), the simplest first: gaussian, gaussian-per-dimension, gaussian-per-datum, ar1, ar1-per-dimension,
    ar1-per-datum, low-rank, low-rank-per-datum, full-covariance, full-covariance-per-datum, bernoulli,
    bernoulli-soft-targets, continuous-bernoulli; of counts poisson, negative-binomial, without preprocessing."""
    priors: Priors = (STANDARD,)
    """Priors p(z), the simplest first: standard-normal, ar1, mixture."""
    latent_dims: tuple[int, ...] | Literal["auto"] = (2,)
    """Dimensions of z, one or several, or auto for the one that linear models of the validation data prefer."""
    seeds: tuple[int, ...] = (0,)
    """Each model is trained once for each seed."""
    training: TrainingSettings
    """How each run is trained; its seed is the run's."""
    epochs_by_estimator: Mapping[str, int] | None = None
    """Passes over the training data by the estimator's name, if they differ."""
    learning_rates: tuple[float, ...] = ()
    """Learning rates to try for each model at the first seed. Validation data choose one; none: the training's rate."""
    num_train: int | None = None
    """Size of a synthetic training set, instead of its usual size."""
    num_test: int | None = None
    """Size of a synthetic test set, instead of its usual size."""
    log_marginal_samples: int = 100
    """Draws of z per datum for the test log p(x)."""
    gap_data: int = 0
    """Test data whose log p(x) − ELBO is split into what the family and what the encoder costs, at the first seed."""
    threshold: float = THRESHOLD
    """Gains below this many nats per datum count as no difference."""
    together: bool = True
    """Train runs with consecutive seeds in one program."""

    def __post_init__(self) -> None:
        super().__post_init__()
        estimators = named_parts("estimators", self.estimators, {name: make() for name, make in ESTIMATORS.items()})
        for estimator in estimators.values():
            if not isinstance(estimator, ELBO):
                raise InputTypeError(f"an estimator must be an instance such as AnalyticELBO(), not {estimator!r}")
        object.__setattr__(self, "estimators", estimators)
        object.__setattr__(self, "posteriors", named_parts("posteriors", self.posteriors, POSTERIORS))
        object.__setattr__(self, "priors", named_parts("priors", self.priors, PRIORS))
        if self.likelihoods is not None:
            object.__setattr__(self, "likelihoods", named_parts("likelihoods", self.likelihoods, LIKELIHOODS))
            _check_counts(self.named_likelihoods, self.preprocessing_step)
        for name, kind, check in (
            ("seeds", "seed", partial(check_integer, "a seed", least=0)),
            ("latent_dims", "latent dimension", partial(check_integer, "latent_dim")),
            ("learning_rates", "", check_learning_rate),
        ):
            values = getattr(self, name)
            if name == "latent_dims" and isinstance(values, str) and values == "auto":
                continue
            values = _as_tuple(name, values, kind)
            object.__setattr__(self, name, values)
            if len(set(values)) < len(values):
                raise InputError(f"duplicate {name.replace('_', ' ')}: {values}")
            for value in values:
                check(value)
        if len(self.learning_rates) == 1:
            object.__setattr__(self, "training", replace(self.training, learning_rate=self.learning_rates[0]))
            object.__setattr__(self, "learning_rates", ())
        if self.epochs_by_estimator is not None:
            if not isinstance(self.epochs_by_estimator, Mapping):
                raise InputTypeError(f"epochs_by_estimator must be a mapping, not {self.epochs_by_estimator!r}")
            if set(self.epochs_by_estimator) != set(estimators):
                given = ", ".join(self.epochs_by_estimator)
                raise InputError(f"epochs must name the estimators {', '.join(estimators)}, not {given}")
            object.__setattr__(self, "epochs_by_estimator", dict(self.epochs_by_estimator))
            for epochs in self.epochs_by_estimator.values():
                check_integer("epochs", epochs)
        for name in ("num_train", "num_test"):
            if getattr(self, name) is not None:
                check_integer(name, getattr(self, name), least=2)
        check_integer("log_marginal_samples", self.log_marginal_samples)
        check_integer("gap_data", self.gap_data, least=0)
        if not isinstance(self.training, TrainingSettings):
            raise InputTypeError(f"training must be TrainingSettings, not {self.training!r}")
        if not isinstance(self.threshold, int | float) or not self.threshold >= 0:
            raise InputError(f"threshold must be a number ≥ 0, not {self.threshold!r}")

    @property
    def dims(self) -> tuple[int, ...]:
        """The latent dimensions, once validation data have chosen where they were asked to."""
        assert self.latent_dims != "auto"
        return self.latent_dims

    @property
    def named_posteriors(self) -> Mapping[str, PosteriorFactory]:
        """The families by name."""
        return cast(Mapping[str, PosteriorFactory], self.posteriors)

    @property
    def named_estimators(self) -> Mapping[str, ELBO]:
        """The estimators by name."""
        return cast(Mapping[str, ELBO], self.estimators)

    @property
    def named_likelihoods(self) -> Mapping[str, LikelihoodFactory]:
        """The likelihoods by name; none of a given model."""
        assert self.likelihoods is None or isinstance(self.likelihoods, Mapping)
        return self.likelihoods or {}

    @property
    def named_priors(self) -> Mapping[str, PriorFactory]:
        """The priors by name."""
        return cast(Mapping[str, PriorFactory], self.priors)

    def training_of(self, estimator: str, seed: int, learning_rate: float | None) -> TrainingSettings:
        """How a run of this estimator and seed is trained, at this rate or at the training's."""
        epochs = (self.epochs_by_estimator or {}).get(estimator, self.training.epochs)
        rate = self.training.learning_rate if learning_rate is None else learning_rate
        return replace(self.training, epochs=epochs, learning_rate=rate, seed=seed)


def judged_by_model(training: TrainingSettings) -> TrainingSettings:
    """The training with epochs that validation data choose for the model, whatever its encoder is worth.

    They are looked at a few times only, for that takes as long as some epochs do.
    """
    if training.measure is not None:
        return training
    every = max(training.validate_every, -(-training.epochs // LOOKS))
    return replace(training, measure=RefinedELBO(), validate_every=every)


def kind_of(make: LikelihoodFactory) -> type[Likelihood] | None:
    """The class of a factory that is one, or a ``partial`` of one; None of another callable."""
    while isinstance(make, partial):
        make = make.func
    return make if isinstance(make, type) else None


def _check_counts(likelihoods: Mapping[str, LikelihoodFactory], step: Preprocessing | None) -> None:
    """Raise an InputError that names a likelihood of counts where data are standardised."""
    kinds = {name: kind_of(make) for name, make in likelihoods.items()}
    counts = [name for name, kind in kinds.items() if kind is not None and kind.is_count]
    if counts and isinstance(step, Standardize):
        raise InputError(
            f"the likelihood {counts[0]} is of counts, which must not be standardised; give ",
            Option("preprocessing", "none"),
        )


def _as_tuple(name: str, values: object, kind: str) -> tuple[Any, ...]:
    """The values as a tuple, with at least one of a kind that is named."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise InputTypeError(f"{name} must be a sequence such as ({values},), not {values!r}")
    if kind and not (values := tuple(values)):
        raise InputError(f"give at least one {kind}")
    return tuple(values)


class ComparisonKeywords(SharedTrainingKeywords, total=False):
    """The fields of :class:`ComparisonSettings` and of its training, as a type checker sees them as keywords."""

    posteriors: Required[Posteriors]
    estimators: Required[Estimators]
    likelihoods: Likelihoods | None
    priors: Priors
    latent_dims: Sequence[int] | Literal["auto"]
    seeds: Sequence[int]
    epochs_by_estimator: Mapping[str, int] | None
    learning_rates: Sequence[float]
    num_train: int | None
    num_test: int | None
    log_marginal_samples: int
    gap_data: int
    threshold: float
    together: bool
    hidden: Sequence[int]
    start: str
    missing: str
    preprocessing: Preprocessing | str | None
    refit_epochs: int
    epochs: int | None


OF_EACH_RUN = ("training", "seed", "device")
"""Fields that are not keywords of a comparison: the seed is each run's, and runs are trained on the CPU."""
