"""What structure costs: the forum post's step against a vectorised one, correlated noise against independent noise.

python -m experiments.benchmarks.spectra
"""

import statistics
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, Normal, kl_divergence

import pyrovae as pv
from experiments import page
from experiments.benchmarks.estimators import make_pair, training_step
from experiments.benchmarks.timing import Step, interleaved, median_ratio
from experiments.options import Options, at_least, choice
from pyrovae.commands import console
from pyrovae.comparison.tables import markdown_table
from pyrovae.distributions import fill_scale_tril, tril_position
from pyrovae.files import make_folder, write_table
from pyrovae.training import ENGINES, Trainer, TrainingSettings

HIDDEN = 128
STEPS_AT_ONCE = 10
"""Steps of ``fit`` that are timed together: it works epoch by epoch."""


@dataclass(frozen=True)
class Settings(Options):
    """Time training steps on spectra, one thread."""

    out: Path = Path("runs/benchmark-spectra")
    """Folder for the table."""

    batch_size: int = 128
    """Spectra per step."""
    latent_dim: int = at_least(2, 64)
    """Dimension of z in the comparison with the forum post's code."""
    channels: int = 235
    """Channels in that comparison, and with full covariances."""
    many_channels: int = 1024
    """Channels with AR(1) noise."""
    repeats: int = 100
    """Interleaved steps of each; a fifth as many for the forum post's code."""
    engine: str = choice("compiled", ENGINES)
    """pyrovae's engine in that comparison: auto, eager or compiled."""


def step_of(posterior: str, likelihood: str, d: int, x: Tensor) -> Step:
    """One step as ``fit`` takes it with the KL in closed form."""
    return training_step(posterior, pv.AnalyticELBO(), (HIDDEN,), d, x, likelihood)


def fitted_steps(posterior: str, likelihood: str, d: int, x: Tensor, engine: str) -> Step:
    """As many steps of ``fit`` as :data:`STEPS_AT_ONCE`."""
    pair = make_pair(posterior, likelihood, (HIDDEN,), d, x.shape[-1])
    many = x.repeat(10 * STEPS_AT_ONCE, 1)
    settings = TrainingSettings(epochs=10**6, batch_size=len(x), engine=engine)
    trainer = Trainer([pair], many, pv.AnalyticELBO(), settings, progress=False)
    return partial(trainer.run, max_steps=STEPS_AT_ONCE)


def fill_by_datum(raw: Tensor, d: int) -> Tensor:
    """Cholesky factors (num, d, d) of raw (num, d(d + 1)/2), one datum after the other, their diagonals 1 + ELU."""
    below, diagonal = np.tril_indices(d, -1), np.diag_indices(d)
    factors = torch.zeros(len(raw), d, d)
    for i, numbers in enumerate(raw):
        factors[i][below] = numbers[:-d]
        factors[i][diagonal] = 1 + F.elu(numbers[-d:])
    return factors


def fill_at_once(raw: Tensor, d: int, position: Tensor) -> Tensor:
    """The same factors by one gather."""
    return fill_scale_tril(1 + F.elu(raw[:, -d:]), raw[:, :-d], position)


def forum_step(d: int, x: Tensor, multivariate: bool, by_datum: bool = True) -> Step:
    """A step of the forum post's VAE, by its description.

    Factors filled datum by datum, torch's MultivariateNormal for q and p(z), the KL in closed form, and for p(x|z)
    a MultivariateNormal with an identity covariance for every datum, or a univariate Normal.
    """
    num, n = x.shape
    encoder, heads = pv.nn.MLP(n, HIDDEN), nn.ModuleList([nn.Linear(HIDDEN, d), nn.Linear(HIDDEN, d * (d + 1) // 2)])
    decoder = nn.Sequential(pv.nn.MLP(d, HIDDEN), nn.Linear(HIDDEN, n))
    optimizer = torch.optim.Adam([*encoder.parameters(), *heads.parameters(), *decoder.parameters()])
    position = tril_position(d)

    def step() -> None:
        features = encoder(x)
        loc, raw = (head(features) for head in heads)
        q = MultivariateNormal(loc, scale_tril=fill_by_datum(raw, d) if by_datum else fill_at_once(raw, d, position))
        p = MultivariateNormal(torch.zeros_like(loc), covariance_matrix=torch.eye(d).repeat(num, 1, 1))
        x_hat = decoder(q.rsample())
        (kl_divergence(q, p) - identity_log_prob(x_hat, x, multivariate)).mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def identity_log_prob(x_hat: Tensor, x: Tensor, multivariate: bool) -> Tensor:
    """Log N(x; x̂, I) of each datum: as a multivariate Normal with an identity covariance each, or a univariate one."""
    if multivariate:
        eye = torch.eye(x.shape[-1], dtype=x.dtype).repeat(len(x), 1, 1)
        return MultivariateNormal(x_hat, covariance_matrix=eye).log_prob(x)
    return Normal(x_hat, 1.0).log_prob(x).sum(-1)


def density_step(x: Tensor, multivariate: bool) -> Step:
    """Log-density and its gradient alone."""
    x_hat = torch.randn_like(x, requires_grad=True)

    def step() -> None:
        identity_log_prob(x_hat, x, multivariate).sum().backward()
        x_hat.grad = None

    return step


def fill_step(num: int, d: int, by_datum: bool) -> Step:
    """The fill of the factors and its gradient alone."""
    raw = torch.randn(num, d * (d + 1) // 2, requires_grad=True)
    position = tril_position(d)

    def step() -> None:
        (fill_by_datum(raw, d) if by_datum else fill_at_once(raw, d, position)).sum().backward()
        raw.grad = None

    return step


def measure(settings: Settings) -> pd.DataFrame:
    """One row a comparison, with the bar that it must meet."""
    x = torch.randn(settings.batch_size, settings.channels)
    many = torch.randn(settings.batch_size, settings.many_channels)
    few = max(3, settings.repeats // 5)
    d, n, wide = settings.latent_dim, settings.channels, settings.many_channels
    ours = f"pyrovae, {settings.engine} engine ({STEPS_AT_ONCE} steps)"
    comparisons = [
        (
            f"full-covariance posterior, d = {d}",
            {
                "the forum post's step": forum_step(d, x, True),
                "the same, univariate p(x|z)": forum_step(d, x, False),
                "the same, and filled at once": forum_step(d, x, False, by_datum=False),
                f"pyrovae, eager ({STEPS_AT_ONCE} steps)": fitted_steps("full-covariance", "gaussian", d, x, "eager"),
                ours: fitted_steps("full-covariance", "gaussian", d, x, settings.engine),
            },
            ours,
            few,
            {"the forum post's step": "≥ 40"},
        ),
        (
            f"AR(1) noise, n = {wide}",
            {name: step_of("diagonal", name, 8, many) for name in ("gaussian", "ar1", "ar1-per-dimension")},
            "gaussian",
            settings.repeats,
            {"ar1": "≤ 1.5"},
        ),
        (
            f"noise of any covariance, n = {n}",
            {name: step_of("diagonal", name, 8, x) for name in ("gaussian", "low-rank", "full-covariance")},
            "gaussian",
            settings.repeats,
            {"full-covariance": "≤ 3"},
        ),
    ]
    rows = []
    for title, steps, reference, repeats, bars in comparisons:
        times = interleaved(steps, repeats, title)
        for name in times:
            if name.endswith(f"({STEPS_AT_ONCE} steps)"):
                times[name] = [seconds / STEPS_AT_ONCE for seconds in times[name]]
        rows += [
            {
                "comparison": title,
                "step": name,
                "milliseconds": 1e3 * statistics.median(values),
                "ratio": median_ratio(values, times[reference]),
                "bar": bars.get(name, ""),
            }
            for name, values in times.items()
        ]
    return pd.DataFrame(rows)


def main(settings: Settings) -> None:
    """Measure, print and write the table."""
    torch.set_num_threads(1)
    make_folder(settings.out)
    table = measure(settings)
    write_table(settings.out / "spectra.csv", table)
    text = (
        f"One thread, float32, B = {settings.batch_size}: loss, gradients and Adam; ratios to pyrovae's step, or to "
        f"independent noise, are medians of interleaved steps.\n\n{markdown_table(table)}"
    )
    page.show("benchmarks.spectra", "A step on spectra", text, {}, settings.publish)
    print(f"results: {settings.out}")


if __name__ == "__main__":
    console.run(main, Settings)
