"""How a study was computed, in words."""

from pathlib import Path

import torch

from pyrovae.comparison.report._answer import of_one
from pyrovae.comparison.report._candidates import Candidate
from pyrovae.comparison.study_result import StudyResult
from pyrovae.elbo import Computation, audit
from pyrovae.io import load

COMPUTATIONS = {
    Computation.CLOSED_FORM: "exactly",
    Computation.SAMPLED: "from random draws",
    Computation.ENTROPY: "from random draws, with the exact entropy",
    Computation.PATH_DERIVATIVE: "from random draws, with path gradients",
    Computation.SCORE_FUNCTION: "from random draws, with score-function gradients",
    Computation.WEIGHTS: "from weighted random draws",
    Computation.DOUBLY_REPARAMETERIZED_WEIGHTS: "from weighted random draws, with path gradients",
}
"""How the distance between posterior and prior was computed, in words."""


def computed(result: StudyResult, folder: Path, candidates: list[Candidate]) -> list[tuple[str, str]]:
    """How everything was computed, in words."""
    settings, study = result.plan.settings, result.study
    training = settings.training
    how = {"mean": "each channel minus its mean, all divided by one deviation", "none": "as they are"}
    how |= {"channel": "each channel is standardised by itself", "all": "one mean and one deviation for all values"}
    start = "random weights" if result.plan.linear is None else "the linear model with the same noise"
    data = f"{how.get(str(settings.preprocessing), 'preprocessed')}; scores are of the data in their own units"
    spent = f"{result.runs['seconds'].sum():.0f} seconds of training, {result.seconds:.0f} in all"
    of_vaes = [
        ("training", (
            f"{training.epochs} {'epoch' if training.epochs == 1 else 'epochs'} in batches of {training.batch_size}, "
            f"learning rate {training.learning_rate}, "
            f"{len(study.settings.seeds)} trainings of each VAE that differ in their random seed, from {start}; the "
            "epoch of the lowest validation loss is kept"
        )),
        ("networks", f"hidden layers of {', '.join(map(str, settings.hidden))} units; the decoder has the reverse"),
        ("latent values", ", ".join(map(str, sorted({m.latent_dim for m in result.names})))),
        ("scores", (
            f"log p(x) of a VAE from {settings.log_marginal_samples} weighted draws for each {of_one(result)}, which "
            "may be too low; of a linear model exactly"
        )),
    ]  # fmt: skip
    found = [("data", data), *(of_vaes if result.models else []), ("time", spent)]
    return found + _audits(result, folder, candidates)


@torch.random.fork_rng(devices=[])
def _audits(result: StudyResult, folder: Path, candidates: list[Candidate]) -> list[tuple[str, str]]:
    """How the estimators computed the distance between posterior and prior, as they recorded it."""
    found: dict[str, list[str]] = {}
    for one in candidates:
        path = None if one.model is None else result.folder_of(one.model)
        if one.model is None or path is None:
            continue
        torch.manual_seed(0)
        estimator = result.plan.settings.named_estimators[one.model.estimator]
        sites = audit(*load(folder / path / "model.safetensors"), estimator, result.plan.data.test[:32]).sites
        how = ", ".join(COMPUTATIONS[site.computation] for site in sites if site.guide)
        found.setdefault(how, []).append(one.name)
    if len(found) == 1:
        return [("distance to the prior", f"computed {how}, in every training") for how in found]
    return [("distance to the prior", "; ".join(f"{how}: {', '.join(names)}" for how, names in found.items()))][
        : len(found)
    ]
