"""The compiled engine: many steps in one call of native code, with no Pyro and no Python in between.

A step of R replicas is one graph over flat vectors: the programs' loss and gradient, traced, and Adam. What a step
reads (its batch, its noise, its rate) lies in arrays over the steps, and a loop over them is compiled ahead of time.
This module knows of no family of distributions.
"""

from collections.abc import Generator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from pyro.infer import ELBO
from torch import Tensor, nn

from pyrovae.programs import Pair, module_buffers
from pyrovae.randomness import random_state, set_random_state
from pyrovae.training._losses import NonFiniteStepError, find_nonfinite
from pyrovae.training._state import EngineState
from pyrovae.training.engines._ahead_of_time import CannotCompileError
from pyrovae.training.engines._draws import CannotTraceError
from pyrovae.training.engines._step import BETA1, BETA2, State, StepProgram
from pyrovae.training.engines._tracing import trace_gradient
from pyrovae.training.settings import Engine, TrainingSettings


class CompiledEngine:
    """Run steps of R pairs of programs that are alike but for their tensors, without Pyro.

    The loop over steps runs in native code once :meth:`compile` has made it; until then, its graph step by step.

    Args:
        pairs: (model, guide) of each replica.
        elbo: the estimator.
        parameters: each replica's leaf tensors to train, in the same order.
        settings: of the training; replica r draws its noise from seed + r.
        x: data (num, …), of which the first batch is traced.

    Raises:
        CannotTraceError: the programs are not one fixed graph.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        elbo: ELBO,
        parameters: Sequence[list[Tensor]],
        settings: TrainingSettings,
        x: Tensor,
    ) -> None:
        self.pairs, self.elbo, self.settings = list(pairs), elbo, settings
        self.parameters = [list(own) for own in parameters]
        self.full = min(settings.batch_size, len(x))
        self.native = False
        self.x = x
        self.steps = 0
        self.errors: dict[int, NonFiniteStepError] = {}
        self.noise_states = []
        for r in range(len(self.pairs)):
            torch.manual_seed(settings.seed + r)
            self.noise_states.append(random_state())
        self._programs: dict[int, StepProgram] = {}
        self._check_alike()
        program = self._program(x[: self.full])
        traced = {id(p) for p in program.gradient.parameters}
        changed = {id(b) for b in program.gradient.buffers}
        self._trained = [i for i, p in enumerate(self.parameters[0]) if id(p) in traced]
        self._changing = [i for i, b in enumerate(module_buffers(*self.pairs[0])) if id(b) in changed]
        flat = self._gather(self.parameters)
        buffers = [b.clone() for b in program.gradient.buffers]
        self.state: State = (flat, torch.zeros_like(flat), torch.zeros_like(flat), *buffers)
        if len(x) % self.full:
            left_over = self._program(x[: len(x) % self.full]).gradient
            if {id(t) for t in (*left_over.parameters, *left_over.buffers)} != traced | changed:
                raise CannotTraceError("a batch of another size trains other parameters")

    def _check_alike(self) -> None:
        """Replicas share what is not trained, and Pyro's names of their parameters must not make them one."""
        if len(self.pairs) == 1:
            return
        trained = [{id(p) for p in own} for own in self.parameters]
        held = []
        for pair, own in zip(self.pairs, trained, strict=True):
            modules = [program for program in pair if isinstance(program, nn.Module)]
            tensors = [t for module in modules for t in (*module.parameters(), *module.buffers())]
            held.append([t for t in tensors if id(t) not in own])
        for others in held[1:]:
            if not all(torch.equal(a, b) for a, b in zip(held[0], others, strict=True)):
                raise CannotTraceError("replicas differ in tensors that are not trained")

    @property
    def name(self) -> Engine:
        """Compiled, or the graph run step by step."""
        return Engine.COMPILED if self.native else Engine.GRAPH

    def compile(self) -> None:
        """Make the native code for full batches, or load it, and use it from now on.

        Raises:
            CannotCompileError: there is no compiler, or it failed, or the parameters are on a GPU.
        """
        if self.state[0].is_cuda:
            raise CannotCompileError("native code is made for the CPU alone; on a GPU use engine='eager'")
        self._programs[self.full].native.load()
        self.native = True

    def _program(self, batch: Tensor) -> StepProgram:
        """The step for batches of this size."""
        if len(batch) not in self._programs:
            model, guide = self.pairs[0]
            gradient = trace_gradient(
                model, guide, self.elbo, self.parameters[0], batch, self.x, beta_is_input=self.settings.beta is not None
            )
            if len(self.pairs) > 1 and gradient.buffers:
                raise CannotTraceError("a step changes a module's buffer, which replicas in one program would share")
            try:
                self._programs[len(batch)] = StepProgram(gradient, self.settings, len(self.pairs), batch)
            except Exception as error:  # for one, an operation that torch.vmap does not know
                reason = " ".join(str(error).split())[:200]
                what = "replicas of them cannot run as one" if len(self.pairs) > 1 else "they cannot be traced"
                raise CannotTraceError(f"{what} ({reason})") from error
        return self._programs[len(batch)]

    def run(
        self, x: Tensor, batches: list[Tensor], rates: NDArray[np.float64], betas: NDArray[np.float64] | None
    ) -> Generator[NDArray[np.float64], None, None]:
        """Make one step for each batch of indices (R, size); yield losses (steps, R) in nats per datum.

        A replica whose loss is not finite stops with the parameters before that step, and is in ``errors``.
        """
        buffers = module_buffers(*self.pairs[0])  # a callback may have changed them, and the parameters
        self.state = (self._gather(self.parameters), *self.state[1:3], *[buffers[i].clone() for i in self._changing])
        try:
            start = 0
            while start < len(batches) and len(self.errors) < len(self.pairs):
                size = batches[start].shape[1]
                program = self._program(x[batches[start][0]])
                stop = start + 1
                while stop < min(start + program.capacity, len(batches)) and batches[stop].shape[1] == size:
                    stop += 1
                index = torch.stack(batches[start:stop])
                rows = self._rows(rates[start:stop], None if betas is None else betas[start:stop])
                yield self._chunk(program, x, index, rows)
                start = stop
        finally:
            self.write_back()

    def _chunk(self, program: StepProgram, x: Tensor, index: Tensor, rows: Tensor) -> NDArray[np.float64]:
        count, size = len(index), index.shape[2]
        native = self.native and size == self.full
        capacity = program.capacity if native else count
        state, noise_states = self.state, self.noise_states
        noise, noise_states_after = program.draw(count, capacity, noise_states)
        batches = x[index.reshape(-1)].view(*index.shape, *x.shape[1:])
        arguments = (count, state, _padded(batches, capacity), noise, _padded(rows, capacity))
        after, losses = program.native(*arguments, program.gradient.fixed) if native else program.loop(*arguments)
        values = losses[:count].double().cpu().numpy() / size
        for r in range(len(self.pairs)):
            if r not in self.errors and not np.isfinite(values[:, r]).all():
                k = int(np.argmin(np.isfinite(values[:, r])))
                before = program.loop(k, state, batches, noise, rows)[0]
                self._write(r, before)
                set_random_state(program.draw(k, k, noise_states)[1][r])
                site = find_nonfinite(*self.pairs[r], batches[k, r], self.parameters[r])
                self.errors[r] = NonFiniteStepError(float(values[k, r]), site, self.steps + k + 1)
        self.state, self.noise_states, self.steps = after, noise_states_after, self.steps + count
        return values

    def _rows(self, rates: NDArray[np.float64], betas: NDArray[np.float64] | None) -> Tensor:
        """What else each step needs: rate over bias correction, 1/√(the second's), β, and the share that decays."""
        step = self.steps + 1 + np.arange(len(rates))
        columns = [
            rates / (1 - BETA1**step),
            1 / np.sqrt(1 - BETA2**step),
            np.ones(len(rates)) if betas is None else betas,
            rates * self.settings.weight_decay,
        ]
        return torch.as_tensor(np.stack(columns, axis=1)).to(self.state[0])

    @torch.no_grad()
    def write_back(self) -> None:
        """Give the programs their current parameters and buffers."""
        for r in range(len(self.pairs)):
            if r not in self.errors:
                self._write(r, self.state)

    @torch.no_grad()
    def _write(self, r: int, state: State) -> None:
        own = [self.parameters[r][i] for i in self._trained]
        for p, value in zip(own, self._split(state[0][r], own), strict=True):
            p.copy_(value)
        buffers = module_buffers(*self.pairs[r])
        for i, value in zip(self._changing, state[3:], strict=True):
            buffers[i].copy_(value)

    @staticmethod
    def _split(flat: Tensor, like: list[Tensor]) -> list[Tensor]:
        parts = flat.split([p.numel() for p in like])
        return [part.view_as(p).clone() for part, p in zip(parts, like, strict=True)]

    def _gather(self, tensors: Sequence[list[Tensor]]) -> Tensor:
        """Flat vectors (R, P) of the trained ones among each replica's tensors."""
        return torch.stack([torch.cat([own[i].detach().reshape(-1) for i in self._trained]) for own in tensors])

    def state_dict(self) -> EngineState:
        """Everything that the next step depends on, copied."""
        moments: list[list[list[Tensor]]] = [[], []]
        for which, saved in enumerate(moments):
            for r, given in enumerate(self.parameters):
                spread = [torch.zeros_like(p) for p in given]
                parts = self._split(self.state[1 + which][r], [given[i] for i in self._trained])
                for i, value in zip(self._trained, parts, strict=True):
                    spread[i] = value
                saved.append(spread)
        counts = [self.steps if i in self._trained else 0 for i in range(len(self.parameters[0]))]
        return {
            "steps": self.steps,
            "errors": {r: (e.value, e.site, e.step) for r, e in self.errors.items()},
            "noise_states": [[s.clone() for s in states] for states in self.noise_states],
            "parameters": [[p.detach().clone() for p in own] for own in self.parameters],
            "buffers": [[b.clone() for b in module_buffers(*pair)] for pair in self.pairs],
            "first_moments": moments[0],
            "second_moments": moments[1],
            "counts": [counts for _ in self.pairs],
        }

    @torch.no_grad()
    def load_state_dict(self, state: EngineState) -> None:
        """Go back to a state of either engine."""
        self.steps = state["steps"]
        self.errors = {r: NonFiniteStepError(*error) for r, error in state["errors"].items()}
        self.noise_states = [[s.clone() for s in states] for states in state["noise_states"]]
        for own, pair, saved, saved_buffers in zip(
            self.parameters, self.pairs, state["parameters"], state["buffers"], strict=True
        ):
            for tensor, value in zip([*own, *module_buffers(*pair)], [*saved, *saved_buffers], strict=True):
                tensor.copy_(value)
        flat = self._gather(self.parameters)
        first, second = (self._gather(state[which]).to(flat) for which in ("first_moments", "second_moments"))
        buffers = module_buffers(*self.pairs[0])
        self.state = (flat, first, second, *[buffers[i].clone() for i in self._changing])


def _padded(tensor: Tensor, length: int) -> Tensor:
    """The tensor with as many more entries of its first dimension as make up a length."""
    if len(tensor) == length:
        return tensor.contiguous()
    padded = tensor.new_zeros(length, *tensor.shape[1:])
    padded[: len(tensor)] = tensor
    return padded
