"""Fitted models, VAEs or linear-Gaussian: score, encode, reconstruct, sample."""

import math
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from pyrovae.blocks import has_gaps
from pyrovae.distributions import covariance_of, mean_of
from pyrovae.errors import InputError, Option, check_level, check_observed
from pyrovae.evaluation import Imputed, UnreliableEstimateWarning, elbo_terms, impute, log_marginal
from pyrovae.likelihoods import GaussianNoiseLikelihood
from pyrovae.linear_gaussian import FactorModel, ShrunkGaussian
from pyrovae.programs import check_data
from pyrovae.vae import AmortizedGuide, GenerativeModel

FOLDS = 5
"""Parts of the data in cross-fitting."""


@dataclass(frozen=True)
class VAE:
    """A generative model with its guide; data y (num, n) are as it sees them, preprocessed.

    Args:
        model: the generative model.
        guide: its guide.
    """

    model: GenerativeModel
    guide: AmortizedGuide

    def check(self, x: Tensor) -> Tensor:
        """The data in the model's dtype, on its device, after checking that it accepts them."""
        if not self.model.missing and has_gaps(x):
            raise InputError(
                "the data have missing values, and the model was trained without them; train it with ",
                Option("missing", "mask"),
            )
        return check_data(x, self.model, self.guide)

    def encode(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (num, d) and covariance (num, d, d) of q(z|x), from draws if a family has no formula."""
        q = self.guide.posterior(y)
        return mean_of(q, num_draws=256), covariance_of(q, num_draws=256)

    def decode(self, z: Tensor) -> Tensor:
        """E[x|z] of latents (num, d), shape (num, n)."""
        mean: Tensor = self.model.conditional(z.to(next(self.model.parameters()))).mean
        return mean

    def reconstruct(self, y: Tensor, num_samples: int) -> Tensor:
        """The mean of E[x|z] over draws of z, shape (num, n)."""
        q = self.guide.posterior(y)
        total = sum((self.model.conditional(q.sample()).mean for _ in range(num_samples)), torch.zeros_like(y))
        return total / num_samples

    def spread(self, y: Tensor, num_samples: int) -> Tensor:
        """Standard deviation (num, n) of each channel, noise included: of draws of x given draws of z."""
        q = self.guide.posterior(y)
        total, squares = torch.zeros_like(y), torch.zeros_like(y)
        centre = self.model.conditional(q.sample()).mean
        for _ in range(num_samples):
            off = self.model.conditional(q.sample()).sample() - centre
            total, squares = total + off, squares + off.square()
        return (squares / num_samples - (total / num_samples).square()).clamp_min(0).sqrt()

    def gradient(self, y: Tensor, num_samples: int) -> Tensor:
        """∇ log p(y) = E_{p(z|y)}[∇ log p(y|z)] (Fisher's identity), shape (num, n), over draws of q.

        It is 0 where y is missing, and of noise that is not Gaussian.
        """
        total = torch.zeros_like(y)
        if not isinstance(self.model.likelihood, GaussianNoiseLikelihood):
            return total
        q = self.guide.posterior(y)
        for _ in range(num_samples):
            p = self.model.conditional(q.sample())
            with torch.enable_grad():
                leaf = y.detach().clone().requires_grad_()
                (found,) = torch.autograd.grad(p.log_prob(leaf).sum(), leaf)
            total += found / num_samples
        return total.nan_to_num()

    def impute(self, y: Tensor, level: float, num_samples: int, seed: int, progress: bool) -> Imputed[Tensor]:
        """Fill in missing values from the observed values of the same datum, by weighted draws of z."""
        how = {"num_samples": num_samples, "seed": seed}
        return impute(self.model, self.guide, y, level=level, progress=progress, **how)

    def sample(self, num: int) -> Tensor:
        """Draws (num, n) of the program."""
        return self.model.sample(num)

    def score(self, y: Tensor, num_samples: int, seed: int, progress: bool) -> dict[str, Tensor]:
        """Columns of :meth:`TrainedModel.scores`, preprocessed: log p(x) by importance sampling, ELBO."""
        with warnings.catch_warnings(action="ignore", category=UnreliableEstimateWarning):  # a column of the table
            marginal = log_marginal(self.model, self.guide, y, num_samples=num_samples, seed=seed, progress=progress)
        terms = elbo_terms(self.model, self.guide, y, seed=seed)
        return {
            "log_prob": marginal.per_datum,
            "log_prob_stderr": marginal.stderr_per_datum,
            "pareto_k": marginal.pareto_k,
            "reliable": ~marginal.unreliable,
            "elbo": terms.elbo,
            "reconstruction": terms.reconstruction,
            "kl": terms.kl,
        }


@dataclass(frozen=True)
class Linear:
    """A linear-Gaussian model, with the methods of :class:`VAE`: its posterior and its density are exact.

    Args:
        model: the model.
    """

    model: FactorModel | ShrunkGaussian

    def check(self, x: Tensor) -> Tensor:
        """The data in float64.

        Raises:
            InputError: they have another width, or infinite values; NaN is a missing value.
        """
        check_observed("the data", x, self.model.n)
        return x.double()

    def cross_fitted(self, y: Tensor, trained: Tensor, seed: int) -> list[tuple["Linear", Tensor]]:
        """The rows of y that trained the model, booleans (num,), in five parts, each with a model of the other four."""
        known = trained.nonzero()[:, 0]
        mixed = known[torch.randperm(len(known), generator=torch.Generator().manual_seed(seed))]
        folds = mixed.tensor_split(FOLDS)
        return [(Linear(self.model.refit(y[known[~torch.isin(known, fold)]])), fold) for fold in folds]

    def encode(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Moments of p(z|x)."""
        p = self.model.posterior(y)
        return p.mean, p.covariance_matrix.expand(len(y), -1, -1)

    def decode(self, z: Tensor) -> Tensor:
        """Az + b."""
        return self.model.offset + z.double() @ self.model.loadings.T

    def reconstruct(self, y: Tensor, num_samples: int) -> Tensor:
        """E[x̂|x], or without latents each channel's mean given the others; nothing is drawn."""
        return self.model.reconstruct(y)

    def spread(self, y: Tensor, num_samples: int) -> Tensor:
        """Of the noise and of what is left open of z, or without latents of each channel given the others."""
        return self.model.spread(y).expand(len(y), -1)

    def gradient(self, y: Tensor, num_samples: int) -> Tensor:
        """−M⁻¹(y − b) with p(x)'s covariance M, of the observed channels; nothing is drawn."""
        return self.model.score(y)

    def impute(self, y: Tensor, level: float, num_samples: int, seed: int, progress: bool) -> Imputed[Tensor]:
        """By the exact conditional distribution; nothing is drawn."""
        check_level(level)
        mean, scale = self.model.complete(y)
        reach = math.sqrt(2) * torch.erfinv(torch.tensor(level, dtype=torch.float64)) * scale
        return Imputed(mean, mean - reach, mean + reach, torch.ones(len(y), dtype=torch.bool))

    def sample(self, num: int) -> Tensor:
        """Draws of p(x)."""
        return self.model.sample(num)

    def score(self, y: Tensor, num_samples: int, seed: int, progress: bool) -> dict[str, Tensor]:
        """Log p(x), which is the ELBO too; nothing is drawn."""
        log_prob, kl = self.model.log_prob(y), self.model.kl(y)
        return {
            "log_prob": log_prob,
            "log_prob_stderr": torch.zeros_like(log_prob),
            "pareto_k": torch.full_like(log_prob, math.nan),
            "reliable": torch.ones_like(log_prob, dtype=torch.bool),
            "elbo": log_prob,
            "reconstruction": log_prob + kl,
            "kl": kl,
        }
