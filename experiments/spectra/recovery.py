"""Simulated spectra whose truth is known: is the noise recovered, and does AR(1) noise gain what it must?"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

import pyrovae as pv
from experiments.pool import in_processes
from experiments.spectra.settings import Settings
from pyrovae import plotting
from pyrovae.comparison.tables import markdown_table
from pyrovae.datasets import SimulatedSpectra, SpectraTruth, Standardize, simulated
from pyrovae.likelihoods import LIKELIHOODS, AR1GaussianLikelihood
from pyrovae.linear_gaussian.exact import LinearGaussianVAE

CHANNELS, CORRELATION, NOISE_SCALE = 60, 0.9, 0.01
DIMS = (3, 5, 10, 20)
NOISES = ("gaussian", "ar1")
NUM_TRAIN, NUM_TEST = 3000, 3000
Rates = dict[tuple[str, int], float]
"""The best learning rate by likelihood and number of latent dimensions."""


def spectra(seed: int, num: int) -> SimulatedSpectra:
    """Mixtures of three substances, linear and Gaussian: log p(x) is known, and has three latent dimensions."""
    return simulated(
        num,
        CHANNELS,
        baseline_degree=None,
        correlation=CORRELATION,
        noise_scale=NOISE_SCALE,
        linear=True,
        seed=seed,
    )


@dataclass(frozen=True)
class LinearFit:
    """A trained VAE of linear networks: log p(x) is that of a Gaussian, known exactly, in the data's own units."""

    marginal: MultivariateNormal
    noise_scale: float
    correlation: float
    seconds: float


def fit_linear(
    train: Tensor,
    likelihood: str,
    latent_dim: int,
    epochs: int,
    seed: int,
    learning_rate: float = 5e-3,
    engine: str = "auto",
) -> LinearFit:
    """Train a linear encoder and decoder with a full-covariance posterior, which can be the exact one.

    They start as probabilistic PCA, which is the independent likelihood's own optimum; the encoder reads whitened
    channels, since neighbours that correlate at 0.99 would make it slow to train.
    """
    train = train.double()
    step = Standardize("mean").fit(train)
    y = step.transform(train)
    start = LinearGaussianVAE.fit(y, latent_dim)
    values, axes = torch.linalg.eigh(torch.cov(y.T))
    whiten = nn.Linear(len(values), len(values), bias=False, dtype=torch.float64).requires_grad_(False)
    whiten.weight.copy_((axes / values.sqrt()).T)
    head = start.gaussian_guide(start.gain @ axes * values.sqrt(), start.covariance).posterior_head
    head.get_submodule("covariance_head").get_parameter("weight").requires_grad_(False)  # 0, as it is for linear models
    guide = pv.AmortizedGuide(whiten, head)
    noise: Any = LIKELIHOODS[likelihood](latent_dim, len(values), initial_scale=start.noise_scale).double()
    model = pv.GenerativeModel(nn.Identity(), noise, latent_dim).double()
    with torch.no_grad():
        noise.loc_head.weight.copy_(start.loadings)
        noise.loc_head.bias.copy_(start.offset)
    history = pv.fit(
        model,
        guide,
        y,
        pv.StickingTheLandingELBO(),
        epochs=epochs,
        batch_size=100,
        learning_rate=learning_rate,
        seed=seed,
        engine=engine,
        progress=False,
    )
    with torch.no_grad():
        covariance = noise.noise_covariance()
        loadings, offset = noise.loc_head.weight, noise.loc_head.bias
        scale = torch.tensor(step.scale, dtype=torch.float64)
        total = scale.unsqueeze(-1) * (loadings @ loadings.T + covariance) * scale
        marginal = MultivariateNormal(step.inverse(offset.unsqueeze(0))[0], total)
        sigma = (scale * covariance.diagonal().sqrt()).square().mean().sqrt().item()
        rho = noise.noise_correlation.item() if isinstance(noise, AR1GaussianLikelihood) else 0.0
    return LinearFit(marginal, sigma, rho, history.seconds)


def standard_errors(truth: SpectraTruth, num: int) -> tuple[float, float]:
    """Cramér–Rao bounds of σ and ρ from ``num`` linear spectra, loadings and offset unknown too.

    The information of a Gaussian's covariance S about parameters a, b is num/2 tr(S⁻¹ ∂_a S S⁻¹ ∂_b S); turning the
    latent space leaves S as it is, so that the matrix is inverted on its range.
    """
    n, d = truth.loadings.shape
    precision = torch.linalg.inv(truth.covariance_matrix)
    sigma, rho = truth.noise_scale.double().mean().item(), truth.correlation
    lag = (torch.arange(n).unsqueeze(0) - torch.arange(n).unsqueeze(1)).abs().double()
    of_sigma = 2 * sigma * rho**lag
    of_rho = sigma**2 * lag * rho ** (lag - 1).clamp_min(0)
    derivatives = []
    for i in range(n):
        for j in range(d):
            change = torch.zeros(n, n, dtype=torch.float64)
            change[i] = truth.loadings[:, j]
            derivatives.append(change + change.T)
    whitened = torch.stack([precision @ change for change in [*derivatives, of_sigma, of_rho]])
    information = 0.5 * num * torch.einsum("aij,bji->ab", whitened, whitened)
    units = information.diagonal().sqrt()
    bounds = (
        torch.linalg.pinv(information / units / units.unsqueeze(-1), rtol=1e-10, hermitian=True).diagonal() / units**2
    )
    return math.sqrt(bounds[-2]), math.sqrt(bounds[-1])


def try_rate(likelihood: str, latent_dim: int, epochs: int, learning_rate: float, engine: str) -> dict[str, Any]:
    """One learning rate on the first simulated set, judged by spectra that nothing else uses."""
    data = spectra(0, NUM_TRAIN)
    held_out = data.truth.sample(NUM_TEST, seed=10**6).x.double()
    fitted = fit_linear(data.x, likelihood, latent_dim, epochs, 0, learning_rate, engine)
    score = fitted.marginal.log_prob(held_out).mean().item()
    row = {"likelihood": likelihood, "latent_dim": latent_dim, "epochs": epochs, "learning_rate": learning_rate}
    return row | {"validation": score}


def recover(seed: int, epochs: int, rates: Rates, engine: str) -> dict[str, float]:
    """The noise of one simulated set, by AR(1) noise with the true number of latent dimensions."""
    data = spectra(seed, NUM_TRAIN)
    d = data.truth.latent_dim
    fitted = fit_linear(data.x, "ar1", d, epochs, seed, rates["ar1", d], engine)
    of_sigma, of_rho = standard_errors(data.truth, NUM_TRAIN)
    return {
        "seed": seed,
        "sigma": fitted.noise_scale,
        "sigma_stderr": of_sigma,
        "sigma_z": (fitted.noise_scale - NOISE_SCALE) / of_sigma,
        "rho": fitted.correlation,
        "rho_stderr": of_rho,
        "rho_z": (fitted.correlation - CORRELATION) / of_rho,
        "seconds": fitted.seconds,
    }


def measure_gain(seed: int, d: int, epochs: int, rates: Rates, engine: str) -> dict[str, float]:
    """AR(1) noise against independent noise at one number of latent dimensions, on held-out spectra."""
    data = spectra(seed, NUM_TRAIN + NUM_TEST)
    train, test = data.x.double().split([NUM_TRAIN, NUM_TEST])
    truth = data.truth
    entropy = MultivariateNormal(truth.offset, truth.covariance_matrix).entropy().item()
    linear = LinearGaussianVAE.from_moments(truth.offset, truth.covariance_matrix, d)
    implied = -entropy - linear.expected_log_prob(truth.offset, truth.covariance_matrix)
    ppca = LinearGaussianVAE.fit(train, d).log_prob(test)
    found = {k: fit_linear(train, k, d, epochs, seed, rates[k, d], engine) for k in NOISES}
    log_prob = {name: fitted.marginal.log_prob(test) for name, fitted in found.items()}
    gain = log_prob["ar1"] - log_prob["gaussian"]
    return {
        "d": d,
        "seed": seed,
        "implied": implied,
        "implied_here": (truth.log_prob(test) - ppca).mean().item(),
        "gain": gain.mean().item(),
        "gain_stderr": (gain.std() / math.sqrt(len(gain))).item(),
        "gaussian_below_ppca": (ppca - log_prob["gaussian"]).mean().item(),
        "ar1_below_truth": (truth.log_prob(test) - log_prob["ar1"]).mean().item(),
        "rho": found["ar1"].correlation,
        "sigma": found["ar1"].noise_scale,
    }


def study(settings: Settings) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """One row a learning rate that was tried, one a set, and one a set and number of latent dimensions."""
    epochs, rates, engine = settings.recovery_epochs, settings.recovery_rates, settings.engine
    jobs = [partial(try_rate, k, d, epochs, rate, engine) for d in DIMS for k in NOISES for rate in rates]
    tried = pd.DataFrame(in_processes(jobs, settings.workers, "learning rates"))
    best = tried.loc[tried.groupby(["likelihood", "latent_dim"])["validation"].idxmax()]
    chosen = dict(zip(zip(best["likelihood"], best["latent_dim"], strict=True), best["learning_rate"], strict=True))
    recovered = [partial(recover, seed, epochs, chosen, engine) for seed in range(settings.data_sets)]
    seeds = range(max(1, settings.data_sets // 5))
    gains = [partial(measure_gain, seed, d, epochs, chosen, engine) for d in DIMS for seed in seeds]
    noise = pd.DataFrame(in_processes(recovered, settings.workers, "noise recovered"))
    return tried, noise, pd.DataFrame(in_processes(gains, settings.workers, "gain of AR(1) noise"))


def table(tried: pd.DataFrame, noise: pd.DataFrame, gains: pd.DataFrame) -> str:
    """All three tables to read."""
    by_rate = tried.pivot(index=["likelihood", "latent_dim"], columns="learning_rate", values="validation")
    largest = by_rate.max(axis=1)
    of_rates = by_rate.sub(largest, axis=0).map("{:+.2f}".format).rename(columns="rate {:g}".format)
    of_rates.insert(0, "best log p of held-out spectra", largest.map("{:.2f}".format))
    of_rates = of_rates.reset_index().rename(columns={"likelihood": "noise", "latent_dim": "d"})
    rows = [
        {
            "set": f"{row.seed:.0f}",
            "σ̂ (true 0.01)": f"{row.sigma:.5f} ± {row.sigma_stderr:.5f}",
            "off by (standard errors)": f"{row.sigma_z:+.1f}",
            f"ρ̂ (true {CORRELATION})": f"{row.rho:.4f} ± {row.rho_stderr:.4f}",
            "off by": f"{row.rho_z:+.1f}",
        }
        for row in noise.itertuples()
    ]
    by_dim = gains.groupby("d").mean(numeric_only=True).reset_index()
    of_gain = pd.DataFrame(
        {
            "d": by_dim["d"].astype(int),
            "implied by the truth": [f"{v:.2f}" for v in by_dim["implied"]],
            "on these test data": [f"{v:.2f}" for v in by_dim["implied_here"]],
            "measured gain": [f"{g:.2f} ± {e:.2f}" for g, e in zip(by_dim["gain"], by_dim["gain_stderr"], strict=True)],
            "Gaussian below PPCA": [f"{v:.2f}" for v in by_dim["gaussian_below_ppca"]],
            "AR(1) below the truth": [f"{v:.2f}" for v in by_dim["ar1_below_truth"]],
            "ρ̂": [f"{v:.3f}" for v in by_dim["rho"]],
        }
    )
    return "\n\n".join(map(markdown_table, (pd.DataFrame(rows), of_gain, of_rates)))


def reading(tried: pd.DataFrame, noise: pd.DataFrame, gains: pd.DataFrame) -> str:
    """What they say."""
    best = tried.loc[tried.groupby(["likelihood", "latent_dim"])["validation"].idxmax(), "learning_rate"]
    smallest, largest = tried["learning_rate"].min(), tried["learning_rate"].max()
    inside = int((noise[["sigma_z", "rho_z"]].abs() < 3).all(axis=1).sum())
    z = {name: noise[f"{name}_z"] for name in ("sigma", "rho")}
    off = ", ".join(f"{name} {values.mean() * math.sqrt(len(values)):+.1f}" for name, values in z.items())
    lines = [
        f"- {inside} of {len(noise)} sets have both σ and ρ within three standard errors (Cramér–Rao bounds at "
        f"{NUM_TRAIN} spectra of {CHANNELS} channels); the mean over sets is off by, in its standard errors: {off}."
    ]
    if smallest < largest:
        lines.append(
            f"- Rates were chosen on set 0, by spectra outside it: the smallest of those tried for "
            f"{(best == smallest).sum()} and the largest for {(best == largest).sum()} of {len(best)} models."
        )
    for d, group in gains.groupby("d"):
        lines.append(
            f"- d = {d}: AR(1) noise gains {group['gain'].mean():.2f} nats, the truth implies "
            f"{group['implied'].mean():.2f} ({group['implied_here'].mean():.2f} on these test data)."
        )
    bare = -0.5 * (CHANNELS - 1) * math.log1p(-(CORRELATION**2))
    lines.append(f"- Not {bare:.0f} nats, as without a latent space: latents absorb correlated noise.")
    return "\n".join(lines)


def picture(noise: pd.DataFrame, gains: pd.DataFrame) -> Figure:
    """Estimates with their standard errors around the truth, and the gain by dimension."""
    fig, axes = plotting.figure(3, size=3.6)
    for ax, name, true in ((axes[0, 0], "sigma", NOISE_SCALE), (axes[0, 1], "rho", CORRELATION)):
        ax.errorbar(noise["seed"], noise[name], yerr=3 * noise[f"{name}_stderr"], fmt="o", color=plotting.COLORS[0])
        ax.axhline(true, color=plotting.COLORS[1], linestyle="--")
        ax.set(xlabel="simulated set", ylabel=name, title=f"{name} ± 3 standard errors")
    by_dim = gains.groupby("d").mean(numeric_only=True)
    ax = axes[0, 2]
    ax.plot(by_dim.index, by_dim["implied"], color=plotting.COLORS[1], linestyle="--", label="implied by the truth")
    ax.errorbar(
        gains["d"], gains["gain"], yerr=2 * gains["gain_stderr"], fmt="o", color=plotting.COLORS[0], label="measured"
    )
    ax.set(xlabel="latent dimensions", ylabel="nats", yscale="log", title="gain of AR(1) noise")
    ax.yaxis.set_major_formatter(ScalarFormatter())
    ax.yaxis.set_minor_formatter(ScalarFormatter())
    ax.legend(fontsize=8)
    return fig
