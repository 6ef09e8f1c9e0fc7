"""The test data that fit worst, whether they are outliers, and their worst channels."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyrovae.blocks import blocks
from pyrovae.comparison.study_result import MAX_VALIDATION, StudyResult
from pyrovae.datasets import Spectra
from pyrovae.evaluation.outliers import conformal_p_values, usual_misfits
from pyrovae.linear_gaussian.baselines import varying
from pyrovae.trained_model import TrainedModel

NUM_WORST = 6
"""Number of data that are named."""

MANY_TIMES = 3.0
"""Multiple of the usual misfit above which a channel is named."""

ALPHAS = 0.05, 0.1, 0.2
"""Shares of false alarms. The first is used for which there are enough held-out data."""

_RANGES = 3
_GAP = 2
"""Steps between channels of one range, at most."""


@dataclass(frozen=True)
class Blamed:
    """Channels next to each other where a datum lies far from its reconstruction.

    Attributes:
        first: index of the first channel.
        last: index of the last.
        times: the largest misfit among them, in units of the usual one at its channel.
    """

    first: int
    last: int
    times: float


@dataclass(frozen=True)
class Worst:
    """A datum that fits badly.

    Attributes:
        place: among the test data.
        name: its own name in the file.
        log_prob: its log p(x) in nats.
        below: how far that lies below the median of the test data.
        p_value: its p-value among the validation data.
        blamed: the channels that fit worst, the worst first; empty if none stands out.
        largest: the channel of the largest misfit, blamed or not.
        is_far: whether its latents lie far from the others'.
    """

    place: int
    name: str
    log_prob: float
    below: float
    p_value: float
    blamed: tuple[Blamed, ...]
    largest: Blamed
    is_far: bool


def log_prob_of_choice(result: StudyResult) -> NDArray[np.float64]:
    """Log p(x) of each test datum under the model that is recommended for use, shape (num,)."""
    choice = result.recommendation.choice
    for baseline in result.baselines:
        if baseline.name == choice and baseline.log_prob is not None:
            return baseline.log_prob.double().numpy()
    (model,) = (model for model, name in result.names.items() if name == choice)
    results = result.comparison.results
    scores = next(found for cell in result.models[model] if (found := results[cell].scores) is not None)
    return scores["log_prob"].to_numpy(dtype=float)


def p_values_of(result: StudyResult, trained: TrainedModel) -> NDArray[np.float64]:
    """The p-value of each test datum among the validation data, shape (num,)."""
    train, held_out = result.split.train.x, result.split.validation.x[:MAX_VALIDATION]
    if held_out.shape[1] > result.test.shape[1]:  # constant pixels were left out
        held_out = held_out[:, varying(train)]
    scores = trained.scores(held_out, num_samples=result.plan.settings.log_marginal_samples)
    return conformal_p_values(log_prob_of_choice(result), scores["log_prob"])


def alpha_for(num_held_out: int) -> float | None:
    """The share of false alarms that so many held-out data can guarantee; None if they are too few."""
    return next((alpha for alpha in ALPHAS if num_held_out >= round(1 / alpha) - 1), None)


def worst_of(result: StudyResult, trained: TrainedModel, p_values: NDArray[np.float64]) -> list[Worst]:
    """The test data of the smallest log p(x), the smallest first."""
    log_prob, names = log_prob_of_choice(result), names_of_test(result.data, result.test)
    times, far = times_usual(result.test, trained), _far(result.test, trained)
    found = []
    for i in np.argsort(log_prob, kind="stable")[:NUM_WORST].tolist():
        blamed, largest = blame(times[i])
        below = float(np.median(log_prob) - log_prob[i])
        found.append(Worst(i, names[i], float(log_prob[i]), below, float(p_values[i]), blamed, largest, bool(far[i])))
    return found


def names_of_test(data: Spectra, test: Tensor) -> list[str]:
    """The test data's own names in the file; equal data are named in the file's order."""
    names: dict[bytes, list[str]] = {row.tobytes(): [] for row in test.numpy()}
    prefix = "row\u00a0" if are_counted(data) else ""
    rows = (row.tobytes() for block in blocks(data.x) for row in block.numpy())
    for row, name in zip(rows, data.row_names, strict=True):
        if row in names:
            names[row].append(f"{prefix}{name}")
    return [names[row.tobytes()].pop(0) for row in test.numpy()]


def are_counted(data: Spectra) -> bool:
    """Whether the data have no names but their numbers, from 0."""
    return data.row_names == tuple(map(str, range(len(data))))


def times_usual(x: Tensor, trained: TrainedModel) -> NDArray[np.float64]:
    """How badly each channel of each datum fits, in units of what is usual at the channel, shape (num, n).

    The larger of two misfits: the distance from the reconstruction, and ∇ log p(x), which is the distance from what the
    other channels lead to expect, where errors go together. The usual misfit is the median over the data, scaled to be
    the standard deviation of Gaussian misfits.
    """
    made = trained.reconstructions(x).drop(columns="row").to_numpy(dtype=float)
    return np.maximum(_usual(x.double().numpy() - made), _usual(trained.gradients(x).double().cpu().numpy()))


def _usual(misfit: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.abs(np.nan_to_num(misfit)) / usual_misfits(misfit))


def blame(times: NDArray[np.float64]) -> tuple[tuple[Blamed, ...], Blamed]:
    """Ranges of channels with many times the usual misfit, the worst first; and the channel of the largest."""
    top = int(times.argmax())
    channels = np.flatnonzero(times > max(MANY_TIMES, times[top] / 3))  # a large misfit draws its neighbours along
    ranges = np.split(channels, np.flatnonzero(np.diff(channels) > _GAP) + 1) if len(channels) else []
    weight = [float((times[found] ** 2).sum()) for found in ranges]
    order = np.argsort(weight)[::-1][:_RANGES]
    blamed = [Blamed(int(ranges[i][0]), int(ranges[i][-1]), float(times[ranges[i]].max())) for i in order]
    return tuple(blamed), Blamed(top, top, float(times[top]))


@torch.no_grad()
def _far(x: Tensor, trained: TrainedModel) -> NDArray[np.bool_]:
    """Whether the mean of q(z|x) lies farther out than one in a thousand, by the data's robust spread."""
    from scipy.stats import chi2

    z = latent_means(x, trained)
    if z is None:
        return np.zeros(len(x), dtype=bool)
    centre = np.median(z, axis=0)
    spread = 1.4826 * np.median(np.abs(z - centre), axis=0)
    squares = ((z - centre) / np.maximum(spread, 1e-12)) ** 2
    return np.asarray(squares.sum(1) > chi2.ppf(0.999, z.shape[1]))


def latent_means(x: Tensor, trained: TrainedModel) -> NDArray[np.float64] | None:
    """Means of q(z|x), shape (num, d); None of a model without latents."""
    if getattr(getattr(trained.fitted, "model", None), "latent_dim", 0) == 0:
        return None
    table = trained.latents(x)
    return table[[name for name in table if str(name).startswith("mean_")]].to_numpy(dtype=float)
