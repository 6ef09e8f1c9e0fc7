"""Pictures of the first seed's networks: reconstructions, samples, interpolations, manifold, posterior correlations."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

import pyrovae as pv
from experiments.rho_vae.settings import Settings
from experiments.rho_vae.training import Training, images
from pyrovae import plotting
from pyrovae.distributions import covariance_of, mean_of
from pyrovae.plotting import write_figure
from pyrovae.randomness import seeded

Pair = tuple[pv.GenerativeModel, pv.AmortizedGuide]
NUM_SHOWN = 12
NUM_ACROSS = 15
"""Images along each side of the latent manifold."""


def write(settings: Settings, out: Path, runs: pd.DataFrame) -> dict[str, Path]:
    """Write them, for the first β; return files by caption."""
    data = images(settings.dataset, settings.pixels)
    side = (data.side, data.side)
    beta = settings.weights[0]
    paths = {}
    for d in settings.dims:
        here = runs[(runs["latent_dim"] == d) & (runs["beta"] == beta) & (runs["seed"] == 0)]
        pairs = {
            str(name): pv.load(Training(settings, out, d, str(name), beta, float(rate), seed=0).path)
            for name, rate in zip(here["posterior"], here["learning_rate"], strict=True)
        }
        if not pairs:
            continue
        with torch.no_grad(), seeded(0):
            figures = {
                "reconstructions": plotting.image_rows(reconstructions(pairs, data.test[:NUM_SHOWN]), side),
                "samples": plotting.image_rows(samples(pairs), side),
                "interpolations": plotting.image_rows(interpolations(pairs, data.test), side),
                "posterior-correlations": correlations(pairs, data.test[0], side),
            }
            if d == 2:
                figures["manifold"] = manifold(pairs, side)
        for name, figure in figures.items():
            caption = f"{name.replace('-', ' ').capitalize()}, d = {d}"
            paths[caption] = write_figure(out / f"{name}-d{d}.png", figure)
    return paths


def reconstructions(pairs: Mapping[str, Pair], x: Tensor) -> dict[str, Tensor]:
    """E[x|z] at a draw of each posterior, below the images."""
    rows = {"test images": x}
    for name, (model, guide) in pairs.items():
        rows[name] = model.conditional(guide.posterior(x).sample()).mean
    return rows


def samples(pairs: Mapping[str, Pair]) -> dict[str, Tensor]:
    """E[x|z] at the same draws of the prior."""
    latent_dim = next(iter(pairs.values()))[0].latent_dim
    z = torch.randn(NUM_SHOWN, latent_dim)
    return {f"{name}, z from the prior": model.conditional(z).mean for name, (model, _) in pairs.items()}


def interpolations(pairs: Mapping[str, Pair], x: Tensor) -> dict[str, Tensor]:
    """E[x|z] along the straight line between two images' posterior means."""
    rows = {}
    share = torch.linspace(0, 1, NUM_SHOWN - 2).unsqueeze(-1)
    for name, (model, guide) in pairs.items():
        first, last = mean_of(guide.posterior(x[:2]))
        between = model.conditional(first + share * (last - first)).mean
        rows[f"{name}: an image, from its z to another's, that image"] = torch.cat([x[:1], between, x[1:2]])
    return rows


def panels(num: int, size: float) -> tuple[Figure, np.ndarray]:
    """Axes (num,), four in a row."""
    columns = min(num, 4)
    fig, axes = plotting.figure(columns, -(-num // columns), size)
    for ax in axes.flat[num:]:
        ax.set_axis_off()
    return fig, axes.flat[:num]


def manifold(pairs: Mapping[str, Pair], side: tuple[int, int]) -> Figure:
    """E[x|z] on a grid of the prior's quantiles, d = 2, a panel a family."""
    fig, axes = panels(len(pairs), size=3.2)
    quantiles = torch.special.ndtri((torch.arange(NUM_ACROSS) + 0.5) / NUM_ACROSS)
    z = torch.cartesian_prod(-quantiles, quantiles).flip(-1)  # z₁ to the right, z₂ upwards
    for ax, (name, (model, _)) in zip(axes, pairs.items(), strict=True):
        tiles = model.conditional(z).mean.reshape(NUM_ACROSS, NUM_ACROSS, *side)
        ax.imshow(tiles.permute(0, 2, 1, 3).reshape(NUM_ACROSS * side[0], -1).numpy(), cmap="gray", vmin=0, vmax=1)
        ax.set_title(name, fontsize=9)
        ax.set_axis_off()
    return fig


def correlations(pairs: Mapping[str, Pair], x: Tensor, side: tuple[int, int]) -> Figure:
    """A test image, and the correlation matrix of its posterior under each family."""
    fig, axes = panels(1 + len(pairs), size=2.4)
    axes[0].imshow(x.reshape(side).numpy(), cmap="gray", vmin=0, vmax=1)
    axes[0].set_axis_off()
    for ax, (name, (_, guide)) in zip(axes[1:], pairs.items(), strict=True):
        covariance = covariance_of(guide.posterior(x.unsqueeze(0)))[0]
        scale = covariance.diagonal().sqrt()
        matrix = covariance / scale / scale.unsqueeze(-1)
        shown = ax.imshow(matrix.numpy(), vmin=-1, vmax=1, cmap="RdBu_r", interpolation="nearest")
        ax.set_title(name, fontsize=9)
        ax.set(xticks=[], yticks=[])
    fig.colorbar(shown, ax=axes[-1])
    return fig
