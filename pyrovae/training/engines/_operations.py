"""The operations of a function of tensors, as a graph."""

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import Argument, map_aggregate
from torch.utils.weak import WeakTensorKeyDictionary

from pyrovae.training.engines._base import Tensors
from pyrovae.training.engines._draws import CannotTraceError, DispatchMode

DATA_DEPENDENT = "a value that depends on parameters, data or draws decides what they do (data-dependent control flow)"

Decompositions = Mapping[OpOverload, Callable[..., object]]


@dataclass(frozen=True)
class Operations:
    """A function of tensors as a graph of operations.

    Attributes:
        graph: takes the function's tensors, then the constants; gives the list of its results.
        constants: other tensors that the function uses.
    """

    graph: GraphModule
    constants: Tensors

    def __call__(self, *tensors: Tensor) -> Tensors:
        """The function's results."""
        results: Tensors = self.graph(*tensors, *self.constants)
        return results

    def tidy(self) -> None:
        """Drop operations whose result is not used."""
        self.graph.graph.eliminate_dead_code()
        self.graph.recompile()


def operations_of(
    function: Callable[..., Sequence[Tensor]], *tensors: Tensor, decompositions: Decompositions | None = None
) -> Operations:
    """The operations of a function at these tensors.

    The ``meta`` of a node has the shape, stride and dtype of its tensor.

    Raises:
        CannotTraceError: a value that depends on the tensors decides which operations there are.
    """
    recorder = _OperationRecorder(tensors, decompositions or {})
    with recorder:
        results = function(*tensors)
    return recorder.end(results)


class _OperationRecorder(DispatchMode):
    """Record each operation; one that has a decomposition is the operations of that."""

    def __init__(self, inputs: Sequence[Tensor], decompositions: Decompositions) -> None:
        super().__init__()
        self._graph, self._decompositions = Graph(), decompositions
        self._constants: Tensors = []
        self._nodes = WeakTensorKeyDictionary()
        self._inputs: list[Node] = []
        for tensor in inputs:
            self._add_input(tensor, is_fixed=False)

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: object,
        args: tuple[Argument, ...] = (),
        kwargs: dict[str, Argument] | None = None,
    ) -> object:
        kwargs = kwargs or {}
        decompose: Callable[..., object] = func.decompose
        with self:
            parts = self._decompositions.get(func, decompose)(*args, **kwargs)
        if parts is not NotImplemented:
            return parts
        if func is torch.ops.aten.lift_fresh.default:  # its result is the constant itself, which may change in place
            func = torch.ops.aten.lift_fresh_copy.default
        inputs: list[Node] = []

        def node_of(value: Argument) -> Argument:
            if not isinstance(value, Tensor):
                return value
            inputs.append(self._node_of(value))
            return inputs[-1]

        node_args, node_kwargs = map_aggregate(args, node_of), map_aggregate(kwargs, node_of)
        is_fixed = all(node.meta["is_fixed"] for node in inputs)
        if torch.Tag.data_dependent_output in func.tags:
            if not is_fixed:
                raise CannotTraceError(DATA_DEPENDENT)
            return func(*args, **kwargs)
        result = func(*args, **kwargs)
        node = self._graph.call_function(func, node_args, node_kwargs)
        if func._schema.is_mutable and not is_fixed:
            self._unfix([value for value in args if isinstance(value, Tensor)])
        if isinstance(result, Tensor):
            self._add(result, node, is_fixed)
        elif isinstance(result, list | tuple):
            for i, part in enumerate(result):
                if isinstance(part, Tensor):
                    self._add(part, self._graph.call_function(operator.getitem, (node, i)), is_fixed)
        return result

    def _node_of(self, tensor: Tensor) -> Node:
        if tensor not in self._nodes:
            self._constants.append(tensor)
            self._add_input(tensor, is_fixed=True)
        node: Node = self._nodes[tensor]
        return node

    def _add_input(self, tensor: Tensor, is_fixed: bool) -> None:
        with self._graph.inserting_after(self._inputs[-1]) if self._inputs else self._graph.inserting_before():
            self._inputs.append(self._graph.placeholder(f"input_{len(self._inputs)}"))
        self._add(tensor, self._inputs[-1], is_fixed)

    def _add(self, tensor: Tensor, node: Node, is_fixed: bool) -> None:
        """Know a tensor's node, and whether its values are the same for all inputs."""
        node.meta.update(shape=tensor.shape, stride=tensor.stride(), dtype=tensor.dtype, is_fixed=is_fixed)
        self._nodes[tensor] = node

    def _unfix(self, changed: Tensors) -> None:
        """After a change in place: what shares memory with these tensors depends on the inputs."""
        memory = {tensor.untyped_storage().data_ptr() for tensor in changed}
        for tensor, node in self._nodes.items():
            if node.meta["is_fixed"] and tensor.untyped_storage().data_ptr() in memory:
                node.meta["is_fixed"] = False

    def end(self, results: Sequence[Tensor]) -> Operations:
        """The graph with these results."""
        self._graph.output([self._node_of(tensor) for tensor in results])
        return Operations(GraphModule(nn.Module(), self._graph), self._constants)
