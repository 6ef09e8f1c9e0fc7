"""Pictures of spectra: reconstructions with bands, residuals, the latent space, decoder sweeps, noise correlations."""

from collections.abc import Mapping
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

import pyrovae as pv
from experiments.spectra.checks import BAND, Checked, correlation_of
from experiments.spectra.sets import SpectraSet
from pyrovae import plotting
from pyrovae.datasets import Preprocessing
from pyrovae.distributions import mean_of
from pyrovae.plotting import write_figure
from pyrovae.randomness import seeded

NUM_SWEPT = 6
NUM_ROWS = 12
"""Test spectra whose residuals are shown."""


def write_pictures(
    folder: Path,
    data: SpectraSet,
    best: str,
    checked: Mapping[str, Checked],
    model: pv.GenerativeModel,
    guide: pv.AmortizedGuide,
    step: Preprocessing,
    color: str,
) -> dict[str, Path]:
    """Write them; return files by caption.

    Args:
        folder: where to.
        data: the spectra.
        best: name of the likelihood whose pair is shown.
        checked: a pair of each likelihood.
        model: the one of ``best``.
        guide: its guide.
        step: its preprocessing.
        color: column that colours the latent space.
    """
    column, values = data.color(color)
    with torch.no_grad(), seeded(0):
        q = guide.eval().posterior(step.transform(data.test.x))
        latent = plotting.latent_space(q, values)
        latent.suptitle(f"coloured by {column}" if column else "", fontsize=9)
        swept = sweeps(data, model.eval(), step, mean_of(q, num_draws=256))
    figures = {
        f"{data.name}: test spectra, reconstructions and {BAND:.0%} bands, {best}": (
            "bands",
            bands(data, checked[best]),
        ),
        f"{data.name}: residuals of each likelihood": ("residuals", residuals(data, checked)),
        f"{data.name}: latent space": ("latent", latent),
        f"{data.name}: what each latent direction adds to the mean spectrum": ("sweeps", swept),
        f"{data.name}: correlation of the noise": ("noise-correlation", correlations(data, checked)),
    }
    return {
        caption: write_figure(folder / f"{data.name}-{name}.png", figure) for caption, (name, figure) in figures.items()
    }


def bands(data: SpectraSet, checked: Checked) -> Figure:
    """Three test spectra, and below each the same less its reconstruction."""
    fig, axes = plotting.figure(3, 2, size=3.6)
    axis = data.test.axis.numpy()
    order = checked.marginal.per_datum.argsort()
    shown = {"median log p(x)": order[len(order) // 2], "lowest": order[0], "highest": order[-1]}
    for column, (title, i) in enumerate(shown.items()):
        x, x_hat, low, high = (t[i] for t in (data.test.x, checked.reconstruction, checked.low, checked.high))
        for ax, centre in ((axes[0, column], torch.zeros_like(x)), (axes[1, column], x_hat)):
            ax.fill_between(
                axis, low - centre, high - centre, color=plotting.COLORS[5], alpha=0.5, linewidth=0, label="band"
            )
            ax.plot(axis, x_hat - centre, color=plotting.COLORS[1], linewidth=0.9, label="reconstruction")
            ax.plot(axis, x - centre, color=plotting.COLORS[0], linewidth=0.7, label="x")
        axes[0, column].set_title(f"spectrum with {title}", fontsize=9)
        axes[1, column].set_xlabel(data.test.unit)
    axes[0, 0].legend(fontsize=7)
    axes[1, 0].set_ylabel("less the reconstruction")
    return fig


def residuals(data: SpectraSet, checked: Mapping[str, Checked]) -> Figure:
    """Residuals of the same test spectra under each likelihood, each panel with its own scale."""
    fig, axes = plotting.figure(len(checked), size=3.4)
    axis = data.test.axis.numpy()
    parts = {name: data.test.x - found.reconstruction for name, found in checked.items()}
    for ax, (name, part) in zip(axes[0], parts.items(), strict=True):
        for k, row in enumerate(part[:NUM_ROWS]):
            ax.plot(axis, row, color=plotting.COLORS[k % len(plotting.COLORS)], linewidth=0.5)
        rho, limit = checked[name].metrics["residual_autocorrelation"], part[:NUM_ROWS].abs().quantile(0.999).item()
        ax.set(ylim=(-limit, limit), xlabel=data.test.unit)
        ax.set_title(f"{name}\ncorrelation of neighbours {rho:.2f}", fontsize=9)
    axes[0, 0].set_ylabel("x − x̂")
    return fig


def sweeps(data: SpectraSet, model: pv.GenerativeModel, step: Preprocessing, means: Tensor) -> Figure:
    """The decoder along each of the most active latent dimensions, from −2 to 2, less its mean spectrum: loadings."""
    active = means.var(0).argsort(descending=True)[:NUM_SWEPT]
    fig, axes = plotting.figure(len(active), size=2.8)
    origin = torch.zeros(1, model.latent_dim)
    zero = step.inverse(model.conditional(origin).mean)[0]
    for ax, k in zip(axes[0], active, strict=True):
        for value, color in zip((-2.0, -1.0, 1.0, 2.0), ("#08519c", "#6baed6", "#fc9272", "#a50f15"), strict=True):
            z = origin.clone()
            z[0, k] = value
            shift = step.inverse(model.conditional(z).mean)[0] - zero
            ax.plot(data.test.axis.numpy(), shift, color=color, linewidth=0.9, label=f"z = {value:g}")
        ax.set(xlabel=data.test.unit)
        ax.set_title(f"z{int(k) + 1}, variance of its mean {means[:, k].var():.2f}", fontsize=8)
    axes[0, 0].legend(fontsize=7)
    return fig


def correlations(data: SpectraSet, checked: Mapping[str, Checked]) -> Figure:
    """The noise's correlation matrix under each likelihood, and the true one of simulated spectra."""
    matrices = {name: correlation_of(found.covariance) for name, found in checked.items()}
    truth = getattr(data.test, "truth", None)
    if truth is not None:
        matrices["truth"] = correlation_of(truth.noise.covariance_matrix)
    fig, axes = plotting.figure(len(matrices), size=2.9)
    for ax, (name, matrix) in zip(axes[0], matrices.items(), strict=True):
        image = ax.imshow(matrix, vmin=-1, vmax=1, cmap="RdBu_r", interpolation="nearest")
        ax.set_title(name, fontsize=9)
    fig.colorbar(image, ax=axes[0, -1])
    return fig
