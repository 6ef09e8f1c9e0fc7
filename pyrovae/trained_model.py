"""Results of a trained model for each datum, in the units of the original data: one row per datum."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyrovae.blocks import blocks, is_mapped
from pyrovae.datasets import Preprocessing
from pyrovae.errors import InputError, check_integer
from pyrovae.evaluation import Imputed
from pyrovae.evaluation.outliers import p_values_beside, places_in, usual_misfits
from pyrovae.fitted import FOLDS, VAE, Linear
from pyrovae.io import load_any, load_preprocessing
from pyrovae.progress import progress_bar
from pyrovae.randomness import seeded

_ROWS = 512
_DRAWS, _DRAWS_OF_GRADIENTS = 400, 30
"""Draws of z per datum for bands and for gradients."""

_AT_ONCE = 1024
"""Data of a file that are scored at once."""


@dataclass(frozen=True)
class TrainedModel:
    """A fitted model with its preprocessing.

    Args:
        fitted: a VAE or a linear model.
        preprocessing: the fitted step, or None.
    """

    fitted: VAE | Linear
    preprocessing: Preprocessing | None = None

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what :func:`pyrovae.save` wrote: a ``.safetensors`` file, or a folder with ``model.safetensors``.

        Raises:
            FileNotFoundError: it is not there.
            InputError: it is damaged.
        """
        path = Path(path)
        file = path if path.suffix == ".safetensors" else path / "model.safetensors"
        if not file.is_file():
            raise FileNotFoundError(f"there is no model {file}; give the folder that pyrovae fit or compare wrote")
        found = load_any(file)
        step = load_preprocessing(file)
        if isinstance(found, tuple):
            model, guide = found
            return cls(VAE(model.eval(), guide.eval()), step)
        return cls(Linear(found), step)

    def prepare(self, x: Tensor) -> Tensor:
        """Preprocess data (num, n).

        Raises:
            InputError: they have another number of channels, or values that the model does not accept.
        """
        if self.preprocessing is not None:
            x = self.preprocessing.transform(x)
        try:
            return self.fitted.check(x)
        except RuntimeError:  # the encoder, on data of another width
            raise InputError(
                f"the model does not accept data with {x.shape[1]} channels; give data with its channels"
            ) from None

    def restore(self, y: Tensor) -> Tensor:
        """Preprocessed data (num, n) in the original units; unchanged if the step is not a bijection."""
        step = self.preprocessing
        return step.inverse(y) if step is not None and step.comparable else y

    @torch.no_grad()
    def latents(self, x: Tensor, *, seed: int = 0, progress: bool = False) -> pd.DataFrame:
        """Mean and covariance of q(z|x), from draws if a family has no formula.

        Args:
            x: data (num, n), in the original units.
            seed: seed of the draws.
            progress: whether to show a progress bar (on a terminal).

        Returns:
            ``row`` (counted from 0), ``mean_i``, and ``covariance_i_j`` for i ≤ j, dimensions counted from 1.

        Raises:
            InputError: the model has no latents.
        """
        rows = []
        with seeded(seed):
            for y in _chunks(self.prepare(x), "encoding", progress):
                mean, covariance = self.fitted.encode(y)
                i, j = torch.triu_indices(mean.shape[1], mean.shape[1])
                rows.append(torch.cat([mean, covariance[:, i, j]], dim=1))
        d = mean.shape[1]
        names = [f"mean_{k}" for k in range(1, d + 1)]
        names += [f"covariance_{k}_{m}" for k in range(1, d + 1) for m in range(k, d + 1)]
        return _table(torch.cat(rows), names)

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """E[x|z] of latents (num, d), in the original units, shape (num, n)."""
        return self.restore(self.fitted.decode(z))

    @torch.no_grad()
    def reconstructions(
        self, x: Tensor, *, num_samples: int = 100, seed: int = 0, progress: bool = False
    ) -> pd.DataFrame:
        """E[x̂|x] = E_{q(z|x)} E[x|z], in the original units; without latents, each channel given the others.

        Args:
            x: data (num, n), in the original units.
            num_samples: draws of z per datum, if the mean has no closed form.
            seed: seed of the draws.
            progress: whether to show a progress bar (on a terminal).

        Returns:
            ``row`` (counted from 0) and ``x_j``, channels counted from 1.
        """
        with seeded(seed):
            chunks = _chunks(self.prepare(x), "reconstructing", progress)
            return _table(torch.cat([self.restore(self.fitted.reconstruct(y, num_samples)) for y in chunks]))

    @torch.no_grad()
    def bands(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """95 % range of each channel: the reconstruction ± 1.96 standard deviations, noise included.

        Args:
            x: data (num, n), in the original units.

        Returns:
            Lower and upper ends, each of shape (num, n), in the original units.
        """
        y = self.prepare(x)
        with seeded(0):
            centre, reach = self.fitted.reconstruct(y, _DRAWS), 1.96 * self.fitted.spread(y, _DRAWS)
        return self.restore(centre - reach), self.restore(centre + reach)

    @torch.no_grad()
    def gradients(self, x: Tensor, *, seed: int = 0) -> Tensor:
        """∇ log p(x) of the preprocessed data, shape (num, n): large if a channel differs from what the others suggest.

        Args:
            x: data (num, n), in the original units.
            seed: seed of the draws.
        """
        with seeded(seed):
            return self.fitted.gradient(self.prepare(x), _DRAWS_OF_GRADIENTS)

    def impute(
        self,
        x: Tensor,
        *,
        level: float = 0.9,
        num_samples: int = 1000,
        refits: int = 0,
        trained: Tensor | None = None,
        seed: int = 0,
        progress: bool = False,
    ) -> Imputed[Tensor]:
        """Fill in missing values, NaN in x, by E[x_M | x_O], with intervals of p(x_M | x_O), in the original units.

        The intervals show the uncertainty of a value under the model. Those of a linear model allow for its estimation
        too, if there are refits (:meth:`~pyrovae.FactorModel.intervals`).

        Args:
            x: data (num, n), in the original units.
            level: probability of an interval, with half of the rest on either side.
            num_samples: draws of z per datum for a VAE; a linear model is exact.
            refits: number of refits of a linear model; 0 takes its parameters as known.
            trained: data that the model was fitted to, (any, n), for the refits: their number and where they are NaN.
            seed: seed of the draws.
            progress: whether to show a progress bar (on a terminal).

        Raises:
            InputError: the model was trained without missing values, the preprocessing cannot be undone, the level is
                outside of (0, 1), or refits of a VAE or without the training data.
        """
        if self.preprocessing is not None and not self.preprocessing.comparable:
            raise InputError("the preprocessing cannot be undone, so nothing can be written in the data's units")
        y = self.prepare(x)
        found = self.fitted.impute(y, level, num_samples, seed, progress)
        if refits:
            if not isinstance(self.fitted, Linear) or trained is None:
                raise InputError("refits need a linear model and the data that it was fitted to")
            model = self.fitted.model
            ends = model.intervals(y, trained, level=level, refits=refits, seed=seed, progress=progress)
            found = replace(found, lower=ends[0], upper=ends[1])

        def restored(y: Tensor) -> Tensor:
            return torch.where(x.isnan(), self.restore(y).to(x), x)

        return Imputed(restored(found.mean), restored(found.lower), restored(found.upper), found.reliable)

    @torch.no_grad()
    def samples(self, num: int, *, seed: int = 0) -> pd.DataFrame:
        """Draws x ~ p(x), in the original units: ``row`` and ``x_j``, counted from 0 and from 1.

        Raises:
            InputError: ``num`` is not a positive integer.
        """
        check_integer("the number of draws", num)
        with seeded(seed):
            return _table(self.restore(self.fitted.sample(num)))

    def scores(self, x: Tensor, *, num_samples: int = 300, seed: int = 0, progress: bool = False) -> pd.DataFrame:
        """Log p(x) and the ELBO of each datum, in nats, of the original data.

        A small log p(x) means that the model has not seen similar data.

        Args:
            x: data (num, n), in the original units.
            num_samples: draws of z per datum for log p(x), where it is not known exactly.
            seed: seed of the draws.
            progress: whether to show a progress bar (on a terminal).

        Returns:
            ``row`` (counted from 0); ``log_prob``, for a VAE an estimate by importance sampling and a lower bound in
            expectation, with its Monte Carlo standard error ``log_prob_stderr`` (0 for a linear model, whose log p(x)
            is exact); ``pareto_k`` and ``reliable``, whether that standard error is reliable; ``elbo``,
            ``reconstruction`` and ``kl``. If the preprocessing loses dimensions, densities are those of the
            preprocessed data, and cannot be compared with those of another preprocessing.
        """
        columns: dict[str, NDArray[Any]] = {}
        done, by_blocks = 0, is_mapped(x)
        with progress_bar(total=len(x), unit="datum", show=progress and by_blocks) as bar:
            for k, rows in enumerate(blocks(x, _AT_ONCE if by_blocks else None)):
                found = self._scores(rows, num_samples, seed + k, progress and not by_blocks)
                if not columns:  # small results kept between large ones would keep the memory of these
                    columns = {name: np.empty(len(x), dtype=values.dtype) for name, values in found.items()}
                for name, values in found.items():
                    columns[name][done : done + len(rows)] = values
                done += len(rows)
                bar.update(len(rows))
        return pd.DataFrame({"row": range(len(x)), **columns})

    def _scores(self, x: Tensor, num_samples: int, seed: int, progress: bool) -> dict[str, NDArray[Any]]:
        step, y = self.preprocessing, self.prepare(x)
        jacobian = step.log_abs_det_jacobian(x) if step is not None and step.comparable else torch.zeros(len(x))
        columns = self.fitted.score(y, num_samples, seed, progress)
        columns |= {name: columns[name] + jacobian for name in ("log_prob", "elbo", "reconstruction")}
        return {name: column.numpy() for name, column in columns.items()}

    def outliers(
        self,
        x: Tensor,
        calibration: Tensor,
        *,
        trained: Tensor | None = None,
        num_samples: int = 300,
        seed: int = 0,
        progress: bool = False,
    ) -> tuple[pd.DataFrame, Tensor]:
        """The p-value of each datum among held-out data, and the misfit of its channels.

        Data that trained a linear model are judged by cross-fitting: in five parts, each by a model fitted to the
        other four.

        A held-out datum is compared with the other held-out data: its p-value is at least 1/m.

        A channel's misfit is |∂ log p(x)/∂x_j| in units of what is usual among the held-out data (1.4826 medians): for
        a linear model, the distance from the value that the other channels suggest. It is 0 if the noise is not
        Gaussian.

        Args:
            x: data (num, n), in the original units.
            calibration: similar data that did not train the model, shape (any, n).
            trained: which rows of x trained the model, booleans of shape (num,).
            num_samples: draws of z per datum for log p(x), where it is not known exactly.
            seed: seed of the draws.
            progress: whether to show progress bars (on a terminal).

        Returns:
            ``row`` (counted from 0), ``log_prob`` and ``p_value``, see :func:`~pyrovae.conformal_p_values`; and the
            misfits, shape (num, n).
        """
        parts = [(self, torch.arange(len(x)))]
        if trained is not None and isinstance(self.fitted, Linear) and int(trained.sum()) >= 2 * FOLDS:
            parts = [(self, (~trained).nonzero()[:, 0])] if (~trained).any() else []
            cross_fitted = self.fitted.cross_fitted(self.prepare(x), trained, seed)
            parts += [(replace(self, fitted=linear), fold) for linear, fold in cross_fitted]
        judged = [model._judged(x[rows], calibration, num_samples, seed, progress) for model, rows in parts]
        order = torch.cat([rows for _, rows in parts]).argsort()
        table = pd.concat([one for one, _ in judged]).iloc[order.numpy()].assign(row=range(len(x)))
        return table.reset_index(drop=True), torch.cat([misfits for _, misfits in judged])[order]

    def _judged(
        self, x: Tensor, calibration: Tensor, num_samples: int, seed: int, progress: bool
    ) -> tuple[pd.DataFrame, Tensor]:
        """P-values and misfits of data that did not train the model."""
        scores, held_out = (
            self.scores(part, num_samples=num_samples, seed=seed + k, progress=progress)
            for k, part in enumerate((x, calibration))
        )
        own = places_in(calibration.cpu().numpy(), x.to(calibration).cpu().numpy())
        log_prob, p_values = p_values_beside(scores["log_prob"], held_out["log_prob"], own)
        table = pd.DataFrame({"row": scores["row"], "log_prob": log_prob, "p_value": p_values})
        usual = usual_misfits(self.gradients(calibration, seed=seed).double().cpu().numpy())
        misfits = self.gradients(x, seed=seed).double().cpu().abs() / torch.from_numpy(usual)
        return table, misfits.nan_to_num()


def _chunks(y: Tensor, what: str, progress: bool) -> Iterable[Tensor]:
    found: Iterable[Tensor] = progress_bar(y.split(_ROWS), what, show=progress and len(y) > _ROWS, leave=False)
    return found


def _table(values: Tensor, names: list[str] | None = None) -> pd.DataFrame:
    """Rows of numbers, by default of channels, with their place in front."""
    names = [f"x_{j}" for j in range(1, values.shape[1] + 1)] if names is None else names
    table = pd.DataFrame(values.cpu().numpy(), columns=names)
    table.insert(0, "row", range(len(table)))
    return table


def summary_of(scores: pd.DataFrame) -> dict[str, float]:
    """Means over the data of :meth:`TrainedModel.scores`, with the standard error of mean log p(x)."""
    num = len(scores)
    return {
        "num": num,
        "log_prob": float(scores["log_prob"].mean()),
        "log_prob_stderr": float(scores["log_prob"].std() / math.sqrt(num)) if num > 1 else math.nan,
        "elbo": float(scores["elbo"].mean()),
        "kl": float(scores["kl"].mean()),
        "reliable_share": float(scores["reliable"].mean()),
        "exact": bool((scores["log_prob_stderr"] == 0).all()),
    }
