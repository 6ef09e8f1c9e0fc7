"""Data and programs, looked at before anything is trained."""

from typing import Any

import numpy as np
import pyro
import torch
from pyro.infer import ELBO
from torch import Tensor, nn

from pyrovae.registration import cannot_run, check_values, mode
from pyrovae.training.process import out_of_memory
from pyrovae.training.programs import Program, trainable_parameters
from pyrovae.training.settings import Settings


def check_estimator(elbo: ELBO, settings: Settings) -> None:
    """Raise unless an estimator can be trained with these settings."""
    if not isinstance(elbo, ELBO):
        raise TypeError(f"elbo must be an estimator such as AnalyticELBO(), not {type(elbo).__name__}")
    if not hasattr(elbo, "differentiable_loss"):
        raise TypeError(f"{type(elbo).__name__} has no differentiable_loss; use an estimator of pyrovae")
    if settings.beta is not None and not hasattr(elbo, "beta"):
        raise ValueError(f"{type(elbo).__name__} has no beta; use an estimator of pyrovae")


def as_data(
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
    x = x.contiguous()
    check_values(name, x, model, guide)
    return x


def check_programs(
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
        if out_of_memory(error):
            raise
        raise cannot_run(batch, error) from error
    return parameters
