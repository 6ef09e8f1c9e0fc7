"""Series whose truth is not known: families of posteriors of ordered latents, and what they fill into gaps.

python -m experiments.series                       # turning digits with missing pixels, as the GP-VAE was tried on
python -m experiments.series --data SERIES.ts      # a file with one series in each row
"""

import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.ndimage import rotate
from torch import Tensor

import pyrovae as pv
from experiments import page
from experiments.options import Options, at_least, choice
from experiments.sequences import GPVAEPosterior, StepwiseDiagonal
from experiments.summaries import mean_and_error
from pyrovae.commands import console
from pyrovae.comparison.tables import markdown_table
from pyrovae.datasets import read_spectra, split_spectra
from pyrovae.datasets.images import IMAGES
from pyrovae.errors import InputError
from pyrovae.files import write_table
from pyrovae.nn import MLP, DilatedConvolutionEncoder, ImputeMissing, Stepwise
from pyrovae.progress import progress_bar
from pyrovae.randomness import seeded

FAMILIES: dict[str, Callable[..., pv.Posterior]] = {
    "diagonal": StepwiseDiagonal,
    "gp-vae": GPVAEPosterior,
    "ar1-chains": partial(pv.MarkovPosterior, blocks="diagonal"),
    "markov": pv.MarkovPosterior,
}
"""Families of q(z|x) of T steps × k channels; all are callables of (in_features, T·k, channels=k)."""
LEVEL = 0.9


@dataclass(frozen=True)
class Settings(Options):
    """Train VAEs of series that differ in their posterior alone, and let them fill in gaps."""

    data: Path | None = None
    """File with one series in each row, such as .ts; by default images that turn."""
    images: str = choice("digits", IMAGES)
    """Images that turn: digits, mnist or fashion-mnist."""
    num_images: int = 1500
    """Number of series of images; a fifth validates, a fifth tests."""
    num_test: int | None = at_least(2, None)
    """Test on the first N series of images only."""
    frames: int = at_least(2, 10)
    """Steps of a series of images."""
    missing: float = 0.6
    """Share of pixels that are missing, at random."""
    gap: float = 0.25
    """Length of the gap in each test series of a file, as a share of T."""
    channels: int = 4
    """Latents a step."""
    width: int = 32
    """Features a step, of encoder and decoder."""
    families: tuple[str, ...] = choice(tuple(FAMILIES), FAMILIES)
    """Families of q(z|x)."""
    seeds: int = 3
    """Trainings of each, with seeds 0, 1, …"""
    epochs: int = 150
    """Passes over the training series."""
    samples: int = 500
    """Draws of z per test series."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.missing < 1 or not 0 < self.gap < 1:
            raise InputError("--missing and --gap must be shares, between 0 and 1")


@dataclass(frozen=True)
class SeriesData:
    """Series of T steps × n numbers, in rows ordered by step, centred and in units of one σ.

    Attributes:
        name: of the file or the images.
        num_steps: T.
        train: shape (num, T·n), NaN where missing; so are ``validation`` and ``test``.
        with_gaps: the test series with gaps.
        whole: the test series without gaps, as far as they are known.
    """

    name: str
    num_steps: int
    train: Tensor
    validation: Tensor
    test: Tensor
    with_gaps: Tensor
    whole: Tensor

    @classmethod
    def of_file(cls, settings: Settings) -> "SeriesData":
        """The series of a file. Gaps are blocks of the test series."""
        assert settings.data is not None
        spectra = read_spectra(settings.data)
        if spectra.reading is not None:
            print(*spectra.reading.lines(), sep="\n")
        split = split_spectra(spectra)
        train, validation, test = scaled(split.train.x, split.validation.x, split.test.x)
        num_steps = train.shape[1]
        holes, generator = test.clone(), torch.Generator().manual_seed(0)
        length = max(1, round(settings.gap * num_steps))
        for row in holes:
            start = int(torch.randint(num_steps - length + 1, (), generator=generator))
            row[start : start + length] = math.nan
        return cls(spectra.name, num_steps, train, validation, test, holes, test)

    @classmethod
    def of_images(cls, settings: Settings) -> "SeriesData":
        """Images that turn by a constant angle a frame, with missing pixels in every part."""
        images = IMAGES[settings.images](None).train[: settings.num_images]
        rng = np.random.default_rng(0)
        start, step = (
            rng.uniform(0, 360, len(images)),
            rng.choice([-1, 1], len(images)) * rng.uniform(10, 30, len(images)),
        )
        side = math.isqrt(images.shape[1])
        turned = np.stack(
            [
                [rotate(image, a + b * frame, reshape=False, order=1).ravel() for frame in range(settings.frames)]
                for image, a, b in zip(images.reshape(-1, side, side).numpy(), start, step, strict=True)
            ]
        )
        x = torch.from_numpy(turned).float().flatten(1)
        fifth, generator = len(x) // 5, torch.Generator().manual_seed(0)
        parts = scaled(*x.split([len(x) - 2 * fifth, fifth, fifth]))
        train, validation, test = (
            part.masked_fill(torch.rand(part.shape, generator=generator) < settings.missing, math.nan) for part in parts
        )
        test, whole = test[: settings.num_test], parts[2][: settings.num_test]
        return cls(f"turning {settings.images}", settings.frames, train, validation, test, test, whole)


def scaled(train: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """All parts less the training data's means, over their one standard deviation."""
    mean = train.mean(0)
    return tuple(((part - mean) / (train - mean).std()).float() for part in (train, *others))


def pair(
    series: SeriesData, family: str, seed: int, settings: Settings
) -> tuple[pv.GenerativeModel, pv.AmortizedGuide]:
    """A VAE with k AR(1) chains as its prior, and decoder and heads that are the same at every step."""
    num_steps, k, width = series.num_steps, settings.channels, settings.width
    n = series.train.shape[1] // num_steps
    with seeded(seed):
        decoder = Stepwise(MLP(k, width, width), num_steps)
        likelihood = pv.GaussianLikelihood(num_steps * width, num_steps * n, num_steps=num_steps)
        prior = pv.priors.AR1Prior(num_steps * k, channels=k)
        model = pv.GenerativeModel(decoder, likelihood, num_steps * k, prior=prior, missing=True)
        encoder = DilatedConvolutionEncoder(n, width, num_steps)
        posterior = FAMILIES[family](encoder.out_features, num_steps * k, channels=k)
        return model, pv.AmortizedGuide(ImputeMissing(encoder), posterior)


def measured(series: SeriesData, family: str, seed: int, settings: Settings) -> dict[str, object]:
    """One training, as a row."""
    model, guide = pair(series, family, seed, settings)
    begin = time.process_time()
    pv.fit(
        model,
        guide,
        series.train,
        pv.AnalyticELBO(),
        validation=series.validation,
        epochs=settings.epochs,
        batch_size=32,
        schedule="cosine",
        learning_rate=3e-3,
        seed=seed,
        progress=False,
    )
    seconds = time.process_time() - begin
    with warnings.catch_warnings(action="ignore", category=pv.UnreliableEstimateWarning):  # its share is a column
        marginal = pv.log_marginal(model, guide, series.test, num_samples=settings.samples)
    filled = pv.impute(model, guide, series.with_gaps, level=LEVEL, num_samples=settings.samples)
    gaps, whole = series.with_gaps.isnan(), series.whole.double()
    inside = (filled.lower <= whole) & (whole <= filled.upper)
    return {
        "family": family,
        "seed": seed,
        "log_prob": marginal.mean,
        "elbo": pv.elbo_estimate(model, guide, series.test, num_samples=100).mean,
        "untrusted": marginal.unreliable.double().mean().item(),
        "rmse": (filled.mean - whole)[gaps].square().mean().sqrt().item(),
        "inside": inside[gaps].double().mean().item(),
        "seconds": seconds,
    }


def summary(runs: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds with their standard errors, a row a family."""
    rows = []
    for family, group in runs.groupby("family", sort=False):
        rows.append(
            {
                "family": family,
                "log p(x)": mean_and_error(group["log_prob"]),
                "ELBO": mean_and_error(group["elbo"]),
                "log p(x) − ELBO": mean_and_error(group["log_prob"] - group["elbo"]),
                "untrusted": f"{100 * group['untrusted'].mean():.1f} %",
                "RMSE in gaps": mean_and_error(group["rmse"], ".4f"),
                f"in {100 * LEVEL:.0f} % intervals": f"{100 * group['inside'].mean():.1f} %",
                "CPU seconds": f"{group['seconds'].mean():.0f}",
            }
        )
    return pd.DataFrame(rows)


def main(settings: Settings) -> None:
    """Train, measure, print the table."""
    series = SeriesData.of_images(settings) if settings.data is None else SeriesData.of_file(settings)
    begin, out = time.perf_counter(), page.run_folder(settings.out, "series")
    torch.set_num_threads(1)
    cells = [(family, seed) for family in settings.families for seed in range(settings.seeds)]
    runs = pd.DataFrame(
        [measured(series, family, seed, settings) for family, seed in progress_bar(cells, unit="training")]
    )
    write_table(out / "runs.csv", runs)
    gaps = f"a gap of {100 * settings.gap:.0f} % of the steps in each test series"
    if settings.data is None:
        gaps = f"{100 * settings.missing:.0f} % of the pixels missing at random, in training too"
    text = (
        f"{len(series.train)} training and {len(series.test)} test series of {series.num_steps} steps × "
        f"{series.train.shape[1] // series.num_steps}, {gaps}; {settings.channels} latents a step, {settings.epochs} "
        f"epochs. Nats per series; means ± standard errors over {settings.seeds} seeds. RMSE in standard deviations of "
        f"the data.\n\n{markdown_table(summary(runs))}\n\n{page.took(begin, 1)}"
    )
    page.show("series", series.name, text, {}, settings.publish)
    print(f"results: {out}")


if __name__ == "__main__":
    console.run(main, Settings)
