"""Metrics of a trained model and guide on test data, in nats per datum."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from pyrovae.datasets import SyntheticDataset
from pyrovae.evaluation import (
    ELBOTerms,
    LogMarginal,
    UnreliableEstimateWarning,
    active_directions,
    elbo_terms,
    inference_gaps,
    log_marginal,
    refine,
)
from pyrovae.posteriors import FullCovariancePosterior, Posterior
from pyrovae.randomness import seeded
from pyrovae.vae import AmortizedGuide, GenerativeModel

if TYPE_CHECKING:
    import pandas as pd

SCORES = ("log_prob", "elbo", "log_prob_stderr", "gain_of_doubling", "pareto_k")
"""Columns of a run's scores, one row per test datum."""

UNRELIABLE = "unreliable"
"""One more of them: whether log p(x) is unreliable."""

MEASURES = (
    "steps",
    "seconds",
    "steps_per_second",
    "test_neg_elbo",
    "test_neg_elbo_stderr",
    "test_neg_elbo_stderr_monte_carlo",
    "test_reconstruction",
    "test_kl",
    "test_log_marginal",
    "test_log_marginal_stderr",
    "test_log_marginal_stderr_monte_carlo",
    "test_log_marginal_unreliable_share",
    "test_log_marginal_gain_of_doubling",
    "test_effective_sample_size",
    "lost_by_encoder",
    "lost_by_encoder_stderr",
    "active_directions",
)
"""Columns of numbers that every run has."""
GAPS = ("approximation_gap", "approximation_gap_stderr", "amortization_gap", "amortization_gap_stderr")
ENCODER_DATA = 32
"""Number of test data, evenly spread, on which the encoder's loss is measured."""
GAP_STEPS = 400
"""Most steps to fit a datum's own q; as many steps follow whose parameters are averaged."""


def score(
    model: GenerativeModel, guide: AmortizedGuide, test: Tensor, num_samples: int, log_jacobian: Tensor | None = None
) -> tuple[ELBOTerms, LogMarginal]:
    """The ELBO's terms and log p(x) of each test datum, in nats.

    ``log_jacobian`` of the preprocessing, shape (num,), makes densities of preprocessed data those of the original.
    """
    of_original = 0.0 if log_jacobian is None else log_jacobian
    terms = elbo_terms(model, guide, test)
    terms = replace(terms, reconstruction=terms.reconstruction + of_original)
    with warnings.catch_warnings(action="ignore", category=UnreliableEstimateWarning):  # its share is among the metrics
        marginal = log_marginal(model, guide, test, num_samples=num_samples)
    return terms, replace(marginal, per_datum=marginal.per_datum + of_original)


def scores_of(terms: ELBOTerms, marginal: LogMarginal) -> pd.DataFrame:
    """A run's ``scores.csv`` for each test datum, in nats: the input of :func:`marginal_of`, and the ELBO."""
    import pandas as pd

    columns = {
        "log_prob": marginal.per_datum,
        "elbo": terms.elbo,
        "log_prob_stderr": marginal.stderr_per_datum,
        "gain_of_doubling": marginal.gain_of_doubling,
        "pareto_k": marginal.pareto_k,
    }
    scores = {name: values.numpy() for name, values in columns.items()}
    return pd.DataFrame({**scores, UNRELIABLE: marginal.unreliable.numpy()})


def marginal_of(scores: pd.DataFrame, num_samples: int) -> LogMarginal:
    """The estimates of log p(x) that were written as scores."""

    def column(name: str) -> Tensor:
        return torch.tensor(scores[name].to_numpy(dtype=float, na_value=np.nan))

    unknown = torch.full((len(scores),), math.nan, dtype=torch.float64)
    return LogMarginal(
        column("log_prob"),
        column("log_prob_stderr"),
        num_samples,
        unknown,
        column("gain_of_doubling"),
        column("pareto_k"),
        doubtful=column(UNRELIABLE) > 0 if UNRELIABLE in scores else None,  # older versions did not write it
    )


def measures_of(
    model: GenerativeModel,
    guide: AmortizedGuide,
    test: Tensor,
    truth: SyntheticDataset | None,
    terms: ELBOTerms,
    marginal: LogMarginal,
) -> dict[str, object]:
    """Metrics of a trained pair on the test data, nats per datum, from what :func:`score` gave."""
    metrics: dict[str, object] = {
        "test_neg_elbo": -terms.elbo.mean().item(),
        "test_neg_elbo_stderr": _stderr(terms.elbo),
        "test_neg_elbo_stderr_monte_carlo": terms.estimate.stderr_monte_carlo,
        "test_reconstruction": terms.reconstruction.mean().item(),
        "test_kl": terms.kl.mean().item(),
        "test_log_marginal": marginal.mean,
        "test_log_marginal_stderr": marginal.stderr,
        "test_log_marginal_stderr_monte_carlo": marginal.stderr_monte_carlo,
        "test_log_marginal_unreliable_share": marginal.unreliable.double().mean().item(),
        "test_log_marginal_gain_of_doubling": marginal.gain_of_doubling.mean().item(),
        "test_effective_sample_size": marginal.effective_sample_size.median().item(),
        "active_directions": active_directions(guide, test),
    }
    if not marginal.is_density:
        metrics |= {name: math.nan for name in metrics if name.startswith("test_log_marginal")}
    notes = [] if marginal.is_density else ["cross-entropy bound with soft targets, not log p(x)"]
    notes += ["posterior collapsed"] if metrics["active_directions"] == 0 else []
    if truth is not None:
        gap = truth.log_density(test) - terms.elbo
        metrics |= {"nats_above_truth": gap.mean().item(), "nats_above_truth_stderr": _stderr(gap)}
        with seeded(0):
            shares = truth.mode_log_densities(model.sample(len(test))).softmax(-1).mean(0)
        found = int((shares > 0.5 * truth.mode_weights).sum())
        metrics["modes_found"] = found
        if found < len(shares):
            notes.append(f"{len(shares) - found} of {len(shares)} modes dropped")
    return metrics | {"note": ", ".join(notes)}


def gaps(
    model: GenerativeModel, guide: AmortizedGuide, x: Tensor, family: Callable[[int, int], Posterior], seed: int
) -> dict[str, float]:
    """Log p(x) − ELBO of data x (num, n), split into the losses of the guide's family and its encoder, in nats."""
    families = {"own": family, "full-covariance": FullCovariancePosterior}  # log p(x) is by the better of the two
    with warnings.catch_warnings(action="ignore", category=UnreliableEstimateWarning):
        found = inference_gaps(
            model, guide, x, families, num_particles=4, max_steps=GAP_STEPS, num_samples=300, seed=seed
        )["own"]
    assert found.amortization is not None  # it is the guide's own family
    parts = (found.approximation, found.amortization)
    return dict(zip(GAPS, (value for part in parts for value in (part.mean, part.stderr)), strict=True))


def loss_of_encoder(model: GenerativeModel, guide: AmortizedGuide, test: Tensor) -> dict[str, float]:
    """ELBO gained by refining each datum's q(z|x), in nats per datum of some test data (num, n)."""
    rows = torch.linspace(0, len(test) - 1, min(ENCODER_DATA, len(test))).round().long()
    lost = refine(model, guide, test[rows]).lost_by_encoder
    return {"lost_by_encoder": lost.mean, "lost_by_encoder_stderr": lost.stderr}


def _stderr(values: Tensor) -> float:
    return (values.std() / math.sqrt(len(values))).item()
