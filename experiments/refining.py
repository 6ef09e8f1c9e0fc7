"""What encoders lose of the ELBO and of log p(x), and what posteriors refined datum by datum recover.

python -m experiments.refining --spectra fruit_puree_mir.csv
python -m experiments.refining --spectra fruit_puree_mir.csv --out FOLDER   # again, to resume an interrupted run
"""

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

import pyrovae as pv
from experiments import image_likelihood, page
from experiments.options import Options, at_least, choice
from pyrovae.commands import console
from pyrovae.comparison.tables import markdown_table
from pyrovae.datasets import Standardize, read_spectra, split_spectra
from pyrovae.datasets.images import IMAGES
from pyrovae.distributions import covariance_of, mean_of
from pyrovae.errors import InputError
from pyrovae.evaluation import PerDatumGuide
from pyrovae.files import make_folder, write_table
from pyrovae.randomness import seeded

Pair = tuple[pv.GenerativeModel, pv.AmortizedGuide, Tensor]
"""A trained pair, and test data."""
T = TypeVar("T")
SETS = ("mnist", "digits", "spectra")
MORE = 10
"""Times as many draws for refitted proposals, which are to be right."""
PRIOR_DRAWS, CLIMBS, CLIMB_STEPS = 2000, 40, 500
"""The second start of a refit: the highest mode that so many climbs find, each from the likeliest of so many draws."""
SMALL = 0.1
"""Standard deviations of that start."""
CLEAR = 0.1
"""Nats by which a start must be better to count."""


@dataclass(frozen=True)
class Settings(Options):
    """Train VAEs, refine their posteriors, and refit them by gradient as a yardstick."""

    sets: tuple[str, ...] = choice(SETS, SETS)
    """mnist (binary, d = 50), digits (grey, d = 8), spectra (d = 6, noise per channel)."""
    spectra: Path | None = None
    """File of the spectra."""
    epochs: int | None = None
    """Passes over the training data; by default 100, 300 and 400."""
    num_test: int | None = None
    """Test data; by default 200, 200 and 60."""
    samples: int = 500
    """Draws of z per datum."""
    steps: int = 1000
    """Steps of the refit by gradient, at most; 1,000 more are averaged."""
    encoder_seeds: int = at_least(0, 0)
    """Seeds of spectra's VAEs whose encoders are trained again by pv.refit_encoder; 0 leaves that out."""
    out: Path | None = None
    """Folder for the results, new or of an interrupted run to resume; by default a new one under runs/."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if "spectra" in self.sets and self.spectra is None:
            raise InputError("--spectra FILE is missing; give it, or leave spectra out of --sets")
        if self.encoder_seeds and "spectra" not in self.sets:
            raise InputError("--encoder-seeds is for spectra; add spectra to --sets, or leave it out")


def mnist(settings: Settings, out: Path) -> Pair:
    """The diagonal posterior of image_likelihood, trained as there."""
    s = image_likelihood.Settings(epochs=settings.epochs or 100, workers=1)
    run = image_likelihood.Run(s, out, "diagonal", 1, 0)
    images = IMAGES[s.dataset](s.binarization)
    model, guide, _ = run.trained(images)
    return model, guide, images.test[: settings.num_test or 200]


def digits(settings: Settings, out: Path) -> Pair:
    """Grey digits with Gaussian noise of one size, in the networks of the study of the truth."""
    images = IMAGES["digits"](None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = pv.GenerativeModel(pv.nn.MLP(8, 128, 128), pv.GaussianLikelihood(128, 64), 8)
        guide = pv.AmortizedGuide(pv.nn.MLP(64, 128, 128), pv.DiagonalPosterior(128, 8))
    return _trained(model, guide, images.train, images.test[: settings.num_test or 200], settings.epochs or 300, out)


def standardised(settings: Settings) -> tuple[Tensor, Tensor, Tensor]:
    """Spectra to train, validate and test with; the split keeps replicates together."""
    assert settings.spectra is not None
    train, validation, test = (part.x for part in split_spectra(read_spectra(settings.spectra)).parts)
    step = Standardize("channel").fit(train)
    return step.transform(train), step.transform(validation), step.transform(test)[: settings.num_test or 60]


def spectra(settings: Settings, out: Path, seed: int = 0) -> Pair:
    """Standardised spectra with noise per channel."""
    train, _, test = standardised(settings)
    n = train.shape[1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        likelihood = pv.likelihoods.LIKELIHOODS["gaussian-per-dimension"](64, n, initial_scale=0.25)
        model = pv.GenerativeModel(pv.nn.MLP(6, 64, 64), likelihood, 6)
        guide = pv.AmortizedGuide(pv.nn.MLP(n, 64, 64), pv.DiagonalPosterior(64, 6))
    return _trained(model, guide, train, test, settings.epochs or 400, out, seed)


TRAININGS: dict[str, Callable[[Settings, Path], Pair]] = {"mnist": mnist, "digits": digits, "spectra": spectra}


def _trained(
    model: pv.GenerativeModel,
    guide: pv.AmortizedGuide,
    train: Tensor,
    test: Tensor,
    epochs: int,
    out: Path,
    seed: int = 0,
) -> Pair:
    pv.fit(model, guide, train, pv.AnalyticELBO(), epochs=epochs, seed=seed, progress=False, checkpoint=out)
    return model, guide, test


def row(name: str, pair: Pair, settings: Settings) -> dict[str, Any]:
    """ELBOs, log p(x) and CPU seconds of one set."""
    model, guide, x = pair
    refined, refining = timed(lambda: pv.refine(model, guide, x))
    refitted, seconds = zip(
        *(timed(partial(refit, pair, start, settings.steps)) for start in starts(pair)), strict=True
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pv.UnreliableEstimateWarning)  # its share is a column
        encoders = pv.log_marginal(model, guide, x, "importance", num_samples=settings.samples)
        found, scoring = timed(lambda: pv.log_marginal(model, guide, x, num_samples=settings.samples))
        yardsticks = [pv.log_marginal(model, q, x, "importance", num_samples=MORE * settings.samples) for q in refitted]
    elbos = [pv.elbo_terms(model, q, x, num_samples=256).elbo for q in refitted]
    values, best = torch.stack([found.per_datum for found in yardsticks]).max(0)
    bad = torch.stack([found.unreliable for found in yardsticks]).gather(0, best.unsqueeze(0))
    return {
        "set": name,
        "d": model.latent_dim,
        "test data": len(x),
        "ELBO": refined.guide_elbo.mean,
        "ELBO refined": refined.elbo.mean,
        "ELBO refitted": torch.stack(elbos).amax(0).mean().item(),
        "refining, CPU s": refining,
        "refitting, CPU s": seconds[0],
        "log p(x) by the encoder": encoders.mean,
        "bad k̂": encoders.unreliable.double().mean().item(),
        "log p(x)": found.mean,
        "untrusted": found.unreliable.double().mean().item(),
        "log p(x), CPU s": scoring,
        "log p(x) by refitted q": values.mean().item(),
        "its bad k̂": bad.double().mean().item(),
        "second start better": (values - yardsticks[0].per_datum > CLEAR).double().mean().item(),
    }


def refit(pair: Pair, start: MultivariateNormal, steps: int) -> PerDatumGuide:
    """Full-covariance Gaussians fitted by gradient, datum by datum."""
    model, guide, x = pair
    return pv.refit(model, guide, x, pv.FullCovariancePosterior, max_steps=steps, start=start)[0]


def starts(pair: Pair) -> tuple[MultivariateNormal, MultivariateNormal]:
    """Where refits start: near the encoder's q, and at the highest mode found from draws from the prior."""
    model, guide, x = pair
    with torch.no_grad():
        q = guide.posterior(x)
        near_encoder = MultivariateNormal(mean_of(q), covariance_of(q))
    small = SMALL * torch.eye(model.latent_dim).expand(len(x), -1, -1)
    return near_encoder, MultivariateNormal(highest_modes(model, x), scale_tril=small)


def highest_modes(model: pv.GenerativeModel, x: Tensor) -> Tensor:
    """The highest mode of p(x, z) that gradient ascent finds for each datum, from the likeliest draws of the prior."""
    prior = model.prior_distribution()

    def log_joint(z: Tensor) -> Tensor:
        return model.conditional(z).log_prob(x) + prior.log_prob(z)

    with torch.no_grad(), seeded(0):
        likeliest = []
        for _ in range(CLIMBS):
            z = prior.sample(torch.Size([PRIOR_DRAWS]))
            conditional, log_prior = model.conditional(z), prior.log_prob(z)
            likeliest.append(torch.stack([z[(conditional.log_prob(one) + log_prior).argmax()] for one in x]))
    z = torch.stack(likeliest).requires_grad_()
    climb = torch.optim.Adam([z], lr=0.05)
    for _ in range(CLIMB_STEPS):
        (z.grad,) = torch.autograd.grad(-log_joint(z).sum(), [z])
        climb.step()
    with torch.no_grad():
        best = log_joint(z).argmax(0)
    return z.detach()[best, torch.arange(len(x))]


def encoder_row(settings: Settings, out: Path, seed: int) -> dict[str, float]:
    """Test ELBOs of one VAE of the spectra: of its encoder, of that trained again, and of refined posteriors."""
    model, guide, test = spectra(settings, make_folder(out / f"encoder-seed{seed}"), seed)
    train, validation, _ = standardised(settings)
    found, seconds = timed(
        lambda: pv.refit_encoder(model, guide, train, validation=validation, seed=seed, progress=False)
    )
    encoders = {"ELBO": guide, "ELBO, encoder refitted": found.guide}
    elbos = {name: pv.elbo_terms(model, q, test, num_samples=256).elbo.mean().item() for name, q in encoders.items()}
    refined = pv.refine(model, guide, test).elbo.mean
    return {"seed": seed, **elbos, "ELBO refined": refined, "refitting the encoder, CPU s": seconds}


def encoder_table(rows: pd.DataFrame) -> str:
    """A row a seed, and their mean."""
    shown = pd.concat([rows, rows.mean().to_frame().T]).map("{:.1f}".format)
    shown["seed"] = [*map(str, rows["seed"].astype(int)), "mean"]
    return markdown_table(shown)


def timed(function: Callable[[], T]) -> tuple[T, float]:
    """A function's result, and the processor's seconds that it took."""
    start = time.process_time()
    return function(), time.process_time() - start


def table(rows: pd.DataFrame) -> str:
    """A row a set; what refining loses beside the refit, and what the encoder loses, last."""
    shown = rows.copy()
    shown["lost by the encoder"] = shown["ELBO refined"] - shown["ELBO"]
    shown["refined less refitted"] = shown["ELBO refined"] - shown["ELBO refitted"]
    for column in map(str, shown.columns):
        if "k̂" in column or column in ("untrusted", "second start better"):
            shown[column] = shown[column].map("{:.1%}".format)
        elif "CPU s" in column:
            shown[column] = shown[column].map("{:.1f}".format)
        elif column not in ("set", "d", "test data"):
            shown[column] = shown[column].map("{:.2f}".format)
    shown = shown.set_index("set").T.rename_axis(None).reset_index(names="nats per datum")
    return markdown_table(shown)


def main(settings: Settings) -> None:
    """Train and measure each set; print the table and write it."""
    out = page.run_folder(settings.out, "refining", resumable=True)
    torch.set_num_threads(1)
    rows = pd.DataFrame(
        [row(name, TRAININGS[name](settings, make_folder(out / name)), settings) for name in settings.sets]
    )
    write_table(out / "refining.csv", rows)
    text = (
        f"{settings.samples} draws of z per datum; {MORE} times as many from the refitted q. Refits start near the "
        f"encoder's q, and at the highest mode that {CLIMBS} climbs find, each from the likeliest of {PRIOR_DRAWS:,} "
        "draws from the prior. The better start counts for each datum; the second is called better if it has "
        f"{CLEAR} nats more. CPU seconds are those of one refit.\n\n{table(rows)}"
    )
    page.show("refining", ", ".join(settings.sets), text, {}, settings.publish)
    if settings.encoder_seeds:
        encoders = pd.DataFrame([encoder_row(settings, out, seed) for seed in range(settings.encoder_seeds)])
        write_table(out / "encoders.csv", encoders)
        text = f"ELBOs of test spectra in nats per datum, one VAE a seed.\n\n{encoder_table(encoders)}"
        page.show("refining", "spectra, the encoder trained again", text, {}, settings.publish)
    print(f"results: {out}")


if __name__ == "__main__":
    console.run(main, Settings)
