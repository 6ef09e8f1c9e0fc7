"""The loss of any Pyro programs and its gradient as one graph of tensor operations, random draws as its inputs.

The programs run once under a tracer: Pyro's handlers leave nothing behind in the graph. The tracer knows the very
tensors that the programs hold, so it makes no difference whether they are modules, functions with ``pyro.param``,
or closures.
"""

import copy
import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from pyro.infer import ELBO
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

from pyrovae.randomness import random_state, set_random_state, state_elsewhere
from pyrovae.registration import unregistered
from pyrovae.training.programs import Program

_DATA_DEPENDENT = "a value that depends on parameters, data or draws decides what they do (data-dependent control flow)"


class CannotTraceError(ValueError):
    """Programs whose step is not one fixed graph of tensor operations; says why."""


@dataclass(frozen=True)
class Draw:
    """A random draw of a step: how to fill a tensor with it.

    Attributes:
        operation: PyTorch's operator.
        arguments: its arguments, without the tensor that it fills or takes the shape of.
        options: its keyword arguments.
        takes_tensor: whether it has such a tensor.
        shape: of the draw.
        dtype: of the draw.
    """

    operation: Any
    arguments: tuple[Any, ...]
    options: dict[str, Any]
    takes_tensor: bool
    shape: torch.Size
    dtype: torch.dtype

    @classmethod
    def of(cls, operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> "Draw":
        """The draw that a call makes, its shape unknown as yet.

        Raises:
            CannotTraceError: it is not the same whatever the parameters and the data are.
        """
        schema = operation._schema
        name = schema.name.removeprefix("aten::")
        takes_tensor = bool(args) and isinstance(args[0], Tensor)
        of_shape_alone = schema.is_mutable or name.endswith("_like") or operation is torch.ops.aten.bernoulli.p
        rest = args[1:] if takes_tensor else args
        if any(isinstance(a, torch.Generator) for a in (*rest, *kwargs.values())):
            raise CannotTraceError(f"a draw ({name}) has a random generator of its own")
        if (takes_tensor and not of_shape_alone) or any(isinstance(a, Tensor) for a in (*rest, *kwargs.values())):
            raise CannotTraceError(
                f"a draw ({name}) is not a function of parameters and of noise that is independent of them: "
                "a discrete site, or one whose rsample is made otherwise"
            )
        return cls(operation, rest, kwargs, takes_tensor, torch.Size(), torch.float32)

    def fill(self, out: Tensor) -> None:
        """Fill a tensor with the draw."""
        if self.operation._schema.is_mutable:
            self.operation(out, *self.arguments, **self.options)
        else:
            like = (out,) if self.takes_tensor else ()
            out.copy_(self.operation(*like, *self.arguments, **self.options))

    @property
    def standard_normal(self) -> bool:
        """Whether it fills with independent N(0, 1)."""
        name = self.operation._schema.name
        return name in ("aten::randn", "aten::randn_like") or (name == "aten::normal_" and not self.arguments)


class _Recorder(TorchDispatchMode):
    """Note every draw; those made again from the same state of the generator are one draw."""

    def __init__(self) -> None:
        super().__init__()
        self.draws: list[Draw] = []
        self.calls: list[int] = []
        self._known: dict[bytes, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        draw = Draw.of(func, args, kwargs)
        digest = hashlib.sha256(str(func).encode())
        for state in random_state():
            digest.update(state.numpy().tobytes())
        result = func(*args, **kwargs)
        key = digest.digest()
        if key not in self._known:
            self._known[key] = len(self.draws)
            self.draws.append(dataclasses.replace(draw, shape=result.shape, dtype=result.dtype))
        self.calls.append(self._known[key])
        return result


class _Replayer(TorchDispatchMode):
    """Put given tensors in the place of the draws, and note failed factorisations where PyTorch would raise."""

    def __init__(self, draws: list[Draw], calls: list[int], noise: list[Tensor]) -> None:
        super().__init__()
        self.draws, self.noise = draws, noise
        self.calls = iter(calls)
        self.failures: list[Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._linalg_check_errors.default:
            self.failures.append((args[0] != 0).any())
            return None
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        call = next(self.calls, None)
        if call is None or self.draws[call].operation is not func:
            raise CannotTraceError("the programs do not make the same draws each time they run")
        noise = self.noise[call]
        return args[0].copy_(noise) if func._schema.is_mutable else noise.clone()


@dataclass(frozen=True)
class GradientGraph:
    """Loss, gradient and updated buffers of a step as a function of tensors alone.

    Attributes:
        graph: the function, as traced.
        parameters: leaf tensors that the loss depends on.
        buffers: the programs' tensors that a step changes, such as running means.
        fixed: the programs' other tensors, and those that they make from numbers.
        draws: what each tensor of ``noise`` is filled with, in order.
    """

    graph: GraphModule
    parameters: list[Tensor]
    buffers: list[Tensor]
    fixed: list[Tensor]
    draws: list[Draw]

    def __call__(
        self,
        parameters: list[Tensor],
        buffers: list[Tensor],
        fixed: list[Tensor],
        x: Tensor,
        beta: Tensor,
        noise: list[Tensor],
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """The loss in nats, its derivatives, and the buffers after the step; ``buffers`` change in place."""
        names = _constants(self.graph)
        own = len(fixed) - len(names)
        before = [getattr(self.graph, name) for name in names]
        try:
            for name, tensor in zip(names, fixed[own:], strict=True):
                setattr(self.graph, name, tensor)
            return self.graph(parameters, buffers, fixed[:own], x, beta, noise)
        finally:
            for name, tensor in zip(names, before, strict=True):
                setattr(self.graph, name, tensor)

    def vectorizable(self, buffers: list[Tensor], x: Tensor) -> GraphModule:
        """The same function without operations in place, of which ``torch.vmap`` takes few, and in terms it knows."""
        parameters = [p.detach() for p in self.parameters]
        beta = torch.ones((), dtype=parameters[0].dtype, device=x.device)
        arguments = (parameters, buffers, self.fixed, x, beta, self.draw())
        in_values = torch.func.functionalize(lambda *arguments: self(*arguments))
        graph = make_fx(in_values, decomposition_table={torch.ops.aten.copy.default: _copy})(*arguments)
        for node in graph.graph.nodes:
            if node.target is torch.ops.aten.slice_scatter.default:
                full: tuple[Any, ...] = (*node.args, *(0, None, None, 1)[len(node.args) - 2 :])
                base, source, dim, *rest = full
                node.args = (base, source, dim, *slice(*rest).indices(base.meta["tensor_meta"].shape[dim]))
        tidy(graph)
        return graph

    def draw(self) -> list[Tensor]:
        """One step's noise from the global generator."""
        device = self.parameters[0].device
        noise = [torch.empty(draw.shape, dtype=draw.dtype, device=device) for draw in self.draws]
        for draw, out in zip(self.draws, noise, strict=True):
            draw.fill(out)
        return noise


def trace_gradient(
    model: Program,
    guide: Program,
    elbo: ELBO,
    parameters: list[Tensor],
    x: Tensor,
    data: Tensor,
    *,
    beta_is_input: bool,
) -> GradientGraph:
    """Trace the programs on a batch x; the graph holds for every batch of its shape.

    The graph is tried against the programs on others of the data, with other parameters and noise, before it is
    handed out. What it cannot see is state of the programs' own that changes later, such as a count of calls.

    Raises:
        CannotTraceError: a value decides what the programs do, a draw is not reparameterised, or the graph gives
            other numbers than the programs.
    """
    elbo = copy.copy(elbo)
    modules = [program for program in (model, guide) if isinstance(program, nn.Module)]
    tensors = {id(t): t for module in modules for t in (*module.parameters(), *module.buffers())}
    parameters = list(parameters)
    if len({p.dtype for p in parameters}) > 1 or len({p.device for p in parameters}) > 1:
        raise CannotTraceError("the parameters are of several dtypes or devices")

    def gradient(x: Tensor) -> tuple[Tensor, list[Tensor | None]]:
        with unregistered() if len(modules) == 2 else nullcontext():
            loss = elbo.differentiable_loss(model, guide, x)
            return loss.detach(), list(torch.autograd.grad(loss, parameters, allow_unused=True))

    recorder = _Recorder()
    held = [t for t in tensors.values() if not any(t is p for p in parameters)]
    elsewhere = state_elsewhere()
    with left_as_they_are(held) as changed, torch.random.fork_rng(devices=_devices(x)), recorder:
        _, derivatives = gradient(x)
    if state_elsewhere() != elsewhere:
        raise CannotTraceError("they draw random numbers outside PyTorch")
    buffers = [t for t in held if id(t) in changed]
    fixed = [t for t in held if id(t) not in changed]
    parameters = [p for p, derivative in zip(parameters, derivatives, strict=True) if derivative is not None]

    def traced(
        parameters: Any, buffers: list[Tensor], fixed: Any, x: Tensor, beta: Tensor, noise: list[Tensor]
    ) -> tuple[Tensor, list[Tensor | None], list[Tensor]]:
        if beta_is_input:
            elbo.beta = beta
        with _Replayer(recorder.draws, recorder.calls, noise) as replayer:
            loss, derivatives = gradient(x)
        for failed in replayer.failures:
            loss = torch.where(failed, torch.nan, loss)  # the run stops there, and the programs say why
        return loss, derivatives, [buffer.clone() for buffer in buffers]

    beta = torch.ones((), dtype=parameters[0].dtype, device=x.device)
    noise = [torch.zeros(draw.shape, dtype=draw.dtype, device=x.device) for draw in recorder.draws]
    for out, draw in zip(noise, recorder.draws, strict=True):
        with torch.random.fork_rng(devices=_devices(x)):
            draw.fill(out)
    example = (parameters, buffers, fixed, x, beta, noise)
    try:
        with left_as_they_are(held), torch.random.fork_rng(devices=_devices(x)):
            graph = make_fx(traced)(*example)
    except CannotTraceError:
        raise
    except Exception as error:
        raise CannotTraceError(_reason(error)) from error
    if any(torch.Tag.dynamic_output_shape in getattr(node.target, "tags", ()) for node in graph.graph.nodes):
        raise CannotTraceError(_DATA_DEPENDENT)
    _draw_as_values(graph)
    tidy(graph)
    constants = [getattr(graph, name) for name in _constants(graph)]
    result = GradientGraph(graph, parameters, buffers, [*fixed, *constants], recorder.draws)
    elbo.beta = 0.7 if beta_is_input else getattr(elbo, "beta", 1.0)
    rows = torch.randint(len(data), (len(x),), generator=torch.Generator().manual_seed(1))
    try:
        _try(result, gradient, data[rows.to(data.device)], elbo.beta)
    except CannotTraceError:
        raise
    except Exception as error:
        raise CannotTraceError(_reason(error)) from error
    return result


def _try(result: GradientGraph, gradient: Callable[[Tensor], Any], x: Tensor, beta: float) -> None:
    """Compare the graph with the programs at other parameters, data and noise than those it was traced at."""
    parameters = result.parameters
    before = [p.detach().clone() for p in parameters]
    try:
        with torch.no_grad():
            for p in parameters:
                p.mul_(1.01)
        with torch.random.fork_rng(devices=_devices(x)):
            start = random_state()
            with left_as_they_are(result.buffers):
                loss, derivatives = gradient(x)
                buffers = [b.clone() for b in result.buffers]
            end = random_state()
            set_random_state(start)
            noise = result.draw()
            same_end = all(torch.equal(a, b) for a, b in zip(end, random_state(), strict=True))
        arguments = ([p.detach() for p in parameters], [b.clone() for b in result.buffers], result.fixed, x)
        constants = [t.clone() for t in result.fixed]
        traced = result(*arguments, torch.tensor(beta, dtype=parameters[0].dtype, device=x.device), noise)
    finally:
        with torch.no_grad():
            for p, value in zip(parameters, before, strict=True):
                p.copy_(value)
    if not all(torch.equal(a, b) for a, b in zip(constants, result.fixed, strict=True)):
        for tensor, value in zip(result.fixed, constants, strict=True):
            tensor.copy_(value)
        raise CannotTraceError("they change a tensor that is not a module program's own")
    relative = 1e-9 if parameters[0].dtype == torch.float64 else 1e-4
    used = [d for d in derivatives if d is not None]
    pairs = [(loss, traced[0]), *zip(used, traced[1], strict=True), *zip(buffers, traced[2], strict=True)]
    if not same_end or not all(_close(a, b, relative) for a, b in pairs):
        raise CannotTraceError(
            "their graph gives other numbers than they do on other data: part of them is computed outside PyTorch, or "
            "changes from call to call"
        )


def _copy(to: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    return source.to(to.dtype).expand(to.shape).clone()


def _draw_as_values(graph: GraphModule) -> None:
    """Where a draw fills an empty tensor, take a copy of the draw instead: an operation that replicas can share."""
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


def _constants(graph: GraphModule) -> list[str]:
    """Names of the tensors that a graph holds itself."""
    return sorted({node.target for node in graph.graph.nodes if node.op == "get_attr"})


def tidy(graph: GraphModule) -> None:
    """Drop operations whose result is not used."""
    graph.graph.eliminate_dead_code()
    graph.recompile()


def _devices(x: Tensor) -> list[torch.device]:
    return [x.device] if x.is_cuda else []


@contextmanager
def left_as_they_are(tensors: list[Tensor]) -> Iterator[set[int]]:
    """Restore tensors on the way out; the set then holds the identities of those that had changed."""
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


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    if "_local_scalar_dense" in text or "data-dependent" in text.lower() or "DataDependent" in type(error).__name__:
        return _DATA_DEPENDENT
    return f"they cannot be traced ({type(error).__name__}: {text[:200]})"
