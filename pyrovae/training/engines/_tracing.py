"""The loss of any Pyro programs and its gradient as one graph of tensor operations, random draws as its inputs.

The programs run once under a tracer, so Pyro's handlers do not appear in the graph. The tracer recognises the programs'
tensors by identity. So modules, functions with ``pyro.param`` and closures all work.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from pyro.infer import ELBO
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from pyrovae.blocks import take
from pyrovae.elbo import BetaELBO
from pyrovae.errors import one_line
from pyrovae.programs import Pair, unregistered
from pyrovae.randomness import kept_random_state, random_state, set_random_state, state_elsewhere
from pyrovae.training.engines._base import Tensors
from pyrovae.training.engines._draws import CannotTraceError, Draw, Recorder, Replayer, make_draws
from pyrovae.training.engines._operations import DATA_DEPENDENT, Operations, operations_of


@dataclass(frozen=True)
class GradientGraph:
    """Loss, gradient and updated buffers of a step as a function of tensors alone.

    Attributes:
        graph: the function, as traced.
        parameters: leaf tensors that the loss depends on.
        buffers: the programs' tensors that a step changes, such as running means.
        fixed: the programs' other tensors, and tensors made from numbers.
        draws: the draw that fills each tensor of ``noise``, in order.
    """

    graph: Operations
    parameters: Tensors
    buffers: Tensors
    fixed: Tensors
    draws: list[Draw]

    def __call__(
        self, parameters: Tensors, buffers: Tensors, fixed: Tensors, x: Tensor, beta: Tensor, noise: Tensors
    ) -> tuple[Tensor, Tensors, Tensors]:
        """The loss in nats, its derivatives, and the buffers after the step; ``buffers`` change in place."""
        loss, *rest = self.graph(*parameters, *buffers, x, beta, *noise, *fixed)
        return loss, rest[: len(parameters)], rest[len(parameters) :]

    def vectorizable(self, x: Tensor) -> "GradientGraph":
        """The same function for ``torch.vmap``, which takes few operations in place and lacks some others."""
        parameters = [p.detach() for p in self.parameters]
        beta = torch.ones((), dtype=parameters[0].dtype, device=x.device)
        inputs = (*parameters, *self.buffers, x, beta, *self.draw(), *self.fixed)
        in_values = torch.func.functionalize(lambda *inputs: self.graph(*inputs))
        operations = operations_of(in_values, *inputs, decompositions={torch.ops.aten.copy.default: _copy})
        for node in operations.graph.graph.nodes:
            if node.target is torch.ops.aten.slice_scatter.default:
                full: tuple[Any, ...] = (*node.args, *(0, None, None, 1)[len(node.args) - 2 :])
                base, source, dim, *rest = full
                node.args = (base, source, dim, *slice(*rest).indices(base.meta["shape"][dim]))
        operations.tidy()
        return replace(self, graph=operations)

    def draw(self) -> Tensors:
        """One step's noise from the global generator."""
        return make_draws(self.draws, self.parameters[0].device)


def trace_gradient(
    pair: Pair, elbo: ELBO, parameters: Tensors, x: Tensor, data: Tensor, *, beta_is_input: bool
) -> GradientGraph:
    """Trace the programs on a batch x; the graph is valid for every batch of its shape.

    The graph is first compared with the programs on other data, with other parameters and noise. State of the programs
    that changes later, such as a count of calls, is not detected.

    Raises:
        CannotTraceError: a value decides what the programs do, a draw is not reparameterised, or graph and programs
            give different numbers.
    """
    modules_only = all(isinstance(program, nn.Module) for program in pair)
    if len({p.dtype for p in parameters}) > 1 or len({p.device for p in parameters}) > 1:
        raise CannotTraceError("the parameters are of several dtypes or devices")

    def gradient(x: Tensor, beta: float | Tensor | None = None) -> tuple[Tensor, list[Tensor | None]]:
        weighted = elbo.with_beta(beta) if beta_is_input and beta is not None and isinstance(elbo, BetaELBO) else elbo
        with unregistered() if modules_only else nullcontext():
            loss = weighted.differentiable_loss(*pair, x)
            return loss.detach(), list(torch.autograd.grad(loss, parameters, allow_unused=True))

    recorder = Recorder()
    others = [t for t in module_tensors(pair) if not any(t is p for p in parameters)]
    elsewhere = state_elsewhere()
    with left_as_they_are(others) as changed, kept_random_state(x), recorder:
        _, derivatives = gradient(x)
    if state_elsewhere() != elsewhere:
        raise CannotTraceError("they draw random numbers outside PyTorch")
    buffers = [t for t in others if id(t) in changed]
    fixed = [t for t in others if id(t) not in changed]
    parameters = [p for p, derivative in zip(parameters, derivatives, strict=True) if derivative is not None]

    def traced(*inputs: Tensor) -> Tensors:
        _, (x, beta), noise = grouped(inputs, [len(parameters) + len(buffers), 2, len(recorder.draws)])
        with Replayer(recorder.draws, recorder.calls, noise) as replayer:
            loss, derivatives = gradient(x, beta)
        for failed in replayer.failures:
            loss = torch.where(failed, torch.nan, loss)  # the run stops there, and the programs say why
        return [loss, *[d for d in derivatives if d is not None], *[buffer.clone() for buffer in buffers]]

    beta, noise = torch.ones((), dtype=parameters[0].dtype, device=x.device), make_draws(recorder.draws, x.device)
    with left_as_they_are(others), kept_random_state(x), _refusing():
        operations = operations_of(traced, *parameters, *buffers, x, beta, *noise, *fixed)
    if any(torch.Tag.dynamic_output_shape in getattr(node.target, "tags", ()) for node in operations.graph.graph.nodes):
        raise CannotTraceError(DATA_DEPENDENT)
    _draw_as_values(operations.graph)
    operations.tidy()
    fixed, operations = [*fixed, *operations.constants], Operations(operations.graph, [])
    result = GradientGraph(operations, parameters, buffers, fixed, recorder.draws)
    rows = torch.randint(len(data), (len(x),), generator=torch.Generator().manual_seed(1))
    with _refusing():
        _try(result, gradient, take(data, rows.to(data.device)), beta=0.7)
    return result


def _try(
    result: GradientGraph,
    gradient: Callable[[Tensor, float], tuple[Tensor, list[Tensor | None]]],
    x: Tensor,
    beta: float,
) -> None:
    """Compare the graph with the programs, at parameters, data and noise other than those of the trace."""
    parameters = result.parameters
    with left_as_they_are(parameters):
        with torch.no_grad():
            for p in parameters:
                p.mul_(1.01)
        with kept_random_state(x):
            start = random_state()
            with left_as_they_are(result.buffers):
                loss, derivatives = gradient(x, beta)
                buffers = [b.clone() for b in result.buffers]
            end = random_state()
            set_random_state(start)
            noise = result.draw()
            same_end = all(torch.equal(a, b) for a, b in zip(end, random_state(), strict=True))
        arguments = ([p.detach() for p in parameters], [b.clone() for b in result.buffers], result.fixed, x)
        with left_as_they_are(result.fixed) as changed:
            traced = result(*arguments, torch.tensor(beta, dtype=parameters[0].dtype, device=x.device), noise)
    if changed:
        raise CannotTraceError("they change a tensor that is not a module's own")
    relative = 1e-9 if parameters[0].dtype == torch.float64 else 1e-4
    used = [d for d in derivatives if d is not None]
    pairs = [(loss, traced[0]), *zip(used, traced[1], strict=True), *zip(buffers, traced[2], strict=True)]
    if not same_end or not all(_close(a, b, relative) for a, b in pairs):
        raise CannotTraceError(
            "their graph gives other numbers on other data: a part is computed outside PyTorch, or changes from call "
            "to call"
        )


def _copy(to: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    return source.to(to.dtype).expand(to.shape).clone()


def _draw_as_values(graph: GraphModule) -> None:
    """Replace an empty tensor that a draw fills by a copy of the draw: replicas can share this operation."""
    for node in graph.graph.nodes:
        if node.target is not torch.ops.aten.copy_.default or not isinstance(node.args[0], Node):
            continue
        filled, draw = node.args[:2]
        if str(filled.target).removeprefix("aten.").startswith(("empty", "new_empty")) and len(node.args) == 2:
            with graph.graph.inserting_before(node):
                copied = graph.graph.call_function(torch.ops.aten.clone.default, (draw,))
            node.replace_all_uses_with(copied)
            filled.replace_all_uses_with(copied, delete_user_cb=lambda user, fill=node: user is not fill)
            graph.graph.erase_node(node)


def _close(left: Tensor, right: Tensor, relative: float) -> bool:
    largest = float(left.abs().nan_to_num(0.0, 0.0).max())
    return torch.allclose(right, left, rtol=relative, atol=relative * largest, equal_nan=True)


def module_tensors(pair: Pair) -> Tensors:
    """Each parameter and buffer of module programs, once."""
    modules = [program for program in pair if isinstance(program, nn.Module)]
    return list({id(t): t for module in modules for t in (*module.parameters(), *module.buffers())}.values())


def grouped(tensors: Iterable[Tensor], counts: Sequence[int]) -> list[Tensors]:
    """Tensors in groups of these sizes, in their order."""
    each = iter(tensors)
    return [list(itertools.islice(each, count)) for count in counts]


@contextmanager
def left_as_they_are(tensors: Tensors) -> Iterator[set[int]]:
    """Restore tensors at the end; the set then holds the identities of those that had changed."""
    before = [t.detach().clone() for t in tensors]
    changed: set[int] = set()
    try:
        yield changed
    finally:
        with torch.no_grad():
            for tensor, value in zip(tensors, before, strict=True):
                if not torch.equal(tensor, value):
                    changed.add(id(tensor))
                    tensor.copy_(value)


@contextmanager
def _refusing() -> Iterator[None]:
    """Turn whatever programs raise under a tracer into a CannotTraceError."""
    try:
        yield
    except CannotTraceError:
        raise
    except Exception as error:
        text = one_line(error)
        raise CannotTraceError(f"they cannot be traced ({type(error).__name__}: {text[:200]})") from error
