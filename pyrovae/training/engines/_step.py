"""One optimiser step of R replicas as a graph, and the loop over steps around it."""

import math
from collections.abc import Callable, Sequence
from functools import cache, cached_property, partial

import torch
from torch import Tensor

from pyrovae.randomness import random_state, set_random_state
from pyrovae.training.engines._base import State, Tensors
from pyrovae.training.engines._operations import Decompositions, Operations, operations_of
from pyrovae.training.engines._tracing import GradientGraph, grouped
from pyrovae.training.engines._xla import ArrayFunction, XlaLoop, as_tensors
from pyrovae.training.settings import TrainingSettings

Gradient = Callable[[Tensors, Tensors, Tensors, Tensor, Tensor, Tensors], tuple[Tensor, Tensors, Tensors]]

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
"""Adam's constants, PyTorch's defaults."""

_CHUNK_BYTES = 32 * 2**20
_CHUNK_STEPS = 512


class StepProgram:
    """A training step for batches of one shape.

    Args:
        gradient: loss and gradient of one replica.
        settings: settings of the training.
        replicas: their number R.
        x: a batch (size, …) of the shape of all batches.
    """

    def __init__(self, gradient: GradientGraph, settings: TrainingSettings, replicas: int, x: Tensor) -> None:
        self.gradient, self.settings, self.replicas, self._x = gradient, settings, replicas, x
        self.size = len(x)
        self.sizes = [p.numel() for p in gradient.parameters]
        step_bytes = replicas * (8 * len(x) + sum(d.shape.numel() * d.dtype.itemsize for d in gradient.draws))
        self.capacity = min(_CHUNK_STEPS, 2 ** max(0, int(math.log2(_CHUNK_BYTES / step_bytes))))
        self._in_one_call = self._can_draw_in_one_call(x)

    @cached_property
    def graph(self) -> Operations:
        """The step of all replicas as operations of PyTorch, over flat vectors."""
        flat = torch.cat([p.detach().reshape(-1) for p in self.gradient.parameters]).expand(self.replicas, -1).clone()
        state = (flat, torch.zeros_like(flat), torch.zeros_like(flat), *[b.clone() for b in self.gradient.buffers])
        x = self._x.expand(self.replicas, *self._x.shape).clone()
        noise = [each[:, 0] for each in self._example_noise()]
        one = self.gradient if self.replicas == 1 else self.gradient.vectorizable(self._x)
        row, fixed = flat.new_ones(4), self.gradient.fixed
        counts = [len(state), 1, len(noise), 1, len(fixed)]

        def all_replicas(*inputs: Tensor) -> Tensors:
            state, (x,), noise, (row,), fixed = grouped(inputs, counts)
            after, loss = self._all_replicas(one, state, x, noise, row, fixed)
            return [*after, loss]

        operations = operations_of(all_replicas, *state, x, *noise, row, *fixed)
        operations.tidy()
        return operations

    @cached_property
    def xla(self) -> XlaLoop:
        """The loop over steps, compiled at its first call.

        Raises:
            CannotTraceError: XLA lacks an operation of the step.
        """
        gradient, k = self.gradient, len(self.sizes)
        counts = [k, len(gradient.buffers), 1, len(noise := self._example_noise()), 1, len(gradient.fixed)]

        def slopes(*arguments: Tensor) -> Tensors:
            parameters, buffers, (x,), noise, (row,), fixed = grouped(arguments, counts)
            loss, derivatives, buffers = gradient(
                parameters, [b.clone() for b in buffers], fixed, x, row[2], self._by_draw(noise)
            )
            return [loss, *self._clipped(derivatives), *buffers]

        row = gradient.parameters[0].new_ones(4)
        parameters = [p.detach() for p in gradient.parameters]
        example = [*parameters, *gradient.buffers, self._x, *[each[0, 0] for each in noise], row, *gradient.fixed]
        few = [row.new_ones(2) for _ in range(4)]  # Adam treats every entry alike, so one graph serves all shapes
        return XlaLoop(_lowered(slopes, example), _lowered(self._adam, [*few, row]))

    def _example_noise(self) -> Tensors:
        return self.draw(1, 1, [random_state()] * self.replicas)[0]

    def _all_replicas(
        self, gradient: Gradient, state: Tensors, x: Tensor, noise: Tensors, row: Tensor, fixed: Tensors
    ) -> tuple[Tensors, Tensor]:
        step = partial(self._step, gradient)
        if self.replicas > 1:
            return torch.vmap(step, in_dims=(0, 0, 0, None, None))(state, x, noise, row, fixed)
        (flat, first, second, *buffers), loss = step(
            [*(s[0] for s in state[:3]), *state[3:]], x[0], [each[0] for each in noise], row, fixed
        )
        return [flat[None], first[None], second[None], *buffers], loss[None]

    def _step(
        self, gradient: Gradient, state: Tensors, x: Tensor, noise: Tensors, row: Tensor, fixed: Tensors
    ) -> tuple[Tensors, Tensor]:
        """A step on the flat parameters of one replica; the loss in nats."""
        flat, first, second, *buffers = state
        parameters = [
            part.view(p.shape) for part, p in zip(flat.split(self.sizes), self.gradient.parameters, strict=True)
        ]
        buffers = [b.clone() for b in buffers]
        loss, derivatives, buffers = gradient(parameters, buffers, fixed, x, row[2], self._by_draw(noise))
        slope = self._clipped([torch.cat([d.reshape(-1) for d in derivatives])])[0]
        return [*self._adam(flat, first, second, slope, row), *buffers], loss

    def _clipped(self, slopes: Tensors) -> Tensors:
        if self.settings.clip_norm is None:
            return slopes
        norm = torch.stack([slope.square().sum() for slope in slopes]).sum().sqrt()
        scale = (self.settings.clip_norm / (norm + 1e-6)).clamp(max=1.0)
        return [slope * scale for slope in slopes]

    def _adam(self, value: Tensor, first: Tensor, second: Tensor, slope: Tensor, row: Tensor) -> Tensors:
        """A parameter and its two moments after a step of Adam with decoupled weight decay."""
        rate, root, _, decay = row.unbind()
        first = _normal(torch.lerp(first, slope, 1 - BETA1))
        second = _normal(BETA2 * second + (1 - BETA2) * slope * slope)
        if self.settings.weight_decay > 0:
            value = value * (1 - decay)
        return [value - rate * first / (second.sqrt() * root + EPSILON), first, second]

    def loop(
        self, count: int, state: State, x: Tensor, index: Tensor, noise: Tensors, rows: Tensor
    ) -> tuple[State, Tensor]:
        """Run ``count`` steps of the graph; index (steps, R, size), noise (R, steps, …), rows (steps, 4)."""
        losses = rows.new_zeros(len(rows), self.replicas)
        flat = [torch.cat([v.reshape(self.replicas, -1) for v in as_tensors(each)], 1) for each in state[:3]]
        after = [*flat, *as_tensors(state[3])]
        for i in range(count):
            draws = [each[:, i] for each in noise]
            *after, losses[i] = self.graph(*after, x[index[i]], *draws, rows[i], *self.gradient.fixed)
        parameters, first, second = map(self._split, after[:3])
        return (parameters, first, second, after[3:]), losses

    def _split(self, flat: Tensor) -> Tensors:
        """A tensor (R, …) for each parameter from flat vectors (R, P)."""
        parts = zip(flat.split(self.sizes, 1), self.gradient.parameters, strict=True)
        return [part.reshape(-1, *p.shape) for part, p in parts]

    def draw(self, count: int, capacity: int, states: Sequence[Tensors]) -> tuple[Tensors, list[Tensors]]:
        """Noise of ``count`` steps, each replica's from its generator's state: tensors (R, capacity, …), new states.

        There is a tensor for each draw, or a single one if one call can fill it.
        """
        draws, after = self.gradient.draws, []
        like = self.gradient.parameters[0]
        if self._in_one_call:
            shapes = [torch.Size([sum(draw.shape.numel() for draw in draws)])]
        else:
            shapes = [draw.shape for draw in draws]
        noise = [
            torch.empty(self.replicas, capacity, *shape, dtype=draw.dtype, device=like.device)
            for shape, draw in zip(shapes, draws, strict=False)
        ]
        for r, state in enumerate(states):
            set_random_state(state)
            if self._in_one_call:
                noise[0][r, :count].normal_()
            else:
                for i in range(count):
                    for draw, out in zip(draws, noise, strict=True):
                        draw.fill(out[r, i])
            after.append(random_state())
        return noise, after

    def _by_draw(self, noise: Tensors) -> Tensors:
        """One step's noise of one replica, a tensor for each draw."""
        if not self._in_one_call:
            return noise
        draws = self.gradient.draws
        parts = noise[0].split([draw.shape.numel() for draw in draws])
        return [part.view(draw.shape) for part, draw in zip(parts, draws, strict=True)]

    def _can_draw_in_one_call(self, x: Tensor) -> bool:
        """Whether one call for many steps draws the same bits as one call per step."""
        draws = self.gradient.draws
        if x.is_cuda or not draws or any(d.dtype != draws[0].dtype or not d.standard_normal for d in draws):
            return False
        if any(draw.shape.numel() % 16 for draw in draws):  # PyTorch makes them by sixteen; what is left, otherwise
            return False
        with torch.random.fork_rng(devices=[]):
            start = random_state()
            one_by_one = torch.cat([each.reshape(-1) for _ in range(3) for each in self.gradient.draw()])
            end = random_state()
            set_random_state(start)
            return torch.equal(torch.empty_like(one_by_one).normal_(), one_by_one) and torch.equal(
                end[0], random_state()[0]
            )


_WHOLE = {"aten::addcmul", "aten::lerp", "aten::logsumexp", "aten::sgn", "aten::softplus"}
"""Operations that JAX gets as they are: what decomposes them imports PyTorch's compiler, which takes a second."""


@cache
def _to_core_aten() -> Decompositions:
    table = torch.export.default_decompositions()
    return {operation: parts for operation, parts in table.items() if operation.name().split(".")[0] not in _WHOLE}


def _lowered(function: Callable[..., Tensors], example: Tensors) -> ArrayFunction:
    """A function of tensors as one of JAX's arrays, by its graph of Core ATen operations."""
    from pyrovae.training.engines.lowering import lower

    in_values = torch.func.functionalize(lambda *tensors: function(*tensors))
    operations = operations_of(in_values, *example, decompositions=_to_core_aten())
    operations.tidy()
    return lower(operations)


def _normal(tensor: Tensor) -> Tensor:
    """The tensor with subnormal numbers as 0.

    The mean gradient of a unit that no longer fires decays by a tenth a step. It never reaches 0, for 0.9 of the
    smallest number is rounded to that number. Arithmetic with such numbers doubled the time of a step.
    """
    return torch.where(tensor.abs() < torch.finfo(tensor.dtype).tiny, 0.0, tensor)
