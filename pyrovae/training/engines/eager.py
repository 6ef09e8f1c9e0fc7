"""The eager engine: every step runs the Pyro programs and calls PyTorch's optimiser."""

import math
from collections.abc import Generator
from contextlib import nullcontext
from functools import cached_property

import numpy as np
import pyro.poutine as poutine
import torch
from numpy.typing import NDArray
from pyro.infer import ELBO
from torch import Tensor, nn

from pyrovae.blocks import take
from pyrovae.elbo import BetaELBO
from pyrovae.programs import Pair, announced_parameters, unregistered
from pyrovae.randomness import random_state, set_random_state
from pyrovae.training import processes
from pyrovae.training._batches import Order
from pyrovae.training._losses import NonFiniteStepError, find_nonfinite
from pyrovae.training.engines._base import StepEngine, Tensors
from pyrovae.training.engines._precision import check_takes_bfloat16, networks_in_bfloat16
from pyrovae.training.engines._sharing import SharedLoss
from pyrovae.training.settings import Engine, TrainingSettings


class EagerEngine(StepEngine):
    """Run steps one by one; takes any programs. The processes of ``torchrun`` share each batch of modules.

    Args:
        pair: Pyro programs of the joint density and of q(z|x).
        elbo: the estimator.
        parameters: leaf tensors to train; functions may announce more at any step.
        settings: settings of the training.
    """

    name = Engine.EAGER

    def __init__(self, pair: Pair, elbo: ELBO, parameters: Tensors, settings: TrainingSettings) -> None:
        super().__init__([pair], elbo, [parameters], settings)
        (self._parameters,) = self.parameters
        # Modules hold their parameters; functions, as under SVI, may announce new ones at any step.
        self.modules_only = all(isinstance(program, nn.Module) for program in pair)
        self._is_mixed = settings.precision == "bf16"
        if self._is_mixed:
            check_takes_bfloat16(pair, self._parameters)
        self._shared = SharedLoss(pair, self._parameters) if processes.size() > 1 else None

    @cached_property
    def optimizer(self) -> torch.optim.AdamW:
        """PyTorch's optimiser. Its first use imports PyTorch's compiler, which takes a second."""
        return torch.optim.AdamW(self._parameters, lr=0.0, weight_decay=self.settings.weight_decay, fused=True)

    def run(
        self, x: Tensor, batches: Order, rates: NDArray[np.float64], betas: NDArray[np.float64] | None
    ) -> Generator[NDArray[np.float64], None, None]:
        """Make the steps one by one; see :meth:`StepEngine.run`."""
        set_random_state(self.noise_states[0])
        try:
            for k, (index, rate) in enumerate(zip(batches, rates, strict=True)):
                elbo, before = self.elbo, random_state()
                if betas is not None and isinstance(elbo, BetaELBO):
                    elbo = elbo.with_beta(float(betas[k]))
                with (
                    unregistered() if self.modules_only else nullcontext(),
                    networks_in_bfloat16(self.pairs[0]) if self._is_mixed else nullcontext(),
                ):
                    if self._shared is not None:
                        loss, total = self._shared(elbo, x, index[0])
                    else:
                        with nullcontext() if self.modules_only else poutine.trace(param_only=True) as capture:
                            loss = elbo.differentiable_loss(*self.pairs[0], take(x, index[0]))
                        if capture is not None:
                            self._adopt(announced_parameters(capture.trace))
                        total = loss.item()
                    value = total / len(index[0])
                    if not math.isfinite(value):
                        set_random_state(before)
                        site = find_nonfinite(*self.pairs[0], take(x, index[0]), self._parameters)
                        self.errors[0] = NonFiniteStepError(value, site, self.steps + 1)
                        return
                    loss.backward()
                if self.settings.clip_norm is not None:
                    nn.utils.clip_grad_norm_(self._parameters, self.settings.clip_norm)
                for group in self.optimizer.param_groups:
                    group["lr"] = float(rate)
                self.optimizer.step()
                self.optimizer.zero_grad()
                self.steps += 1
                yield np.array([[value]])
        finally:
            self.noise_states = [random_state()]

    def _adopt(self, announced: Tensors) -> None:
        optimizer, known = self.optimizer, {id(parameter) for parameter in self._parameters}
        for parameter in announced:
            if id(parameter) not in known and parameter.requires_grad:
                self._parameters.append(parameter)
                optimizer.add_param_group({"params": [parameter]})

    def _moments(self) -> tuple[list[Tensors], list[Tensors], list[list[int]]]:
        states = [self.optimizer.state.get(p, {}) for p in self._parameters]
        first, second = (
            [s[name].clone() if s else torch.zeros_like(p) for s, p in zip(states, self._parameters, strict=True)]
            for name in ("exp_avg", "exp_avg_sq")
        )
        return [first], [second], [[int(s["step"]) if s else 0 for s in states]]

    def _set_moments(self, first: list[Tensors], second: list[Tensors], counts: list[list[int]]) -> None:
        for p, mean, square, count in zip(self._parameters, first[0], second[0], counts[0], strict=True):
            self.optimizer.state[p] = {
                "step": torch.tensor(float(count), device=p.device),
                "exp_avg": mean.to(p, copy=True),
                "exp_avg_sq": square.to(p, copy=True),
            }
