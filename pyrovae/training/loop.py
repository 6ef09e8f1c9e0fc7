"""The training loop: mini-batch stochastic variational inference, read top to bottom."""

import copy
import math
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pyro
import pyro.poutine as poutine
import torch
from pyro.infer import ELBO
from torch import Tensor, nn
from tqdm.auto import tqdm

from pyrovae.elbo.auditing import audit
from pyrovae.registration import cannot_run, mode, unregistered
from pyrovae.training.history import EpochRecord, History
from pyrovae.training.programs import (
    Program,
    announced_parameters,
    find_nonfinite,
    own_parameter_store,
    state_tensors,
    trainable_parameters,
)
from pyrovae.training.schedules import Schedule, as_schedule


class NonFiniteLossError(FloatingPointError):
    """The loss, or a parameter after an epoch, became NaN or infinite."""


def fit(
    model: Program,
    guide: Program,
    data: Tensor | np.ndarray,
    elbo: ELBO,
    *,
    epochs: int,
    batch_size: int = 32,
    learning_rate: float | Schedule = 1e-3,
    schedule: str | Schedule = "cosine",
    beta: float | Schedule | None = None,
    seed: int = 0,
    validation: Tensor | np.ndarray | None = None,
    device: str | torch.device | None = None,
    strict: bool = False,
    progress: bool = True,
    on_epoch: Callable[[EpochRecord], None] | None = None,
) -> History:
    """Maximise the ELBO over the parameters of a model and a guide with Adam.

    The programs may be :class:`~pyrovae.GenerativeModel` and :class:`~pyrovae.AmortizedGuide`, other
    modules, or Pyro functions written by hand; both are called with a batch of data. Losses are summed
    over the batch as in ``pyro.infer.SVI``, whose trajectory this is for the same seed and batches;
    what is reported is in nats per datum. Pyro's global parameter store is neither read for modules
    nor needed; ``pyro.param``s of functions are written back to it.

    Args:
        model: Pyro program of the joint density.
        guide: Pyro program of the variational posterior.
        data: (num, …), floating point; converted once to the parameters' dtype and device.
        elbo: the estimator, such as ``MonteCarloELBO()`` or ``AnalyticELBO()``.
        epochs: number of passes over the data.
        batch_size: data per step; the last batch of an epoch may be smaller.
        learning_rate: Adam's rate at the schedule's value 1, or itself a function of the progress.
        schedule: ``"cosine"`` (to zero), ``"constant"``, or a function of the progress in [0, 1).
        beta: weight of the KL part, a number or a function of the progress; overrides the estimator's.
        seed: of the batches and of the noise; the caller's random state is left as it was.
        validation: data (num, …) on which the loss is evaluated after each epoch, with the same noise
            each time; the best state is then kept.
        device: where to train; by default where the parameters are.
        strict: refuse an estimator that would fall back to sampling, see :func:`~pyrovae.audit`.
        progress: whether to say in one line what the estimator computes, and to show a progress bar (on a
            terminal).
        on_epoch: called with each epoch's record.

    Returns:
        The losses by epoch and by batch.

    Raises:
        ValueError: data or settings that cannot be trained on.
        NonFiniteLossError: the loss became NaN or infinite, and the parameters are those of the step
            before; names the step and the site. Or a parameter did in an epoch's last step.
    """
    for name, value in (("epochs", epochs), ("batch_size", batch_size)):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a positive integer, not {value!r}")
    if not isinstance(elbo, ELBO):
        raise TypeError(f"elbo must be an estimator such as AnalyticELBO(), not {type(elbo).__name__}")
    if not hasattr(elbo, "differentiable_loss"):
        raise TypeError(f"{type(elbo).__name__} has no differentiable_loss; use an estimator of pyrovae")
    check_learning_rate(learning_rate)
    if beta is not None and not callable(beta) and not 0 <= beta < math.inf:
        raise ValueError(f"beta must be a finite number ≥ 0 or a schedule, not {beta!r}")
    shape_of_rate = as_schedule(schedule)
    elbo = copy.copy(elbo)  # its beta may change from step to step
    if beta is not None and not hasattr(elbo, "beta"):
        raise ValueError(f"{type(elbo).__name__} has no beta; use an estimator of pyrovae")
    if device is not None:
        for program in (model, guide):
            if isinstance(program, nn.Module):
                program.to(device)
    x = _as_data("data", data, model, guide, device)
    x_validation = None if validation is None else _as_data("validation", validation, model, guide, device)

    history = History()
    steps_per_epoch = math.ceil(len(x) / batch_size)
    total_steps = epochs * steps_per_epoch
    batches = torch.Generator().manual_seed(seed)
    best_loss, best_state = math.inf, None
    with (
        torch.random.fork_rng(devices=[x.device] if x.is_cuda else []),
        own_parameter_store(),
        tqdm(total=total_steps, unit="step", disable=None if progress else True) as bar,
    ):
        torch.manual_seed(seed)
        parameters = _check_programs(model, guide, x, x_validation, batch_size, elbo)
        known = {id(parameter) for parameter in parameters}
        if strict or progress:
            try:
                audited = audit(model, guide, _at_final_beta(elbo, beta), x[:batch_size], strict=strict)
            except TypeError:  # another package's estimator
                if strict:
                    raise
            else:
                if progress:
                    tqdm.write(audited.line, file=sys.stderr)
        optimizer = torch.optim.Adam(parameters, fused=True)
        # Modules hold their parameters; functions, as under SVI, may announce new ones at any step.
        modules_only = isinstance(model, nn.Module) and isinstance(guide, nn.Module)
        registration = unregistered() if modules_only else nullcontext()
        start = time.perf_counter()
        with registration, pyro.validation_enabled(False), mode(model, guide, training=True):
            for epoch in range(1, epochs + 1):
                for index in torch.randperm(len(x), generator=batches).to(x.device).split(batch_size):
                    done = history.steps / total_steps
                    rate = shape_of_rate(done) * (learning_rate(done) if callable(learning_rate) else learning_rate)
                    if beta is not None:
                        elbo.beta = float(beta(done)) if callable(beta) else float(beta)
                    batch = x[index]
                    random_state = torch.get_rng_state()
                    with nullcontext() if modules_only else poutine.trace(param_only=True) as capture:
                        loss = elbo.differentiable_loss(model, guide, batch)
                    if capture is not None:
                        for parameter in announced_parameters(capture.trace):
                            if id(parameter) not in known and parameter.requires_grad:
                                known.add(id(parameter))
                                parameters.append(parameter)
                                optimizer.add_param_group({"params": [parameter]})
                    for group in optimizer.param_groups:
                        group["lr"] = rate
                    value = loss.item() / len(index)
                    if not math.isfinite(value):
                        torch.set_rng_state(random_state)
                        site = find_nonfinite(model, guide, batch, parameters)
                        raise NonFiniteLossError(
                            f"the loss is {value} at step {history.steps + 1} (epoch {epoch}): not finite is {site}; "
                            "lower the learning rate or look at the data's scale"
                        )
                    loss.backward()
                    optimizer.step()
                    optimizer.zero_grad()
                    history.batch_loss.append(value)
                    bar.update()
                if not all(parameter.isfinite().all() for parameter in parameters):
                    raise NonFiniteLossError(
                        f"a parameter is not finite after step {history.steps} (epoch {epoch}), though the loss was: "
                        "a gradient was not; lower the learning rate or look at the data's scale"
                    )
                record = EpochRecord(
                    epoch=epoch,
                    loss=_mean_loss(history.batch_loss[-steps_per_epoch:], len(x), batch_size),
                    validation_loss=math.nan
                    if x_validation is None
                    else evaluate_loss(model, guide, x_validation, _at_final_beta(elbo, beta), seed),
                    learning_rate=rate,
                    beta=float(getattr(elbo, "beta", 1.0)),
                    seconds=time.perf_counter() - start,
                )
                history.epochs.append(record)
                bar.set_postfix_str(f"epoch {epoch}/{epochs}, loss {record.loss:.4f} nats/datum")
                if record.validation_loss < best_loss:
                    best_loss, history.best_epoch = record.validation_loss, epoch
                    best_state = [(t, t.detach().clone()) for t in state_tensors(model, guide, parameters)]
                if on_epoch is not None:
                    on_epoch(record)
        if best_state is not None:
            with torch.no_grad():
                for tensor, best in best_state:
                    tensor.copy_(best)
    return history


@torch.no_grad()
def evaluate_loss(
    model: Program, guide: Program, x: Tensor, elbo: ELBO, seed: int = 0, chunk_size: int = 4096
) -> float:
    """Mean −ELBO estimate over the data, nats per datum, with noise fixed by the seed."""
    with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []), mode(model, guide, training=False):
        torch.manual_seed(seed)
        return sum(elbo.differentiable_loss(model, guide, chunk).item() for chunk in x.split(chunk_size)) / len(x)


def _as_data(
    name: str, data: Tensor | np.ndarray, model: Program, guide: Program, device: str | torch.device | None
) -> Tensor:
    """The data as one tensor of the parameters' dtype and device, checked."""
    x = torch.as_tensor(data)
    if x.dim() < 1 or len(x) == 0:
        raise ValueError(f"{name} is empty: its shape is {tuple(x.shape)}, expected (num, …) with num ≥ 1")
    if x.is_complex():
        raise ValueError(f"{name} is complex; give real numbers")
    parameters = [p for program in (model, guide) if isinstance(program, nn.Module) for p in program.parameters()]
    like = next((p for p in parameters if p.is_floating_point()), None)
    x = x.to(
        device=device if device is not None or like is None else like.device,
        dtype=like.dtype if like is not None else None if x.is_floating_point() else torch.get_default_dtype(),
    )
    finite = torch.isfinite(x.flatten(1) if x.dim() > 1 else x.unsqueeze(-1))
    if not finite.all():
        row, column = (~finite).nonzero()[0].tolist()
        raise ValueError(
            f"{name} holds {int((~finite).sum())} NaN or infinite values, the first at row {row}, column {column} "
            "(counted from 0); remove or impute them"
        )
    return x


def check_learning_rate(learning_rate: float | Schedule) -> None:
    """Raise a ValueError unless it is a positive number or a schedule."""
    if not callable(learning_rate) and not 0 < learning_rate < math.inf:
        raise ValueError(f"learning_rate must be a positive number or a schedule, not {learning_rate!r}")


def _check_programs(
    model: Program, guide: Program, x: Tensor, x_validation: Tensor | None, batch_size: int, elbo: ELBO
) -> list[Tensor]:
    """Run the programs with Pyro's validation on, before anything is trained; return the parameters."""

    def run(batch: Tensor) -> Any:
        with torch.no_grad(), torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
            return elbo.differentiable_loss(model, guide, batch)

    batch = x[:batch_size]
    try:
        with pyro.validation_enabled(True), mode(model, guide, training=False):
            parameters = trainable_parameters(model, guide, lambda: run(batch))
            if isinstance(model, nn.Module) and isinstance(guide, nn.Module):
                for data in (x, x_validation) if x_validation is not None else (x,):
                    for batch in data.split(4096):  # every datum must lie in the likelihood's support
                        run(batch)
    except NotImplementedError:
        raise  # an estimator's own refusal
    except (RuntimeError, ValueError) as error:
        raise cannot_run(batch, error) from error
    return parameters


def _at_final_beta(elbo: ELBO, beta: float | Schedule | None) -> ELBO:
    """The estimator with the β that the training ends at, so that epochs compare."""
    if beta is None:
        return elbo
    elbo = copy.copy(elbo)
    elbo.beta = float(beta(1.0)) if callable(beta) else float(beta)
    return elbo


def _mean_loss(batch_losses: list[float], num: int, batch_size: int) -> float:
    """Mean over the data of an epoch, whose last batch may be smaller."""
    sizes = [batch_size] * (len(batch_losses) - 1)
    sizes.append(num - sum(sizes))
    return math.fsum(loss * size for loss, size in zip(batch_losses, sizes, strict=True)) / num
