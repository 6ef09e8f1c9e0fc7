"""A cell of the study trained and evaluated: data, networks, one run."""

import math
import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from pyro.infer import ELBO
from torch import Tensor, nn

import pyrovae as pv
from experiments.rho_vae.mmd import InfoELBO
from experiments.rho_vae.settings import PIXELS, Settings
from pyrovae.comparison.settings import PosteriorFactory
from pyrovae.datasets.images import IMAGES, ImageDataset
from pyrovae.distributions import covariance_of
from pyrovae.posteriors import POSTERIORS
from pyrovae.randomness import seeded

SHOWN = 1000
"""Test images of which posterior scales and correlations are averaged."""


@lru_cache(maxsize=1)
def images(dataset: str, pixels: str) -> ImageDataset:
    """The images, read once a process."""
    return IMAGES[dataset](PIXELS[pixels][0])


def make_pair(
    settings: Settings, posterior: PosteriorFactory, latent_dim: int, seed: int
) -> tuple[pv.GenerativeModel, pv.AmortizedGuide]:
    """Model and guide, initialised under the seed."""
    side = images(settings.dataset, settings.pixels).side
    n = side**2
    with seeded(seed):
        encoder: nn.Module
        decoder: nn.Module
        if settings.variant == "convolutional":
            encoder = pv.nn.ConvEncoder(*settings.channels, side=side)
            decoder = pv.nn.ConvDecoder(latent_dim, *reversed(settings.channels), side=side)
        else:
            encoder, decoder = pv.nn.MLP(n, *settings.hidden), pv.nn.MLP(latent_dim, *reversed(settings.hidden))
        likelihood = PIXELS[settings.pixels][1](decoder.out_features, n)
        model = pv.GenerativeModel(decoder, likelihood, latent_dim)
        return model, pv.AmortizedGuide(encoder, posterior(encoder.out_features, latent_dim))


@dataclass(frozen=True)
class Training:
    """A run: one cell, learning rate and seed. Calling it trains, saves the pair and returns how it went."""

    settings: Settings
    out: Path
    latent_dim: int
    posterior: str
    beta: float
    learning_rate: float
    seed: int

    @property
    def path(self) -> Path:
        """Where its pair is saved."""
        name = f"{self.posterior}-beta{self.beta:g}-d{self.latent_dim}-rate{self.learning_rate:g}-seed{self.seed}"
        return self.out / "models" / f"{name}.safetensors"

    def __call__(self) -> dict[str, Any]:
        """Smallest validation loss of its objective, infinite if it failed; best epoch, seconds, engine and a note."""
        s = self.settings
        model, guide = make_pair(s, POSTERIORS[self.posterior], self.latent_dim, self.seed)
        elbo = InfoELBO(s.info_alpha, s.info_lambda) if s.variant == "info" else pv.AnalyticELBO(beta=self.beta)
        try:
            history = fit(s, model, guide, elbo, self.learning_rate, self.seed)
        except (ArithmeticError, RuntimeError) as error:  # a run that breaks must not take the others along
            return {"validation_loss": math.inf, "note": " ".join(f"{self.path.stem} failed: {error}".split())}
        pv.save(self.path, model, guide)
        return {
            "validation_loss": min(record.validation_loss for record in history.epochs),
            "best_epoch": history.best_epoch,
            "seconds": history.seconds,
            "engine": history.engine,
            "note": "",
        }


def fit(
    settings: Settings,
    model: pv.GenerativeModel,
    guide: pv.AmortizedGuide,
    elbo: ELBO,
    learning_rate: float,
    seed: int,
    validate: bool = True,
) -> pv.History:
    """Train in the study's set-up."""
    data = images(settings.dataset, settings.pixels)
    return pv.fit(
        model,
        guide,
        data.train[: settings.num_train],
        elbo,
        epochs=settings.num_epochs,
        batch_size=settings.batch_size,
        learning_rate=learning_rate,
        schedule=settings.schedule,
        seed=seed,
        transform=data.transform,
        validation=data.validation if validate else None,
        device=settings.device,
        engine=settings.engine,
        progress=False,
    )


def evaluate_run(run: Training) -> dict[str, Any]:
    """A trained run, evaluated on the test images."""
    s = run.settings
    model, guide = pv.load(run.path)
    test = images(s.dataset, s.pixels).test[: s.num_test].to(s.device)
    row = {
        "latent_dim": run.latent_dim,
        "posterior": run.posterior,
        "beta": run.beta,
        "learning_rate": run.learning_rate,
        "seed": run.seed,
        "covariance_parameters": guide.posterior_head.get_parameter("covariance_head.bias").numel(),
    }
    model, guide = model.to(s.device), guide.to(s.device)
    return row | evaluate(model, guide, test, s.samples) | shape_of(guide, test)


def evaluate(model: pv.GenerativeModel, guide: pv.AmortizedGuide, x: Tensor, samples: int) -> dict[str, float]:
    """−ELBO (β = 1) with its parts, and the importance-sampled bound, in nats per datum.

    ``test_bound`` is of −log p(x), or where the likelihood is no density of −log ∫ p(z) exp(−cross-entropy(x, z)) dz.
    """
    terms = pv.elbo_terms(model, guide, x, num_samples=4)
    with warnings.catch_warnings(action="ignore", category=pv.UnreliableEstimateWarning):  # its share is a column
        marginal = pv.log_marginal(model, guide, x, num_samples=samples)
    return {
        "test_neg_elbo": -terms.elbo.mean().item(),
        "test_reconstruction": -terms.reconstruction.mean().item(),
        "test_kl": terms.kl.mean().item(),
        "test_bound": -marginal.mean,
        "unreliable": marginal.unreliable.double().mean().item(),
    }


@torch.no_grad()
def shape_of(guide: pv.AmortizedGuide, x: Tensor) -> dict[str, float]:
    """The posteriors' mean scale, and the mean and spread of the correlation between neighbouring dimensions."""
    covariance = covariance_of(guide.eval().posterior(x[:SHOWN])).double()
    scale = covariance.diagonal(dim1=-2, dim2=-1).sqrt()
    rho = covariance.diagonal(1, -2, -1) / (scale[..., 1:] * scale[..., :-1])
    return {"scale": scale.mean().item(), "rho": rho.mean().item(), "rho_spread": rho.std().item()}
