"""Pictures, each a function from arrays to a matplotlib figure, without changes of global state."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyrovae.distributions import covariance_of, mean_of
from pyrovae.errors import one_line
from pyrovae.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pyro.distributions import TorchDistribution

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's colours, which colour-blind readers can distinguish."""


class PictureWarning(UserWarning):
    """A picture could not be drawn; everything else was done."""


def label(text: object) -> str:
    """A text, a name from a file for one, as it stands: ``$`` begins no formula, and control characters are escapes."""
    return one_line(text).replace("$", r"\$")


def figure(columns: int, rows: int = 1, size: float = 3.4) -> tuple[Figure, NDArray[Any]]:
    """A figure with a grid of axes, shape (rows, columns)."""
    fig = empty_figure(size * columns, size * rows)
    return fig, fig.subplots(rows, columns, squeeze=False)


def empty_figure(width: float, height: float) -> Figure:
    """A figure of this size in inches that no window shows."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    fig = Figure(figsize=(width, height), layout="constrained", dpi=110)
    FigureCanvasAgg(fig)
    return fig


def losses(epoch_loss: Sequence[float], batch_loss: Sequence[float], floor: float | None = None) -> Figure:
    """−ELBO by epoch and by batch, with the entropy of the data as the floor where it is known."""
    fig, axes = figure(2)
    by_epoch, by_batch = axes[0]
    by_epoch.plot(np.arange(1, len(epoch_loss) + 1), epoch_loss, color=COLORS[0], marker=".", markersize=4)
    by_epoch.set(xlabel="epoch", ylabel="−ELBO, nats per datum", title="loss by epoch")
    by_epoch.xaxis.get_major_locator().set_params(integer=True)
    batch = np.asarray(batch_loss)
    by_batch.plot(np.arange(1, len(batch) + 1), batch, color=COLORS[5], linewidth=0.3, rasterized=True)
    window = max(1, len(batch) // 200)
    smooth = np.convolve(batch, np.ones(window) / window, mode="valid")
    by_batch.plot(np.arange(window, len(batch) + 1), smooth, color=COLORS[0], label=f"mean of {window}")
    low, high = np.percentile(batch, [0.5, 99.5])
    by_batch.set(xlabel="step", title="loss by batch")
    if high > low:
        by_batch.set_ylim(low - 0.1 * (high - low), high + 0.1 * (high - low))
    if floor is not None:
        for ax in axes[0]:
            ax.axhline(floor, color=COLORS[1], linestyle="--", label="entropy of the data")
        by_epoch.legend(loc="upper right")
    by_batch.legend(loc="upper right")
    return fig


def scatter_panels(panels: Mapping[str, Tensor], columns: int | None = None, max_points: int = 4000) -> Figure:
    """One scatter plot a panel: the first two columns of each set of points, on common axes."""
    columns = columns or len(panels)
    rows = -(-len(panels) // columns)
    fig, axes = figure(columns, rows)
    clouds = [_plane(points)[:max_points] for points in panels.values()]
    for ax, title, cloud in zip(axes.flat, panels, clouds, strict=False):
        _scatter(ax, cloud, label(title))
    _share_limits(axes.flat[: len(panels)], clouds[0])
    for ax in axes.flat[len(panels) :]:
        ax.set_axis_off()
    return fig


def image_rows(rows: Mapping[str, Tensor], shape: tuple[int, int]) -> Figure:
    """Images side by side, one row of them a caption, in grey from 0 (black) to 1 (white).

    Args:
        rows: images (num, height × width) by caption.
        shape: height and width.
    """
    columns = max(len(images) for images in rows.values())
    fig = empty_figure(0.62 * columns, 0.95 * len(rows))
    axes = fig.subplots(len(rows), 1, squeeze=False)[:, 0]
    for ax, (caption, images) in zip(axes, rows.items(), strict=True):
        tiles = images.detach().cpu().numpy().reshape(-1, *shape)
        padded = np.pad(tiles, ((0, 0), (1, 1), (1, 1)), constant_values=1.0)
        ax.imshow(np.concatenate(list(padded), axis=1), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        ax.set_title(label(caption), fontsize=8, loc="left")
        ax.set_axis_off()
    return fig


def reconstructions(x: Tensor, x_hat: Tensor, num_lines: int = 150) -> Figure:
    """Test data beside their reconstructions, and lines that join some pairs."""
    from matplotlib.collections import LineCollection

    fig, axes = figure(3)
    a, b = _plane(x), _plane(x_hat)
    _scatter(axes[0, 0], a[:4000], "test data x")
    _scatter(axes[0, 1], b[:4000], "reconstructions E[x|z], z ~ q(z|x)")
    lines = np.stack([a[:num_lines], b[:num_lines]], axis=1)
    axes[0, 2].add_collection(LineCollection(list(lines), colors=COLORS[5], linewidths=0.6))
    axes[0, 2].scatter(*a[:num_lines].T, s=6, color=COLORS[0], label="x")
    axes[0, 2].scatter(*b[:num_lines].T, s=6, color=COLORS[1], label="reconstruction")
    axes[0, 2].legend(fontsize=7, loc="upper right")
    axes[0, 2].set_title(f"{min(num_lines, len(a))} of them joined", fontsize=9)
    _share_limits(axes[0], a)
    return fig


def latent_space(posterior: TorchDistribution, color: Tensor, num_ellipses: int = 60) -> Figure:
    """Posterior means of the data, and ellipses of one standard deviation of some q(z|x), in the first two dimensions.

    Args:
        posterior: q(z|x) of batch shape (num,).
        color: a number per datum, shape (num,).
        num_ellipses: how many posteriors to draw as ellipses.
    """
    fig, axes = figure(2, size=4.0)
    means, draws = mean_of(posterior, num_draws=256), posterior.sample()
    titles = "posterior means, 1σ ellipses", "draws z ~ q(z|x), prior's 2σ circle"
    for ax, points, title in zip(axes[0], (means, draws), titles, strict=True):
        _scatter(ax, _plane(points)[:4000], title, color[:4000].cpu())
        ax.set(xlabel="z₁", ylabel="z₂")
        ax.set_aspect("equal", adjustable="datalim")
    angle = np.linspace(0, 2 * np.pi, 200)
    axes[0, 1].plot(2 * np.cos(angle), 2 * np.sin(angle), color=COLORS[1], linestyle="--", linewidth=1)
    covariance = covariance_of(posterior, num_draws=256)[:num_ellipses, :2, :2].detach().cpu().double()
    if covariance.shape[-1] == 2:
        _add_ellipses(axes[0, 0], means[:num_ellipses, :2].detach().cpu().double(), covariance)
    return fig


def _add_ellipses(ax: Axes, means: Tensor, covariance: Tensor) -> None:
    """Ellipses of one standard deviation."""
    from matplotlib.collections import EllipseCollection

    variances, directions = torch.linalg.eigh(covariance)
    minor, major = (2 * variances.clamp_min(0).sqrt()).numpy().T
    angles = torch.rad2deg(torch.atan2(directions[:, 1, 1], directions[:, 0, 1])).numpy()
    ellipses = EllipseCollection(major, minor, angles, units="xy", offsets=means.numpy(), transOffset=ax.transData)
    ellipses.set(facecolors="none", edgecolors=COLORS[1], linewidths=0.8)
    ax.add_collection(ellipses)


def conditional_draws(z: Tensor, x: Tensor, data: Tensor) -> Figure:
    """Draws of x given z: a grid of latent points, and for each, in its colour, draws from p(x|z).

    Args:
        z: grid points, shape (num, 2).
        x: draws, shape (draws, num, 2).
        data: points to show behind them, shape (any, 2).
    """
    fig, axes = figure(2, size=4.0)
    low, high = z.min(0).values, z.max(0).values
    span = ((z - low) / (high - low)).clamp(0, 1).cpu().numpy()
    colors = np.stack([span[:, 0], 0.6 * np.ones(len(span)) * (1 - span[:, 1]), span[:, 1]], axis=-1)
    axes[0, 0].scatter(z[:, 0].cpu(), z[:, 1].cpu(), c=colors, s=25)
    axes[0, 0].set(xlabel="z₁", ylabel="z₂", title="z")
    axes[0, 1].scatter(*data[:3000, :2].cpu().numpy().T, s=2, color="0.8", linewidths=0, rasterized=True)
    flat = x[..., :2].reshape(-1, 2).cpu().numpy()
    axes[0, 1].scatter(*flat.T, c=np.tile(colors, (len(x), 1)), s=6, linewidths=0, rasterized=True)
    axes[0, 1].set(title="draws of x given z (grey: data)")
    for ax in axes[0]:
        ax.set_aspect("equal", adjustable="datalim")
    return fig


def intervals(
    labels: Sequence[str], means: Sequence[float], stderrs: Sequence[float], xlabel: str, reference: float | None = None
) -> Figure:
    """One row a label: the mean with ±2 standard errors, and a line at the reference."""
    fig = empty_figure(6.5, 0.9 + 0.32 * len(labels))
    ax = fig.subplots()
    rows = np.arange(len(labels))[::-1]
    ax.errorbar(means, rows, xerr=2 * np.asarray(stderrs), fmt="o", color=COLORS[0], capsize=3)
    if reference is not None:
        ax.axvline(reference, color=COLORS[1], linestyle="--", linewidth=1)
    ax.set_yticks(rows, [label(name) for name in labels])
    ax.set(xlabel=label(f"{xlabel} (± 2 standard errors)"))
    return fig


def _scatter(ax: Axes, points: NDArray[np.floating], title: str, values: Tensor | None = None) -> None:
    """Small points (num, 2) under a title, coloured by their values where there are any."""
    colors, alpha, cmap = (COLORS[0], 0.35, None) if values is None else (values, 0.5, "viridis")
    x, y = points.T
    ax.scatter(x, y, s=3, c=colors, alpha=alpha, cmap=cmap, linewidths=0, rasterized=True)
    ax.set_title(title, fontsize=9)


def _plane(points: Tensor) -> NDArray[np.floating]:
    """The first two columns where both have values; a single one goes on the horizontal axis."""
    shown = points.detach().cpu().numpy()[:, :2]
    shown = shown[~np.isnan(shown).any(1)]
    return shown if shown.shape[-1] == 2 else np.concatenate([shown, np.zeros_like(shown)], axis=-1)


def _share_limits(axes: Iterable[Axes], points: NDArray[np.floating]) -> None:
    """The limits of all axes from one set of points, with equal scales."""
    low, high = points.min(0), points.max(0)
    margin = np.where(high > low, 0.1 * (high - low), 0.5)
    for ax in axes:
        ax.set(xlim=(low[0] - margin[0], high[0] + margin[0]), ylim=(low[1] - margin[1], high[1] + margin[1]))
        ax.set_aspect("equal", adjustable="box")


def write_figure(path: Path, fig: Figure) -> Path:
    """Write the figure as a PNG, atomically, and return where.

    It is without the software's version, so that equal pictures are equal files.
    """
    write_atomically(
        path, lambda temporary: fig.savefig(temporary, format="png", dpi="figure", metadata={"Software": None})
    )
    return path


def write_picture(path: Path, draw: Callable[[], Figure]) -> None:
    """Draw a figure and write it, see :func:`write_figure`; where it :func:`may_fail` there is no file ``path``.

    Raises:
        OSError: it cannot be written.

    Warns:
        PictureWarning: it cannot be drawn.
    """
    with may_fail(path):
        write_figure(path, draw())
        return
    path.unlink(missing_ok=True)


@contextmanager
def may_fail(picture: object) -> Iterator[None]:
    """Go on without a picture that cannot be drawn.

    Args:
        picture: what to call it.

    Warns:
        PictureWarning: what went wrong, in one line.
    """
    try:
        yield
    except OSError:  # of the folder, and so of every result
        raise
    except Exception as error:
        why = f"{type(error).__name__}: {one_line(error, 200)}"
        warnings.warn(f"cannot draw {picture} ({why}); the rest was written", PictureWarning, stacklevel=3)
