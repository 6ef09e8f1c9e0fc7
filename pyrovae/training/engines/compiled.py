"""The compiled engine: many steps in one call of a loop compiled with XLA, without Pyro or Python in between.

A step of R replicas is one graph: the programs' traced loss and gradient, and Adam. The inputs of the steps (indices of
data, noise, learning rate) are arrays, and XLA compiles a loop over them. This module knows no family of distributions.
"""

from collections.abc import Generator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from pyro.infer import ELBO
from torch import Tensor

from pyrovae.blocks import is_mapped, take
from pyrovae.errors import InputError, one_line
from pyrovae.programs import Pair, module_buffers
from pyrovae.randomness import set_random_state
from pyrovae.training._batches import Order
from pyrovae.training._losses import NonFiniteStepError, find_nonfinite
from pyrovae.training.engines._base import State, StepEngine, Tensors, Values
from pyrovae.training.engines._draws import CannotTraceError
from pyrovae.training.engines._step import BETA1, BETA2, StepProgram
from pyrovae.training.engines._tracing import module_tensors, trace_gradient
from pyrovae.training.engines._xla import as_tensors
from pyrovae.training.settings import Engine, TrainingSettings

_LEAST_LEFT_OVER = 500
"""With so many epochs or more, the step of the smaller last batch is compiled too."""

_READ_AT_ONCE = 2**26
"""Bytes of a mapped file whose rows are read at once."""


class CompiledEngine(StepEngine):
    """Run steps of R pairs of programs that differ only in their tensors, without Pyro.

    After :meth:`compile`, the loop over steps runs compiled; before, its graph runs step by step.

    Args:
        pairs: (model, guide) of each replica.
        elbo: the estimator.
        parameters: each replica's leaf tensors to train, in the same order.
        settings: settings of the training; replica r draws its noise from seed + r.
        x: data (num, …), of which the first batch is traced.

    Raises:
        CannotTraceError: the programs are not one fixed graph.
    """

    name = Engine.GRAPH

    def __init__(
        self, pairs: Sequence[Pair], elbo: ELBO, parameters: Sequence[Tensors], settings: TrainingSettings, x: Tensor
    ) -> None:
        super().__init__(pairs, elbo, parameters, settings)
        self.full, self.x = min(settings.batch_size, len(x)), x
        self._programs: dict[int, StepProgram] = {}
        self._check_alike()
        gradient = self._program(x[: self.full]).gradient
        traced = {id(t) for t in (*gradient.parameters, *gradient.buffers)}
        self._trained = [i for i, p in enumerate(self.parameters[0]) if id(p) in traced]
        self._changing = [i for i, b in enumerate(module_buffers(*self.pairs[0])) if id(b) in traced]
        first, second = ([torch.zeros_like(p) for p in self._stacked(self.parameters)] for _ in range(2))
        self.state = self._state_with(first, second)
        if len(x) % self.full:
            left_over = self._program(x[: len(x) % self.full]).gradient
            if {id(t) for t in (*left_over.parameters, *left_over.buffers)} != traced:
                raise CannotTraceError("a batch of another size trains other parameters")

    def _check_alike(self) -> None:
        """Replicas share what is not trained, and Pyro's names of their parameters must not make them one."""
        if len(self.pairs) == 1:
            return
        fixed = []
        for pair, parameters in zip(self.pairs, self.parameters, strict=True):
            trained = {id(p) for p in parameters}
            fixed.append([t for t in module_tensors(pair) if id(t) not in trained])
        for others in fixed[1:]:
            if not all(torch.equal(a, b) for a, b in zip(fixed[0], others, strict=True)):
                raise CannotTraceError("replicas differ in tensors that are not trained")

    def trace(self) -> None:
        """Make the graph that :meth:`run` uses step by step if nothing is compiled.

        Raises:
            CannotTraceError: replicas cannot run as one.
        """
        for program in self._programs.values():
            self._make(program)

    def compile(self) -> None:
        """Compile the loop over steps, and use that from now on.

        Raises:
            CannotTraceError: XLA lacks an operation of the step, or replicas cannot run as one.
        """
        self.name = Engine.COMPILED
        try:
            self.trace()
        except InputError:
            self.name = Engine.GRAPH
            raise

    def _make(self, program: StepProgram) -> None:
        """Trace the programs' step once more, and compile it if it is to run compiled."""
        try:
            if not self._is_compiled(program):
                _ = program.graph
                return
            index = torch.zeros(program.capacity, len(self.pairs), program.size, dtype=torch.int64)
            noise, _ = program.draw(0, program.capacity, self.noise_states)
            rows, x = self.parameters[0][0].new_zeros(program.capacity, 4), self.x
            if is_mapped(x):
                x = x.new_zeros(index.numel(), *x.shape[1:])
            program.xla(0, self.state, x, index, noise, rows, program.gradient.fixed)
        except InputError:
            raise
        except Exception as error:  # for one, an operation that torch.vmap does not know
            what = "replicas of them cannot run as one" if len(self.pairs) > 1 else "they cannot be traced"
            raise CannotTraceError(f"{what} ({one_line(error, 200)})") from error

    def _is_compiled(self, program: StepProgram) -> bool:
        """Whether the step runs compiled. The smaller last batch comes once an epoch, so compiling it may not pay."""
        often = program.size == self.full or self.settings.epochs >= _LEAST_LEFT_OVER
        return self.name == Engine.COMPILED and often

    def _program(self, batch: Tensor) -> StepProgram:
        """The step for batches of this size."""
        if len(batch) not in self._programs:
            weighted = self.settings.beta is not None
            gradient = trace_gradient(
                self.pairs[0], self.elbo, self.parameters[0], batch, self.x, beta_is_input=weighted
            )
            if len(self.pairs) > 1 and gradient.buffers:
                raise CannotTraceError("a step changes a module's buffer, which replicas in one program would share")
            made = StepProgram(gradient, self.settings, len(self.pairs), batch)
            if is_mapped(self.x):  # a chunk's rows are read together
                made.capacity = max(1, min(made.capacity, _READ_AT_ONCE // (len(self.pairs) * batch.nbytes)))
            self._programs[len(batch)] = made
        return self._programs[len(batch)]

    def run(
        self, x: Tensor, batches: Order, rates: NDArray[np.float64], betas: NDArray[np.float64] | None
    ) -> Generator[NDArray[np.float64], None, None]:
        """Make the steps, many at a time; see :meth:`StepEngine.run`."""
        self.state = self._state_with(*self.state[1:3])  # a callback may have changed parameters and buffers
        try:
            start = 0
            while start < len(batches) and len(self.errors) < len(self.pairs):
                size = batches[start].shape[1]
                program = self._program(take(x, batches[start][0]))
                stop = min(start + program.capacity, len(batches))
                while batches[stop - 1].shape[1] != size:  # the last batch of an epoch may be smaller
                    stop -= 1
                index = batches[start:stop].stacked()
                rows = self._rows(rates[start:stop], None if betas is None else betas[start:stop])
                yield self._chunk(program, x, index, rows)
                start = stop
        finally:
            self.write_back()

    def _chunk(self, program: StepProgram, x: Tensor, index: Tensor, rows: Tensor) -> NDArray[np.float64]:
        count = len(index)
        compiled = self._is_compiled(program)
        capacity = program.capacity if compiled else count
        state, noise_states = self.state, self.noise_states
        noise, noise_states_after = program.draw(count, capacity, noise_states)
        if is_mapped(x):
            x, index = take(x, index.flatten()), torch.arange(index.numel()).view_as(index)
            x = _padded(x, capacity * index[0].numel())
        index, rows = _padded(index, capacity), _padded(rows, capacity)

        def run(count: int) -> tuple[State, Tensor]:
            if compiled:
                return program.xla(count, state, x, index, noise, rows, program.gradient.fixed)
            return program.loop(count, state, x, index, noise, rows)

        after, losses = run(count)
        values = losses[:count].double().cpu().numpy() / program.size
        for r in range(len(self.pairs)):
            if r not in self.errors and not np.isfinite(values[:, r]).all():
                k = int(np.argmin(np.isfinite(values[:, r])))
                self._write(r, run(k)[0])
                set_random_state(program.draw(k, k, noise_states)[1][r])
                site = find_nonfinite(*self.pairs[r], x[index[k, r]], self.parameters[r])
                self.errors[r] = NonFiniteStepError(float(values[k, r]), site, self.steps + k + 1)
        self.state, self.noise_states, self.steps = after, noise_states_after, self.steps + count
        return values

    def _rows(self, rates: NDArray[np.float64], betas: NDArray[np.float64] | None) -> Tensor:
        """Four numbers for each step: rate over bias correction, 1/√(the second correction), β, and weight decay."""
        step = self.steps + 1 + np.arange(len(rates))
        columns = [
            rates / (1 - BETA1**step),
            1 / np.sqrt(1 - BETA2**step),
            np.ones(len(rates)) if betas is None else betas,
            rates * self.settings.weight_decay,
        ]
        return torch.as_tensor(np.stack(columns, axis=1)).to(self.parameters[0][0].detach())

    def write_back(self) -> None:
        """Give the programs their current parameters and buffers."""
        for r in range(len(self.pairs)):
            if r not in self.errors:
                self._write(r, self.state)

    @torch.no_grad()
    def _write(self, r: int, state: State) -> None:
        buffers = module_buffers(*self.pairs[r])
        tensors = [*(self.parameters[r][i] for i in self._trained), *(buffers[i] for i in self._changing)]
        for tensor, value in zip(tensors, [*(p[r] for p in as_tensors(state[0])), *as_tensors(state[3])], strict=True):
            tensor.copy_(value)

    def _stacked(self, tensors: Sequence[Tensors]) -> Tensors:
        """The trained ones among each replica's tensors, (R, …)."""
        return [torch.stack([each[i].detach() for each in tensors]) for i in self._trained]

    def _state_with(self, first: Values, second: Values) -> State:
        """The programs' parameters and buffers as they are now, and moments."""
        buffers = module_buffers(*self.pairs[0])
        return self._stacked(self.parameters), first, second, [buffers[i].clone() for i in self._changing]

    def _moments(self) -> tuple[list[Tensors], list[Tensors], list[list[int]]]:
        first, second = (self._of_replicas(as_tensors(moments)) for moments in self.state[1:3])
        counts = [self.steps if i in self._trained else 0 for i in range(len(self.parameters[0]))]
        return first, second, [counts for _ in self.pairs]

    def _of_replicas(self, stacked: Tensors) -> list[Tensors]:
        """A tensor for each parameter of each replica from the trained ones' (R, …)."""
        found = [[torch.zeros_like(p) for p in self.parameters[0]] for _ in self.pairs]
        for r, tensors in enumerate(found):
            for i, value in zip(self._trained, stacked, strict=True):
                tensors[i] = value[r].clone()
        return found

    def _set_moments(self, first: list[Tensors], second: list[Tensors], counts: list[list[int]]) -> None:
        like = self._stacked(self.parameters)
        moments = ([v.to(p) for v, p in zip(self._stacked(each), like, strict=True)] for each in (first, second))
        self.state = self._state_with(*moments)


def _padded(tensor: Tensor, length: int) -> Tensor:
    """The tensor with zeros at the end, so that its first dimension has this length."""
    if len(tensor) == length:
        return tensor.contiguous()
    padded = tensor.new_zeros(length, *tensor.shape[1:])
    padded[: len(tensor)] = tensor
    return padded
