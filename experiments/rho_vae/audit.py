"""The released objective and sampler, audited: the loss that they report beside the true −ELBO of the same network."""

from functools import partial
from typing import Any

import pandas as pd

import pyrovae as pv
from experiments.pool import in_processes
from experiments.rho_vae.released import DeclaredPosterior, ReleasedLoss, ReleasedPosterior, reported_loss
from experiments.rho_vae.settings import Settings
from experiments.rho_vae.study import bound_name
from experiments.rho_vae.training import evaluate, fit, images, make_pair, shape_of
from experiments.summaries import mean_and_error
from pyrovae.comparison.tables import markdown_table
from pyrovae.errors import InputError

RATE = 1e-3
"""Adam's rate in the released code."""


def audit(s: Settings, latent_dim: int, seed: int) -> dict[str, Any]:
    """A network trained as the released code trains it: no validation, the last epoch."""
    model, walk = make_pair(s, ReleasedPosterior, latent_dim, seed)
    try:
        history = fit(s, model, walk, ReleasedLoss(), RATE, seed, validate=False)
    except FloatingPointError as error:
        raise InputError(f"the training with the released objective broke: {error}") from None
    head = walk.posterior_head
    assert isinstance(head, ReleasedPosterior)
    declared = pv.AmortizedGuide(walk.encoder, DeclaredPosterior(head))
    test = images(s.dataset, s.pixels).test[: s.num_test].to(s.device)
    of_walk = evaluate(model, walk, test, s.samples)
    return {
        "latent_dim": latent_dim,
        "seed": seed,
        "reported": reported_loss(model, walk, test, s.batch_size),
        "neg_elbo_declared": evaluate(model, declared, test, 1)["test_neg_elbo"],
        "neg_elbo_random_walk": of_walk["test_neg_elbo"],
        "kl_random_walk": of_walk["test_kl"],
        "bound": of_walk["test_bound"],
        "seconds": history.seconds,
        **shape_of(declared, test),
    }


def study(settings: Settings) -> pd.DataFrame:
    """One row a dimension and seed."""
    jobs = [partial(audit, settings, d, seed) for d in settings.dims for seed in range(settings.seeds)]
    return pd.DataFrame(in_processes(jobs, settings.workers, "audit of the released code"))


def neg_elbo(runs: pd.DataFrame, d: Any, posterior: str) -> pd.Series:
    """Test −ELBO of the study's runs of a family at the smallest β, by run."""
    here = runs[(runs["latent_dim"] == d) & (runs["posterior"] == posterior)]
    return here[here["beta"] == here["beta"].min()]["test_neg_elbo"]


def table(settings: Settings, audits: pd.DataFrame, runs: pd.DataFrame) -> str:
    """Means ± standard errors over seeds, a row a dimension."""
    rows = []
    for d, group in audits.groupby("latent_dim", sort=False):
        row = {
            "d": d,
            "loss the released code reports": mean_and_error(group["reported"]),
            "true −ELBO, declared AR(1)": mean_and_error(group["neg_elbo_declared"]),
            "true −ELBO, random walk drawn": mean_and_error(group["neg_elbo_random_walk"]),
            bound_name(settings): mean_and_error(group["bound"]),
            "√s": f"{group['scale'].mean():.3f}",
            "ρ (spread over images)": f"{group['rho'].mean():.3f} ({group['rho_spread'].mean():.3f})",
        }
        for posterior in ("diagonal", "ar1"):
            with_elbo = neg_elbo(runs, d, posterior)
            if len(with_elbo):
                row[f"−ELBO, {posterior} trained rightly"] = mean_and_error(with_elbo)
        rows.append(row)
    return markdown_table(pd.DataFrame(rows))


def reading(audits: pd.DataFrame, runs: pd.DataFrame) -> str:
    """What was found, in a sentence a dimension."""
    lines = []
    for d, group in audits.groupby("latent_dim", sort=False):
        means = group.mean(numeric_only=True)
        reported, true = means["reported"], min(means["neg_elbo_declared"], means["neg_elbo_random_walk"])
        line = (
            f"- d = {d}: the released objective reports {reported:.1f} nats, {abs(true - reported):.1f} "
            f"{'below' if reported < true else 'above'} the smaller true −ELBO of the same network "
            f"({means['neg_elbo_declared']:.1f} under the AR(1) posterior that it declares, "
            f"{means['neg_elbo_random_walk']:.1f} under the random walk that it draws from)"
        )
        with_elbo = {name: values.mean() for name in ("diagonal", "ar1") if len(values := neg_elbo(runs, d, name))}
        for name, value in with_elbo.items():
            line += (
                f"; over {name} trained with the ELBO, {value:.1f}, that is a {_gain(value - reported)} as reported "
                f"and a {_gain(value - true)} in truth"
            )
        lines.append(f"{line}.")
    return "\n".join(lines)


def _gain(nats: float) -> str:
    return f"{'gain' if nats > 0 else 'loss'} of {abs(nats):.1f}"
