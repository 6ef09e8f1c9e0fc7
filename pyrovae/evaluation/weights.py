"""Log-weights log p(x, z) − log q(z|x), a bounded number at a time."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from tqdm.auto import tqdm

from pyrovae.elbo import ImportanceWeightedELBO
from pyrovae.errors import InputError
from pyrovae.evaluation.estimate import Estimate
from pyrovae.evaluation.per_datum import rows_of
from pyrovae.programs import Program, cannot_run, check_data, evaluating

_ROWS_AT_ONCE = 2**15
_VALUES_AT_ONCE = 2**22
"""Draws × data, and those times the width of a datum, evaluated in one pass, which bounds the memory."""


def rows_at_once(x: Tensor) -> int:
    """Draws × data to evaluate in one pass."""
    return max(1, min(_ROWS_AT_ONCE, _VALUES_AT_ONCE // x[0].numel()))


def over_log_weights(
    summarize: Callable[[Tensor], tuple[Tensor, ...]],
    model: Program,
    guide: Program,
    x: Tensor,
    num_samples: int,
    max_plate_nesting: int = 1,
    progress: bool = False,
) -> tuple[Tensor, ...]:
    """Summaries, each of shape (num,), of the log-weights log p(x, z) − log q(z|x) at draws from the guide.

    ``summarize`` is given those of some data at a time, shape (num_samples, …), in float64 on the CPU.
    """
    data_at_once = max(1, min(len(x), 1024, rows_at_once(x), _VALUES_AT_ONCE // num_samples))
    draws_at_once = max(1, min(num_samples, rows_at_once(x) // data_at_once))

    def estimate(rows: slice) -> tuple[Tensor, ...]:
        here = rows_of(guide, rows, x)
        passes = [len(part) for part in torch.empty(num_samples).split(draws_at_once)]
        return summarize(torch.cat([_log_weights(model, here, x[rows], num, max_plate_nesting) for num in passes]))

    return in_chunks(estimate, x, data_at_once, progress)


def in_chunks(
    estimate: Callable[[slice], tuple[Tensor, ...]], x: Tensor, data_at_once: int, progress: bool
) -> tuple[Tensor, ...]:
    """Results for the data in chunks, joined: tensors of shape (num,)."""
    parts = []
    with tqdm(total=len(x), unit="datum", disable=None if progress else True) as bar:
        for start in range(0, len(x), data_at_once):
            rows = slice(start, min(start + data_at_once, len(x)))
            try:
                parts.append(estimate(rows))
            except NotImplementedError:
                raise  # an estimator's own refusal
            except (RuntimeError, ValueError) as error:
                raise cannot_run(x[rows], error) from error
            bar.update(rows.stop - rows.start)
    return tuple(torch.cat(tensors) for tensors in zip(*parts, strict=True))


def _log_weights(model: Program, guide: Program, x: Tensor, num: int, max_plate_nesting: int) -> Tensor:
    """Log weights of ``num`` draws for each datum, shape (num, len(x)), in float64 on the CPU."""
    elbo = ImportanceWeightedELBO(num, max_plate_nesting=max_plate_nesting)
    log_w = elbo.log_weights(model, guide, x).double().cpu()
    sizes = [size for size in log_w.shape[1:] if size > 1] or [1]
    if sizes != [len(x)] and not (len(x) == 1 and sizes == [1]):
        raise InputError(f"weights have the plates {tuple(log_w.shape[1:])}, not one plate of {len(x)} data")
    return log_w.reshape(num, len(x))


@torch.no_grad()
def elbo_estimate(
    model: Program, guide: Program, x: Tensor, *, num_samples: int = 1000, seed: int = 0, max_plate_nesting: int = 1
) -> Estimate:
    """The ELBO of each datum as the mean of log p(x, z) − log q(z|x) over draws, in nats.

    Near the posterior these vary less than log p(x|z) does beside a KL in closed form, and at the posterior not at
    all: what a small gap needs. :func:`elbo_terms` gives the parts.

    Args:
        model: Pyro program of the joint density, with the data along a plate.
        guide: Pyro program of q(z|x), reparameterised.
        x: data (num, …), of the programs' dtype and device.
        num_samples: draws of z per datum, at least 2.
        seed: of the draws; the caller's random state is left as it was.
        max_plate_nesting: depth of the programs' own plates.
    """
    if not isinstance(num_samples, int) or num_samples < 2:
        raise InputError(f"num_samples must be an integer of at least 2, not {num_samples!r}")
    check_data(x, model, guide)

    def mean_and_stderr(log_w: Tensor) -> tuple[Tensor, Tensor]:
        return log_w.mean(0), log_w.std(0) / math.sqrt(len(log_w))

    with evaluating(model, guide, x, seed):
        return Estimate(*over_log_weights(mean_and_stderr, model, guide, x, num_samples, max_plate_nesting))
