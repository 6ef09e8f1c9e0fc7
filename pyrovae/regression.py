"""Targets from data, as a scikit-learn regressor: y given x by a joint model of both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.utils.validation import check_array, check_consistent_length, check_is_fitted, validate_data

from pyrovae.errors import InputError
from pyrovae.scikit import FactorModelTransformer, VAETransformer

if TYPE_CHECKING:
    from sklearn.utils import Tags

Array = NDArray[np.float64]


class JointRegressor(RegressorMixin, BaseEstimator):
    """Targets y given x, by one model of the columns of both: p(y|x) = p(x, y) / p(x).

    A linear model's p(y|x) is exact: with A, b and Σ of all columns it is a conditional Gaussian. A VAE's comes from
    weighted draws of z given x. Without a target, NaN in y, a datum still trains the model of x.

    Args:
        model: an unfitted :class:`~pyrovae.FactorModelTransformer` or :class:`~pyrovae.VAETransformer` with
            ``missing="mask"``. Its noise should treat each column by itself, and its preprocessing should bring x and y
            to similar units. None: a ``FactorModelTransformer`` with a σ per column of the standardised columns.

    Attributes:
        model_: the model of the columns of x, then y.
        n_features_in_: number of columns of x.
        feature_names_in_: their names, of a DataFrame.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> z = rng.normal(size=(200, 2))
        >>> x, y = z @ rng.normal(size=(2, 6)) + 0.1 * rng.normal(size=(200, 6)), z[:, 0]
        >>> regressor = JointRegressor().fit(x[:150], y[:150])
        >>> lower, upper = regressor.predict_interval(x[150:], level=0.9)
        >>> bool(regressor.score(x[150:], y[150:]) > 0.9), lower.shape
        (True, (50,))
    """

    model_: FactorModelTransformer | VAETransformer

    def __init__(self, model: FactorModelTransformer | VAETransformer | None = None) -> None:
        self.model = model

    def __sklearn_tags__(self) -> Tags:
        tags: Tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = tags.target_tags.multi_output = True
        tags.non_deterministic = isinstance(self.model, VAETransformer)
        return tags

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Fit the joint model to data X (num, n) and targets y, shape (num,) or (num, m).

        Raises:
            InputError: a model that does not accept missing values.
        """
        model = self.model or FactorModelTransformer("auto", "gaussian-per-dimension", "channel")
        if isinstance(model, VAETransformer) and model.missing != "mask":
            raise InputError('the targets of new data are missing: give VAETransformer(missing="mask")')
        x = self._checked(X, reset=True, ensure_min_samples=2)
        if y is None:
            raise InputError(f"{type(self).__name__} requires y to be passed, but the target y is None")
        targets = check_array(y, dtype=np.float64, ensure_all_finite="allow-nan", ensure_2d=False, input_name="y")
        check_consistent_length(x, targets)
        self._shape = targets.shape[1:]
        self.model_ = clone(model).fit(np.column_stack([x, targets]))
        return self

    def predict(self, X: ArrayLike) -> Array:
        """E[y|x] of data X (num, n), shape (num,) or (num, m)."""
        without = self._without_targets(X)
        return self._targets(self.model_.impute(without)[0])

    def predict_interval(self, X: ArrayLike, *, level: float = 0.9) -> tuple[Array, Array]:
        """Lower and upper ends of intervals of p(y|x), with half of the rest on either side.

        Args:
            X: data (num, n).
            level: probability of an interval.
        """
        without = self._without_targets(X)
        lower, upper = self.model_.impute(without, level=level)[1]
        return self._targets(lower), self._targets(upper)

    def score(self, X: ArrayLike, y: ArrayLike) -> float:
        """R² of the predictions: 1 if they are perfect, 0 if they are no better than the mean."""
        return float(super().score(X, y))

    def log_prob(self, X: ArrayLike, y: ArrayLike) -> Array:
        """Log p(y|x) = log p(x, y) − log p(x) in nats, in the units of y, shape (num,)."""
        without = self._without_targets(X)
        joint = without.copy()
        joint[:, self.n_features_in_ :] = np.reshape(y, (len(joint), -1))
        both, alone = (np.asarray(self.model_.score_samples(part)) for part in (joint, without))
        return both - alone

    def _checked(self, X: object, **how: object) -> Array:
        x: Array = validate_data(self, X, dtype=np.float64, ensure_all_finite="allow-nan", **how)
        return x

    def _without_targets(self, X: object) -> Array:
        """Data (num, n) with NaN as targets, shape (num, n + m)."""
        check_is_fitted(self)
        x = self._checked(X, reset=False)
        return np.column_stack([x, np.full((len(x), *self._shape), np.nan)])

    def _targets(self, joint: Array) -> Array:
        found = joint[:, self.n_features_in_ :]
        return found if self._shape else found[:, 0]
