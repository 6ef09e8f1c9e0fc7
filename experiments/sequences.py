"""Latents in an order: what each family of posteriors loses, predicted and trained, and the GP-VAE's published one.

python -m experiments.sequences
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from pyro.distributions import MultivariateNormal, Normal, TorchDistribution
from torch import Tensor, nn
from torch.distributions import kl_divergence

import pyrovae as pv
from experiments import page
from experiments.options import Options, at_least
from experiments.summaries import mean_and_error
from pyrovae.commands import console
from pyrovae.comparison.tables import markdown_table
from pyrovae.distributions import CholeskyNormal
from pyrovae.errors import InputError
from pyrovae.exact import LinearGaussianStateSpace
from pyrovae.files import write_table
from pyrovae.nn import DilatedConvolutionEncoder, StepwiseLocHead, by_step, positive
from pyrovae.randomness import seeded

PREDICTED = ("isotropic", "diagonal", "ar1", "ar1-per-step")
"""Families whose loss is worked out."""
NOISES = (1.0, 0.3, 0.1)
"""σ of the audit."""
AUDITED = 24
"""Steps of the audit."""


@dataclass(frozen=True)
class Settings(Options):
    """Work out and train posteriors of AR(1) latents that are seen with noise, and audit the GP-VAE's posterior."""

    steps: tuple[int, ...] = at_least(2, (24, 100, 1000))
    """Lengths T of the series whose losses are worked out."""
    trained: tuple[int, ...] = at_least(2, (24, 100, 1000))
    """Lengths T of the series that guides are trained on."""
    correlation: float = 0.9
    """φ of neighbouring latents."""
    noise: float = 1.0
    """σ of x_t = z_t + noise."""
    seeds: int = 10
    """Number of trainings of each, with seeds 0, 1, …"""
    updates: int = 12000
    """Steps of a training, each with new series: 32, or fewer if they are long."""
    learning_rate: float = 1e-2
    """Where a cosine starts that ends at 0."""
    width: int = 16
    """Features a step."""
    timed: tuple[int, ...] = at_least(2, (100, 400, 1000, 4000))
    """Lengths T at which a training step is timed; full covariance up to 1,000."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.correlation < 1 or not 0 < self.noise < math.inf:
            raise InputError("--correlation must be between 0 and 1, --noise above 0")


class GPVAEPosterior(pv.Posterior):
    """The structured posterior of the released GP-VAE (Fortuin et al. 2020), written anew: a chain for each channel.

    A chain has the precision B Bᵀ. B = I + act(raw) is upper bidiagonal, and act, a softplus (a sigmoid for their
    clinical data), is positive. The heads are the same at every step.

    Args:
        in_features: width T·h of the features, ordered by step.
        latent_dim: T·k, ordered by step.
        channels: k.
        activation: ``"softplus"`` or ``"sigmoid"``.
    """

    def __init__(self, in_features: int, latent_dim: int, channels: int = 1, activation: str = "softplus") -> None:
        super().__init__(in_features, latent_dim)
        self.channels, self.activation, self.num_steps = channels, activation, latent_dim // channels
        self.loc_head = StepwiseLocHead(in_features, latent_dim, self.num_steps)
        self.covariance_head = nn.Linear(in_features // self.num_steps, 2 * channels)

    def forward(self, features: Tensor) -> TorchDistribution:
        """q(z|x) for features (*batch, T·h)."""
        raw = self.covariance_head(by_step(features, self.num_steps)).mT
        entries = raw.sigmoid() if self.activation == "sigmoid" else nn.functional.softplus(raw)
        diagonal, beside = entries.split(self.channels, dim=-2)
        factor = (1 + diagonal).diag_embed() + beside[..., 1:].diag_embed(1)
        every = (factor @ factor.mT).movedim(-3, -1).unsqueeze(-1) * torch.eye(self.channels).to(raw)  # (…, t, s, i, j)
        precision = every.transpose(-3, -2).flatten(-4, -3).flatten(-2, -1)
        return MultivariateNormal(self.loc_head(features), precision_matrix=precision)


def clipped_gap(precision: Tensor, most: float) -> float:
    """Nats that the best member of the GP-VAE's posterior loses where neighbours correlate positively.

    All its lag-one covariances are ≤ 0, and each raises its variances, too: the best member has none, and is diagonal
    with B_tt = √P_tt, which must be between 1 and 2 (sigmoid) or ∞ (softplus). A gap of ½[Σ_t P_tt/B_tt² + 2 log B_tt −
    T − log det P].

    Args:
        precision: P, tridiagonal, with no entry beside the diagonal above 0.
        most: the largest B_tt.
    """
    if (precision - precision.diagonal().diag()).max() > 0:
        raise InputError("neighbours correlate negatively: the best member is not diagonal")
    diagonal = precision.diagonal()
    b = diagonal.sqrt().clamp(1, most)
    terms = diagonal / b.square() + 2 * b.log() - 1
    return 0.5 * (terms.sum() - torch.logdet(precision)).item()


class StepwiseDiagonal(pv.Posterior):
    """Independent latents, k a step, by heads that are the same at every step."""

    def __init__(self, in_features: int, latent_dim: int, channels: int = 1) -> None:
        super().__init__(in_features, latent_dim)
        self.channels, self.num_steps = channels, latent_dim // channels
        self.loc_head = StepwiseLocHead(in_features, latent_dim, self.num_steps)
        self.covariance_head = nn.Linear(in_features // self.num_steps, channels)

    def forward(self, features: Tensor) -> TorchDistribution:
        """q(z|x) for features (*batch, T·h)."""
        scale = positive(self.covariance_head(by_step(features, self.num_steps)).flatten(-2))
        return Normal(self.loc_head(features), scale).to_event(1)


BATCH, VALUES = 32, 8000
"""Series of a training step, and their values together, at most."""
LARGEST_FULL = 1000
"""Longest series with a full covariance: a million numbers each."""
AR1_STEP, FULL_STEP = "AR(1) per step", "full covariance"
"""Columns of the timings."""
TRAINED = {"diagonal": StepwiseDiagonal, "ar1-per-step": pv.MarkovPosterior}
"""Families that are trained, by the name of what they are predicted to lose."""


def chain(num_steps: int, settings: Settings) -> LinearGaussianStateSpace:
    """The model whose log p(x) is known."""
    return LinearGaussianStateSpace(num_steps, settings.correlation, 1.0, settings.noise)


def pair(num_steps: int, family: str, settings: Settings) -> tuple[pv.GenerativeModel, pv.AmortizedGuide]:
    """The true model, which is not trained, and a guide with random weights."""
    likelihood = pv.GaussianLikelihood(num_steps, num_steps, scale=settings.noise, num_steps=num_steps)
    prior = pv.priors.AR1Prior(num_steps, settings.correlation)
    model = pv.GenerativeModel(nn.Identity(), likelihood, num_steps, prior=prior).requires_grad_(False)
    likelihood.loc_head.weight.fill_(1.0)
    likelihood.loc_head.bias.zero_()
    encoder = DilatedConvolutionEncoder(1, settings.width, num_steps, min(5, (num_steps - 1).bit_length()))
    return model, pv.AmortizedGuide(encoder, TRAINED[family](encoder.out_features, num_steps))


def predicted(settings: Settings) -> pd.DataFrame:
    """Nats above the truth of each family's best member, a row a length."""
    rows = []
    for num_steps in settings.steps:
        truth = chain(num_steps, settings)
        rows.append({"T": num_steps} | {family: max(0.0, truth.gap(family)) for family in PREDICTED})
    return pd.DataFrame(rows)


def trained(settings: Settings) -> pd.DataFrame:
    """Nats above the truth after training: KL(q(z|x) ‖ p(z|x)) of 500 test series, in closed form."""
    rows = []
    for num_steps in settings.trained:
        truth, batch = chain(num_steps, settings), min(BATCH, max(1, VALUES // num_steps))
        with seeded(0):
            x, test = truth.sample(settings.updates * batch).float(), truth.sample(500)
        for family in TRAINED:
            start = time.process_time()
            replicas = pv.fit(
                *pair(num_steps, family, settings),
                x,
                pv.AnalyticELBO(),
                epochs=1,
                batch_size=batch,
                learning_rate=settings.learning_rate,
                schedule="cosine",
                num_replicas=settings.seeds,
                progress=False,
            )
            seconds = (time.process_time() - start) / settings.seeds
            for replica in replicas:
                with torch.no_grad():
                    assert isinstance(replica.guide, pv.AmortizedGuide)
                    q = replica.guide.double().posterior(test)
                    nats = kl_divergence(q, truth.posterior(test)).mean().item()
                row = {"T": num_steps, "family": family, "seed": replica.seed, "nats above the truth": nats}
                rows.append(row | {"predicted": max(0.0, truth.gap(family)), "CPU seconds": seconds})
    runs = pd.DataFrame(rows)
    return runs.assign(beyond=runs["nats above the truth"] - runs["predicted"])


def trained_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds with their standard errors, and the worst seed."""
    rows = []
    for (num_steps, family), group in runs.groupby(["T", "family"], sort=False):
        rows.append(
            {
                "T": num_steps,
                "family": family,
                "seeds": len(group),
                "nats above the truth": mean_and_error(group["nats above the truth"], ".4f"),
                "predicted": f"{group['predicted'].iloc[0]:.4f}",
                "largest difference": f"{group['beyond'].max():.4f}",
                "CPU seconds": f"{group['CPU seconds'].mean():.0f}",
            }
        )
    return pd.DataFrame(rows)


def timings(settings: Settings) -> tuple[pd.DataFrame, dict[str, float]]:
    """CPU milliseconds of a training step by T, the least of ten, and the exponents of T by least squares.

    A full covariance is timed without a network, which would have T²/2 outputs: its draw, its KL and their gradients.
    """
    rows = []
    for num_steps in settings.timed:
        model, guide = pair(num_steps, "ar1-per-step", settings)
        x, elbo = torch.randn(8, num_steps), pv.AnalyticELBO()
        row = {"T": num_steps, AR1_STEP: least_time(lambda: elbo.loss_and_grads(model, guide, x))}  # noqa: B023
        if num_steps <= LARGEST_FULL:
            factor = torch.eye(num_steps).expand(8, -1, -1).clone().requires_grad_()
            prior = pv.priors.AR1Prior(num_steps, settings.correlation)()
            row[FULL_STEP] = least_time(lambda: full_step(x, factor, prior, settings.noise))  # noqa: B023
        rows.append(row)
    table = pd.DataFrame(rows)
    exponents = {}
    for name in table.columns[1:]:
        of_t, of_time = np.log(table[["T", name]].dropna().to_numpy(dtype=float)).T
        if len(of_t) > 1:
            exponents[name] = np.polyfit(of_t, of_time, 1)[0]
    return table, exponents


def full_step(x: Tensor, factor: Tensor, prior: TorchDistribution, noise: float) -> None:
    """The gradient of the ELBO of series (num, T) in the factors L (num, T, T) of their posteriors N(x, L Lᵀ)."""
    q = CholeskyNormal(x, factor)
    loss = kl_divergence(q, prior) + 0.5 * ((x - q.rsample()) / noise).square().sum(-1)
    torch.autograd.grad(loss.sum(), factor)


def least_time(step: Callable[[], object]) -> float:
    """CPU milliseconds of the fastest of ten steps."""
    times = []
    for _ in range(12):
        start = time.process_time()
        step()
        times.append(1000 * (time.process_time() - start))
    return min(times[2:])


def audit(settings: Settings) -> pd.DataFrame:
    """The best member of the GP-VAE's posterior, in closed form, beside what others lose."""
    rows = []
    for noise in NOISES:
        truth = LinearGaussianStateSpace(AUDITED, settings.correlation, 1.0, noise)
        rows.append(
            {
                "σ": noise,
                "GP-VAE, sigmoid": clipped_gap(truth.precision, 2.0),
                "GP-VAE, softplus": clipped_gap(truth.precision, math.inf),
                "diagonal": truth.gap("diagonal"),
                "AR(1) per step": abs(truth.gap("ar1-per-step")),
            }
        )
    return pd.DataFrame(rows)


def main(settings: Settings) -> None:
    """Run the study; print its tables and write them."""
    out, start = page.run_folder(settings.out, "sequences"), time.perf_counter()
    losses, audited = predicted(settings), audit(settings)
    times, exponents = timings(settings)
    runs = trained(settings)
    for name, table in (("predicted", losses), ("audit", audited), ("trained", runs), ("timings", times)):
        write_table(out / f"{name}.csv", table)
    model = f"z is a stationary AR(1), φ = {settings.correlation:g}; x_t = z_t + noise, σ = {settings.noise:g}."
    powers = ", ".join(f"{name} {value:.2f}" for name, value in exponents.items())
    sections = {
        "Predicted": f"{model} Nats per series between log p(x) and the best ELBO of each family, worked out.\n\n"
        + markdown_table(losses.round(4)),
        f"Trained at T = {', '.join(map(str, settings.trained))}": (
            "The model is the truth, and only the guide is trained. Mean ± standard error over seeds; 500 test series."
            f"\n\n{markdown_table(trained_table(runs))}"
        ),
        "Cost": "CPU milliseconds of a training step, batch 8: `MarkovPosterior` with its network, and a full "
        "covariance without one."
        + (f" Exponents of T: {powers}." if powers else "")
        + f"\n\n{markdown_table(times.round(1).astype({'T': str}))}",
        "Audit of the GP-VAE": AUDIT.format(steps=AUDITED, phi=settings.correlation) + markdown_table(audited.round(4)),
    }
    for section, text in sections.items():
        page.show("sequences", section, text, {}, settings.publish)
    print(f"{page.took(start, 1)}\nresults: {out}")


AUDIT = """The released code of the GP-VAE (Fortuin et al. 2020, `lib/models.py`) gives q(z|x) the precision B Bᵀ, where
B = I + act(raw) has entries on the diagonal and above it. act is a softplus, and a sigmoid for the clinical data. All
entries of act(raw) are positive. So

- every covariance of neighbours is negative or 0: the wrong sign for a smooth series,
- with the sigmoid B_tt < 2: every standard deviation is above ½.

The best member for a smooth series is therefore diagonal. Nats above the truth at T = {steps}, φ = {phi:g}:

"""


if __name__ == "__main__":
    console.run(main, Settings)
