"""Models as scikit-learn's transformers: x to the posterior's means, scored by log p(x)."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from pyrovae.blocks import has_gaps
from pyrovae.comparison.fit_file import new_model
from pyrovae.comparison.settings import ModelSettings, NetworkSettings, judged_by_model
from pyrovae.comparison.study import HOW_BY_DEFAULT, TRAINED_BY_DEFAULT
from pyrovae.datasets import Preprocessing, find_copies, split_by_group
from pyrovae.elbo import ESTIMATORS
from pyrovae.errors import InputError, check_choice
from pyrovae.evaluation import Imputed, refit_encoder
from pyrovae.fitted import VAE, Linear
from pyrovae.keywords import accepts
from pyrovae.likelihoods import LIKELIHOODS, GaussianNoiseLikelihood
from pyrovae.linear_gaussian import FactorModel
from pyrovae.linear_gaussian.dimension import latent_dim_by_validation
from pyrovae.trained_model import TrainedModel
from pyrovae.training import TrainingSettings, fit

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.utils import Tags

Array = NDArray[np.float64]
T = TypeVar("T")
Settings = TypeVar("Settings", ModelSettings, TrainingSettings)

_DEFAULTS = {**vars(TRAINED_BY_DEFAULT), **vars(HOW_BY_DEFAULT)}
del _DEFAULTS["transform"]  # the name of a method here


class _Transformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """The common part of the transformers."""

    trained_: TrainedModel
    _n_features_out: int

    def fit(self, X: ArrayLike, y: object = None) -> Self:
        """Fit the model to data X (num, n); y is ignored."""
        x = torch.from_numpy(self._checked(X, reset=True, ensure_min_samples=2, ensure_min_features=2))
        with torch.random.fork_rng(devices=[]):
            self.trained_ = self._train(x)
        return self

    def _train(self, x: Tensor) -> TrainedModel:
        raise NotImplementedError

    @property
    def _takes_missing(self) -> bool:
        raise NotImplementedError

    def _checked(self, X: object, **how: object) -> Array:
        """Data (num, n) in float64, of the channels that the model was fitted to."""
        finite = "allow-nan" if self._takes_missing else True
        if finite is True and (values := np.asarray(X)).dtype.kind == "f" and np.isnan(values).any():
            raise InputError(f'X holds NaN; {type(self).__name__}(missing="mask") takes it for a missing value')
        x: Array = validate_data(self, X, dtype=np.float64, ensure_all_finite=finite, **how)
        return x if x.flags.writeable else x.copy()

    def _fitted(self, X: object) -> Tensor:
        check_is_fitted(self)
        return torch.from_numpy(self._checked(X, reset=False))

    def __sklearn_tags__(self) -> Tags:
        tags: Tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self._takes_missing
        return tags

    def transform(self, X: ArrayLike) -> Array:
        """The means of q(z|x), shape (num, latent_dim)."""
        table = self.trained_.latents(self._fitted(X))
        return table.iloc[:, 1 : 1 + self._n_features_out].to_numpy(dtype=np.float64)

    def inverse_transform(self, X: T) -> T:
        """E[x|z] in the data's units, shape (num, n), for latents X (num, latent_dim); a DataFrame gives a DataFrame.

        Raises:
            InputError: latents have the wrong width.
        """
        check_is_fitted(self)
        z = np.asarray(X, dtype=np.float64)
        if z.ndim != 2 or z.shape[1] != self._n_features_out:
            raise InputError(f"latents must have shape (num, {self._n_features_out}), not {z.shape}")
        found: T = self._like(X, self.trained_.decode(torch.tensor(z)))
        return found

    def impute(self, X: T, *, level: float = 0.9) -> tuple[T, tuple[T, T]]:
        """Fill in missing values, NaN in X, from the observed values of the same datum, with intervals.

        Args:
            X: data (num, n), an array or a DataFrame.
            level: probability of an interval.

        Returns:
            X with its missing values filled in, and the lower and upper ends of the intervals, equal to X where it was
            observed. All have X's type; a DataFrame keeps its index and columns.
        """
        return self._with_ends(X, self.trained_.impute(self._fitted(X), level=level))

    def _with_ends(self, X: T, found: Imputed[Tensor]) -> tuple[T, tuple[T, T]]:
        mean, lower, upper = (self._like(X, values) for values in (found.mean, found.lower, found.upper))
        return mean, (lower, upper)

    def score_samples(self, X: ArrayLike, *, return_std: bool = False) -> Array | tuple[Array, Array]:
        """Log p(x) of each datum in nats, in the data's units, shape (num,).

        Args:
            X: data (num, n).
            return_std: whether to return the Monte Carlo standard errors too; they are 0 if log p(x) is exact.
        """
        scores = self._scores(self._fitted(X))
        log_prob, stderr = (scores[name].to_numpy(dtype=np.float64) for name in ("log_prob", "log_prob_stderr"))
        return (log_prob, stderr) if return_std else log_prob

    def _scores(self, x: Tensor) -> pd.DataFrame:
        return self.trained_.scores(x)

    def score(self, X: ArrayLike, y: object = None) -> float:
        """The mean of log p(x) over data X (num, n), in nats per datum; y is ignored."""
        return float(np.mean(self.score_samples(X)))

    def sample(
        self, n_samples: int = 1, random_state: int | np.random.RandomState | None = None
    ) -> Array | pd.DataFrame:
        """Draws of p(x) in the data's units, shape (n_samples, n); a DataFrame if the model was fitted to one."""
        check_is_fitted(self)
        seed = int(check_random_state(random_state).randint(2**31 - 1))
        drawn = self.trained_.samples(n_samples, seed=seed).drop(columns="row")
        names = getattr(self, "feature_names_in_", None)
        return drawn.to_numpy(dtype=np.float64) if names is None else drawn.set_axis(names, axis=1)

    def _like(self, given: object, values: Tensor) -> Any:
        """Values (num, n) with the index of a DataFrame and the data's columns; an array for anything else."""
        found: Array = values.double().numpy()
        import pandas as pd

        if not isinstance(given, pd.DataFrame):
            return found
        return pd.DataFrame(found, index=given.index, columns=getattr(self, "feature_names_in_", None))


class FactorModelTransformer(_Transformer):
    """A linear-Gaussian model as a transformer: exact posterior means, exact log p(x). NaN is a missing value.

    See :class:`~pyrovae.FactorModel`. ``GridSearchCV`` and ``cross_val_score`` compare models by ``score``, the mean
    of log p(x).

    Args:
        latent_dim: dimension of z, or auto to choose it on held-out data.
        likelihood: name of the noise: gaussian, gaussian-per-dimension, ar1, ar1-per-dimension, low-rank,
            full-covariance.
        preprocessing: see :class:`~pyrovae.comparison.settings.ModelSettings`. Log p(x) is that of the data before it.
        validation_fraction: share of the data that is held out to choose the dimension and the shrinkage of a full
            covariance. If neither is chosen, no data are held out.
        max_steps: most steps of the fit.
        seed: seed of the choice of validation data.

    Attributes:
        model_: the :class:`~pyrovae.FactorModel`.
        preprocessing_: the fitted step; None if there is none.
        n_features_in_: number of channels.
        feature_names_in_: their names, of a DataFrame.

    Example:
        >>> x = torch.randn(200, 2) @ torch.randn(2, 6) + 0.1 * torch.randn(200, 6)
        >>> model = FactorModelTransformer(latent_dim=2).fit(x.numpy())
        >>> model.transform(x.numpy()).shape
        (200, 2)
    """

    def __init__(
        self,
        latent_dim: int | str = "auto",
        likelihood: str = "gaussian",
        preprocessing: Preprocessing | str | None = "mean",
        *,
        validation_fraction: float = 0.15,
        max_steps: int = 2000,
        seed: int = 0,
    ) -> None:
        self.latent_dim, self.likelihood, self.preprocessing = latent_dim, likelihood, preprocessing
        self.validation_fraction, self.max_steps, self.seed = validation_fraction, max_steps, seed

    @property
    def _takes_missing(self) -> bool:
        return True

    def _train(self, x: Tensor) -> TrainedModel:
        check_choice("likelihood", self.likelihood, LIKELIHOODS)
        likelihood = LIKELIHOODS[self.likelihood](1, x.shape[1])
        if not isinstance(likelihood, GaussianNoiseLikelihood):
            raise InputError(f"a factor model needs a Gaussian likelihood, not {self.likelihood!r}")
        step = copy.deepcopy(NetworkSettings(preprocessing=self.preprocessing).preprocessing_step)
        y, validation, d = x if step is None else step.fit(x).transform(x), None, self.latent_dim
        if d == "auto" or likelihood.is_unrestricted:
            y, validation = _split(y, self.validation_fraction, self.seed)
            d = latent_dim_by_validation(y, validation, [likelihood], progress=False) if d == "auto" else d
        self.model_ = FactorModel.fit(y, likelihood, d, validation, self.max_steps)  # type: ignore[arg-type]
        self.preprocessing_, self._n_features_out = step, self.model_.latent_dim
        self._trained_on = len(y), np.packbits(y.isnan().numpy(), axis=1) if has_gaps(y) else None
        return TrainedModel(Linear(self.model_), step)

    def impute(self, X: T, *, level: float = 0.9, refits: int = 0) -> tuple[T, tuple[T, T]]:
        """Fill in missing values, NaN in X, from the observed values of the same datum, with intervals.

        Args:
            X: data (num, n), an array or a DataFrame.
            level: probability of an interval.
            refits: number of refits, such as 20, by which the intervals allow for the estimation of the model
                (:meth:`~pyrovae.FactorModel.intervals`); 0 takes the fitted model as known.

        Returns:
            X with its missing values filled in, and the lower and upper ends of the intervals, equal to X where it was
            observed. All have X's type; a DataFrame keeps its index and columns.
        """
        check_is_fitted(self)
        num, gaps = self._trained_on
        trained = torch.zeros(num, self.model_.n) if refits else None
        if trained is not None and gaps is not None:
            trained[torch.from_numpy(np.unpackbits(gaps, axis=1, count=self.model_.n)).bool()] = torch.nan
        found = self.trained_.impute(self._fitted(X), level=level, refits=refits, trained=trained, seed=self.seed)
        return self._with_ends(X, found)


class VAETransformer(_Transformer):
    """A variational autoencoder as a transformer: means of q(z|x), log p(x) with its Monte Carlo error.

    It is trained like ``pyrovae fit``: held-out data choose the best epoch. Its settings are the fields of
    :class:`~pyrovae.comparison.settings.ModelSettings` and :class:`~pyrovae.TrainingSettings`, such as ``posterior``,
    ``likelihood``, ``latent_dim``, ``hidden``, ``epochs`` and ``seed``; parts are given by name, as on the console.
    With ``missing="mask"``, NaN is a missing value.

    Args:
        validation_fraction: share of the data that chooses the best epoch; copies stay together.
        num_samples: draws of z per datum for log p(x).
        **settings: fields of ``ModelSettings`` and ``TrainingSettings``.

    Attributes:
        model_: the :class:`~pyrovae.GenerativeModel`.
        guide_: its :class:`~pyrovae.AmortizedGuide`.
        history_: the :class:`~pyrovae.History` of the training.
        preprocessing_: the fitted step; None if there is none.
        n_features_in_: number of channels.
        feature_names_in_: their names, of a DataFrame.

    Example:
        >>> x = torch.randn(100, 2) @ torch.randn(2, 6) + 0.1 * torch.randn(100, 6)
        >>> vae = VAETransformer(posterior="full-covariance", hidden=(8,), epochs=2).fit(x.numpy())
        >>> vae.transform(x.numpy()).shape
        (100, 2)
    """

    @accepts(TRAINED_BY_DEFAULT, HOW_BY_DEFAULT, omit=("transform",))
    def __init__(self, *, validation_fraction: float = 0.15, num_samples: int = 300, **settings: object) -> None:
        self.validation_fraction, self.num_samples = validation_fraction, num_samples
        self.__dict__.update(_DEFAULTS | settings)

    @property
    def _takes_missing(self) -> bool:
        return bool(self.missing == "mask")

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.non_deterministic = True  # log p(x) is drawn, and a datum's draws depend on the data beside it
        return tags

    def _train(self, x: Tensor) -> TrainedModel:
        settings, how = self._chosen(TRAINED_BY_DEFAULT), judged_by_model(self._chosen(HOW_BY_DEFAULT))
        train, validation = _split(x, self.validation_fraction, how.seed)
        self.model_, self.guide_, self.preprocessing_ = new_model(settings, train, validation, seed=how.seed)
        self._n_features_out = self.model_.latent_dim
        trained = TrainedModel(VAE(self.model_, self.guide_), self.preprocessing_)
        self.history_ = fit(
            self.model_,
            self.guide_,
            trained.prepare(train),
            ESTIMATORS[settings.estimator](),
            validation=trained.prepare(validation),
            refit_encoder=partial(refit_encoder, epochs=settings.refit_epochs) if settings.refit_epochs else None,
            progress=False,
            **vars(how),
        )
        return trained

    def _chosen(self, defaults: Settings) -> Settings:
        """Settings of the defaults' class, as the transformer has them."""
        return replace(defaults, **{name: getattr(self, name) for name in vars(defaults) if name in _DEFAULTS})

    def _scores(self, x: Tensor) -> pd.DataFrame:
        return self.trained_.scores(x, num_samples=self.num_samples)


def _split(x: Tensor, share: float, seed: int) -> list[Tensor]:
    """Data (num, n) to train on, and a share of them to validate on; copies stay in one part."""
    return [x[rows] for rows in split_by_group(find_copies(x), (1 - share, share), seed=seed)]
