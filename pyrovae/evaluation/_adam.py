"""Adam (Kingma & Ba 2015), of which PyTorch's own takes a second to import ``torch._dynamo``."""

from collections.abc import Sequence

import torch
from torch import Tensor


class Adam:
    """Moves tensors in place against their gradients: p ← p − rate · m̂/(√v̂ + ε).

    Args:
        parameters: what to move.
        betas: how much of the means of the gradients and of their squares stays at each step.
        eps: ε.
    """

    def __init__(
        self, parameters: Sequence[Tensor], betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
    ) -> None:
        self.parameters, self.betas, self.eps = parameters, betas, eps
        self.means = [torch.zeros_like(p) for p in parameters]
        self.squares = [torch.zeros_like(p) for p in parameters]
        self.num_steps = 0

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor | None], rate: float) -> None:
        """One step; a parameter without a gradient stays."""
        self.num_steps += 1
        first, second = (1 - beta**self.num_steps for beta in self.betas)
        for p, mean, square, gradient in zip(self.parameters, self.means, self.squares, gradients, strict=True):
            if gradient is not None:
                mean.lerp_(gradient, 1 - self.betas[0])
                square.mul_(self.betas[1]).addcmul_(gradient, gradient, value=1 - self.betas[1])
                p.addcdiv_(mean, (square / second).sqrt_().add_(self.eps), value=-rate / first)
