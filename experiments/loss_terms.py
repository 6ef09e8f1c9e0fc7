"""The lecture notes' three losses with a sweep of β, and every source's loss as it is written.

python -m experiments.loss_terms
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

import pyrovae as pv
from experiments import page
from experiments.options import StudyOptions
from experiments.summaries import mean_and_error
from pyrovae import plotting
from pyrovae.commands import console
from pyrovae.comparison.tables import markdown_table
from pyrovae.datasets import SYNTHETIC, digits
from pyrovae.elbo import BetaELBO, Computation
from pyrovae.elbo.base import total
from pyrovae.files import write_table
from pyrovae.plotting import write_figure
from pyrovae.programs import Role, TracedPair
from pyrovae.randomness import seeded

NOISE = {"figure-eight": math.sqrt(0.02), "digits": 0.2}
"""σ of the likelihood, fixed so that β means the same for all: the figure eight's own, and a guess for the digits."""
LATENT_DIM = {"figure-eight": 2, "digits": 8}
THREE_LOSSES = ("reconstruction alone (β = 0)", "both (β = 1)", "KL alone")
"""The lecture notes' losses, by name."""


@dataclass(frozen=True)
class Settings(StudyOptions):
    """Train with reconstruction alone, KL alone, both, and other β; then compare the sources' conventions."""

    betas: tuple[float, ...] = (0.1, 0.3, 3.0, 10.0)
    """Weights β of the KL besides 0 and 1."""
    seeds: int = 3
    """Trainings of each, with seeds 0 to N − 1."""
    steps: int = 3000
    """Steps of a training, approximately."""
    samples: int = 500
    """Draws of z per test datum for log p(x)."""
    num_test: int = 2000
    """Test data of the figure eight, and of the digits at most."""

    def __post_init__(self) -> None:
        super().__post_init__()
        losses(self)  # refuses a β that no estimator takes


class KLAlone(pv.AnalyticELBO):
    """The notes' second loss: KL(q ‖ p) without a reconstruction term."""

    def _bound(self, pair: TracedPair) -> Tensor:
        latents = pair.of_role(Role.LATENT)
        return total(self._term(site, Computation.CLOSED_FORM, self._latent_part(site)) for site in latents)


def losses(settings: Settings) -> dict[str, BetaELBO]:
    """The losses by name, β rising."""
    named = dict(zip((0.0, 1.0), THREE_LOSSES, strict=False))
    betas = sorted({0.0, 1.0, *settings.betas})
    return {named.get(b, f"β = {b:g}"): pv.AnalyticELBO(beta=b) for b in betas} | {THREE_LOSSES[-1]: KLAlone()}


def rate_distortion(name: str, settings: Settings, out: Path) -> pd.DataFrame:
    """A row for each loss and seed: trained on the training data, measured on the test data."""
    data: Any = SYNTHETIC[name] if name != "digits" else digits()[0][: 5 * settings.num_test]
    num = 4000 if name != "digits" else len(data) - len(data) // 5
    table = pv.compare(
        data,
        posteriors=["full-covariance"],
        estimators=losses(settings),
        likelihoods={"gaussian": partial(pv.GaussianLikelihood, scale=NOISE[name])},
        latent_dims=(LATENT_DIM[name],),
        seeds=range(settings.seeds),
        epochs=max(1, round(settings.steps / math.ceil(num / 32))),
        num_train=num if name != "digits" else None,
        num_test=settings.num_test if name != "digits" else None,
        log_marginal_samples=settings.samples,
        out=out / name,
        workers=settings.workers,
    )
    n = 2 if name != "digits" else 64
    constant = 0.5 * n * math.log(2 * math.pi * NOISE[name] ** 2)
    squares = (-table["test_reconstruction"] - constant) * 2 * NOISE[name] ** 2
    return table.assign(distortion=(squares.clip(lower=0) / n) ** 0.5, rate=table["test_kl"])


def rate_distortion_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds with their standard errors."""
    rows = []
    for name, group in runs.groupby("estimator", sort=False):
        row: dict[str, Any] = {"loss": name}
        for heading, measure in (
            ("distortion: RMS error at z ~ q", "distortion"),
            ("rate: KL", "rate"),
            ("test −ELBO (β = 1)", "test_neg_elbo"),
            ("test log p(x)", "test_log_marginal"),
            ("active latents", "active_directions"),
        ):
            row[heading] = mean_and_error(group[measure], ".4g", ".2g")
        rows.append(row)
    return pd.DataFrame(rows)


def rate_distortion_picture(runs: dict[str, pd.DataFrame]) -> Figure:
    """Distortion against rate, a point a run, joined along β."""
    fig, axes = plotting.figure(len(runs), size=4.2)
    for ax, (name, table) in zip(axes[0], runs.items(), strict=True):
        means = table.groupby("estimator", sort=False)[["rate", "distortion"]].mean()
        swept = means.drop(index=THREE_LOSSES[-1])
        ax.plot(swept["rate"], swept["distortion"], color=plotting.COLORS[0], linewidth=1, zorder=1)
        for k, (loss, group) in enumerate(table.groupby("estimator", sort=False)):
            label = str(loss)
            color = plotting.COLORS[k % len(plotting.COLORS)]
            ax.scatter(group["rate"], group["distortion"], s=18, color=color, label=label, marker="osD^v<>P"[k % 8])
        ax.set(xlabel="rate: KL(q ‖ p), nats per datum", ylabel="distortion: RMS error", title=name, xscale="symlog")
        ax.legend(fontsize=6)
    return fig


@torch.no_grad()
def pictures(name: str, runs: pd.DataFrame, out: Path) -> Figure:
    """Test data; and the first seed's reconstructions and samples from the prior, for the notes' three losses."""
    first = runs[(runs["seed"] == 0) & runs["estimator"].isin(THREE_LOSSES)]
    folders = zip(first["estimator"], first["folder"], strict=True)
    cells = {loss: pv.load(out / name / folder / "model.safetensors") for loss, folder in folders}
    x = digits()[0][:12] if name == "digits" else SYNTHETIC[name].sample(2000, torch.Generator().manual_seed(1))
    with seeded(0):
        panels = {"test data": x}
        for loss, (model, guide) in cells.items():
            panels[f"{loss.partition(' (')[0]}: reconstructions"] = model.conditional(guide.posterior(x).sample()).mean
        panels["test data again"] = x
        for loss, (model, _) in cells.items():
            prior = model.prior_distribution().sample(torch.Size([len(x)]))
            panels[f"{loss.partition(' (')[0]}: from the prior"] = model.conditional(prior).mean
    if name == "digits":
        return plotting.image_rows(panels, (8, 8))
    return plotting.scatter_panels(panels, columns=4)


@dataclass(frozen=True)
class Convention:
    """A source's loss of a batch as it is written, and the −ELBO that it is compared with."""

    source: str
    written: str
    implies: str
    loss: Callable[[Tensor, Any, Tensor, Tensor], Tensor]
    sigma: float
    beta: float
    verdict: str
    family: Callable[[int, int], pv.Posterior] = pv.FullCovariancePosterior


def _squares(x: Tensor, x_hat: Tensor) -> Tensor:
    return (x - x_hat).square().sum(-1)


def _log_normal(x: Tensor, mean: Tensor) -> Tensor:
    """The log-density of N(mean, I)."""
    return -0.5 * (_squares(x, mean) + x.shape[-1] * math.log(2 * math.pi))


def _kl_dense(q: Any) -> Tensor:
    """The slides' and the notes' ½(−log|Σ| − k + tr Σ + ‖μ‖²)."""
    log_det, k = torch.logdet(q.covariance_matrix), q.loc.shape[-1]
    trace = q.covariance_matrix.diagonal(dim1=-2, dim2=-1).sum(-1)
    return 0.5 * (-log_det - k + trace + q.loc.square().sum(-1))


def _kl_sampled(q: Any, z: Tensor) -> Tensor:
    """The forum question's log q(z) − log p(z)."""
    return q.log_prob(z) - _log_normal(z, torch.zeros_like(z))


def _kl_rho(q: Any) -> Tensor:
    """The ρ-VAE draft's eq. (6), s = σ²."""
    s, rho, d = q.scale.squeeze(-1).square(), q.correlation.squeeze(-1), q.loc.shape[-1]
    return 0.5 * (q.loc.square().sum(-1) + d * (s - 1 - s.log()) - (d - 1) * torch.log(1 - rho**2))


def conventions(n: int) -> list[Convention]:
    """Each source's loss, for data of n dimensions."""
    return [
        Convention(
            "forum question", "KL + log p(x|z), minimised", "σ = 1, β = 1",
            lambda x, q, z, x_hat: (_kl_sampled(q, z) + _log_normal(x, x_hat)).mean(), 1.0, 1.0,
            "sign: the log-likelihood is added, so fitting worse pays",
        ),
        Convention(
            "forum question, sign mended", "KL − log p(x|z)", "σ = 1, β = 1",
            lambda x, q, z, x_hat: (_kl_sampled(q, z) - _log_normal(x, x_hat)).mean(), 1.0, 1.0,
            "equal",
        ),
        Convention(
            "full-covariance slides", "KL + (1/nd) Σ Σ (x − x̂)²", "σ² = n/2, β = 1",
            lambda x, q, z, x_hat: _kl_dense(q).mean() + (x - x_hat).square().mean(), math.sqrt(n / 2), 1.0,
            "equal, but with a likelihood nobody asked for",
        ),
        Convention(
            "full-covariance slides", "the same", "σ = 1, β = n/2",
            lambda x, q, z, x_hat: _kl_dense(q).mean() + (x - x_hat).square().mean(), 1.0, n / 2,
            "equal up to the factor 2/n: the KL has weight n/2",
        ),
        Convention(
            "full-covariance slides", "the same", "σ = 1, β = 1",
            lambda x, q, z, x_hat: _kl_dense(q).mean() + (x - x_hat).square().mean(), 1.0, 1.0,
            "scale: the error is divided by n/2, the KL is not",
        ),
        Convention(
            "seminar slides, autoencoder", "‖x − x̂‖²", "any σ, β = 0",
            lambda x, q, z, x_hat: _squares(x, x_hat).mean(), 1.0, 0.0,
            "equal up to the factor 2 at the same z (theirs is the mean)",
        ),
        Convention(
            "seminar slides, eq. (2.8)", "−[log p(x|z) + log p(z) − log q(z|x)]", "σ = 1, β = 1",
            lambda x, q, z, x_hat: (_kl_sampled(q, z) - _log_normal(x, x_hat)).mean(), 1.0, 1.0,
            "equal",
        ),
        Convention(
            "ρ-VAE draft, eqs. (2), (6)", "−log p(x|z) + KL of eq. (6)", "σ = 1, β = 1",
            lambda x, q, z, x_hat: (_kl_rho(q) + 0.5 * _squares(x, x_hat)).mean(), 1.0, 1.0,
            "equal; its ≤ is log p ≥ ELBO", family=pv.AR1Posterior,
        ),
        Convention(
            "lecture notes", "½‖x − x̂‖² + ½(−log|Σ| − k + tr Σ + ‖μ‖²)", "σ = 1, β = 1",
            lambda x, q, z, x_hat: (0.5 * _squares(x, x_hat) + _kl_dense(q)).mean(), 1.0, 1.0,
            "equal",
        ),
    ]  # fmt: skip


def convention_table() -> pd.DataFrame:
    """Gradients of each source's loss and of the −ELBO it implies, at the same draws, on the digits in float64."""
    x = digits()[0][:64].double()
    n, d = x.shape[-1], 8
    rows = []
    for convention in conventions(n):
        with seeded(0):
            likelihood = pv.GaussianLikelihood(32, n, scale=convention.sigma)
            model = pv.GenerativeModel(pv.nn.MLP(d, 32), likelihood, d).double()
            guide = pv.AmortizedGuide(pv.nn.MLP(n, 32), convention.family(32, d)).double()
            sampled = "log q" in convention.written or "forum" in convention.source
            elbo = (pv.MonteCarloELBO if sampled else pv.AnalyticELBO)(beta=convention.beta)
            torch.manual_seed(1)
            ours = elbo.differentiable_loss(model, guide, x) / len(x)
            torch.manual_seed(1)
            q = guide.posterior(x)
            z = q.rsample()
            written = convention.loss(x, q, z, model.conditional(z).mean)
        of_decoder = _factor(written, ours, model)
        of_all = _factor(written, ours, nn.ModuleList([model, guide]))
        rows.append(
            {
                "source": convention.source,
                "loss as written": convention.written,
                "compared with": convention.implies,
                "gradient = factor × that of −ELBO": f"{of_all[0]:.4g}",
                "rest": f"{of_all[1]:.0e}",
                "decoder alone": f"{of_decoder[0]:.4g}",
                "verdict": convention.verdict,
            }
        )
    return pd.DataFrame(rows)


def _factor(written: Tensor, ours: Tensor, module: nn.Module) -> tuple[float, float]:
    """The number c that brings c ∇ours nearest to ∇written, and the remaining distance relative to ∇written."""
    parameters = list(module.parameters())
    a, b = (
        torch.cat(
            [g.flatten() for g in torch.autograd.grad(loss, parameters, retain_graph=True, materialize_grads=True)]
        )
        for loss in (written, ours)
    )
    factor = (a @ b) / (b @ b)
    return factor.item(), ((a - factor * b).norm() / a.norm()).item()


def main(settings: Settings) -> None:
    """Run the study; print its tables, write them and the pictures."""
    out = page.run_folder(settings.out, "loss-terms")
    torch.set_num_threads(1)
    table = convention_table()
    write_table(out / "conventions.csv", table)
    page.show("loss_terms", "The sources' losses as written", markdown_table(table), {}, settings.publish)
    runs = {}
    for name in NOISE:
        runs[name] = rate_distortion(name, settings, out)
        write_table(out / f"{name}-rate-distortion.csv", runs[name])
        path = write_figure(out / f"{name}-three-losses.png", pictures(name, runs[name], out))
        text = f"σ fixed at {NOISE[name]:.4g}.\n\n{markdown_table(rate_distortion_table(runs[name]))}"
        page.show("loss_terms", name, text, {f"{name} under the three losses": path}, settings.publish)
    shown = {"distortion against rate": write_figure(out / "rate-distortion.png", rate_distortion_picture(runs))}
    text = "A point a training; the line joins the means along β."
    page.show("loss_terms", "Rate and distortion", text, shown, settings.publish)
    print(f"results: {out}")


if __name__ == "__main__":
    console.run(main, Settings)
