"""The eager engine: every step runs the Pyro programs and calls PyTorch's optimiser."""

import math
from collections.abc import Generator
from contextlib import nullcontext

import numpy as np
import pyro.poutine as poutine
import torch
from numpy.typing import NDArray
from pyro.infer import ELBO
from torch import Tensor, nn

from pyrovae.elbo import BetaELBO
from pyrovae.programs import Program, announced_parameters, module_buffers, unregistered
from pyrovae.randomness import random_state, set_random_state
from pyrovae.training._losses import NonFiniteStepError, find_nonfinite
from pyrovae.training._state import EngineState
from pyrovae.training.settings import Engine, TrainingSettings


class EagerEngine:
    """Run steps one by one; takes any programs.

    Args:
        model: Pyro program of the joint density.
        guide: Pyro program of q(z|x).
        elbo: the estimator.
        parameters: leaf tensors to train; functions may announce more at any step.
        settings: of the training.
    """

    name = Engine.EAGER

    def __init__(
        self, model: Program, guide: Program, elbo: ELBO, parameters: list[Tensor], settings: TrainingSettings
    ):
        self.model, self.guide = model, guide
        self.elbo = elbo
        self._own = list(parameters)
        self.clip_norm = settings.clip_norm
        self.optimizer = torch.optim.AdamW(self._own, lr=0.0, weight_decay=settings.weight_decay, fused=True)
        self.steps = 0
        self.errors: dict[int, NonFiniteStepError] = {}
        torch.manual_seed(settings.seed)
        self.noise_states = [random_state()]
        # Modules hold their parameters; functions, as under SVI, may announce new ones at any step.
        self.modules_only = isinstance(model, nn.Module) and isinstance(guide, nn.Module)

    @property
    def parameters(self) -> list[list[Tensor]]:
        """The leaf tensors that are trained, of the one replica."""
        return [self._own]

    def run(
        self, x: Tensor, batches: list[Tensor], rates: NDArray[np.float64], betas: NDArray[np.float64] | None
    ) -> Generator[NDArray[np.float64], None, None]:
        """Make one step for each batch of indices (1, size); yield losses (steps, 1) in nats per datum.

        It stops with the parameters before a step whose loss is not finite, which is then in ``errors``.
        """
        set_random_state(self.noise_states[0])
        try:
            for k, (index, rate) in enumerate(zip(batches, rates, strict=True)):
                elbo = self.elbo
                if betas is not None and isinstance(elbo, BetaELBO):
                    elbo = elbo.with_beta(float(betas[k]))
                try:
                    value = self._step(elbo, x[index[0]], float(rate))
                except NonFiniteStepError as error:
                    self.errors[0] = error
                    return
                yield np.array([[value]])
        finally:
            self.noise_states = [random_state()]

    def _step(self, elbo: ELBO, batch: Tensor, rate: float) -> float:
        before = random_state()
        with unregistered() if self.modules_only else nullcontext():
            with nullcontext() if self.modules_only else poutine.trace(param_only=True) as capture:
                loss = elbo.differentiable_loss(self.model, self.guide, batch)
            if capture is not None:
                self._adopt(announced_parameters(capture.trace))
            value: float = loss.item() / len(batch)
            if not math.isfinite(value):
                set_random_state(before)
                site = find_nonfinite(self.model, self.guide, batch, self._own)
                raise NonFiniteStepError(value, site, self.steps + 1)
            loss.backward()
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(self._own, self.clip_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.steps += 1
        return value

    def _adopt(self, announced: list[Tensor]) -> None:
        known = {id(parameter) for parameter in self._own}
        for parameter in announced:
            if id(parameter) not in known and parameter.requires_grad:
                self._own.append(parameter)
                self.optimizer.add_param_group({"params": [parameter]})

    def state_dict(self) -> EngineState:
        """Everything that the next step depends on, copied."""
        states = [self.optimizer.state.get(p, {}) for p in self._own]
        return {
            "steps": self.steps,
            "errors": {r: (e.value, e.site, e.step) for r, e in self.errors.items()},
            "noise_states": [[s.clone() for s in states] for states in self.noise_states],
            "parameters": [[p.detach().clone() for p in self._own]],
            "buffers": [[b.clone() for b in module_buffers(self.model, self.guide)]],
            "first_moments": [[_moment(s, "exp_avg", p) for s, p in zip(states, self._own, strict=True)]],
            "second_moments": [[_moment(s, "exp_avg_sq", p) for s, p in zip(states, self._own, strict=True)]],
            "counts": [[int(s["step"]) if s else 0 for s in states]],
        }

    def load_state_dict(self, state: EngineState) -> None:
        """Go back to a state of either engine."""
        self.steps = state["steps"]
        self.errors = {r: NonFiniteStepError(*error) for r, error in state["errors"].items()}
        self.noise_states = [[s.clone() for s in states] for states in state["noise_states"]]
        with torch.no_grad():
            buffers = module_buffers(self.model, self.guide)
            tensors, values = [*self._own, *buffers], [*state["parameters"][0], *state["buffers"][0]]
            for tensor, value in zip(tensors, values, strict=True):
                tensor.copy_(value)
        saved = zip(state["first_moments"][0], state["second_moments"][0], state["counts"][0], strict=True)
        for p, (first, second, count) in zip(self._own, saved, strict=True):
            step = torch.tensor(float(count), device=p.device)
            self.optimizer.state[p] = {
                "step": step,
                "exp_avg": first.to(p, copy=True),
                "exp_avg_sq": second.to(p, copy=True),
            }


def _moment(state: dict[str, Tensor], name: str, parameter: Tensor) -> Tensor:
    return state[name].clone() if name in state else torch.zeros_like(parameter)
