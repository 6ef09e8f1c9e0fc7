"""A traced graph of PyTorch's Core ATen operations as a function of JAX arrays, by tables of operations.

Each entry takes the arguments of its operation, in PyTorch's order, except those about memory (device, layout). The
result's dtype is PyTorch's, not that of JAX's promotion rules.
"""

from collections.abc import Callable

import jax.numpy as jnp
import torch
from jax import Array
from torch.fx import Node
from torch.fx.node import map_arg

from pyrovae.training.engines._draws import CannotTraceError
from pyrovae.training.engines._operations import Operations
from pyrovae.training.engines.lowering._algebra import ALGEBRA
from pyrovae.training.engines.lowering._elementwise import ELEMENTWISE
from pyrovae.training.engines.lowering._indexing import INDEXING
from pyrovae.training.engines.lowering._normalizations import NORMALIZATIONS
from pyrovae.training.engines.lowering._reductions import REDUCTIONS
from pyrovae.training.engines.lowering._shapes import SHAPES

OPERATIONS = {**ELEMENTWISE, **REDUCTIONS, **SHAPES, **INDEXING, **ALGEBRA, **NORMALIZATIONS}
"""PyTorch's operations in JAX, by name."""

_OF_MEMORY = ("dtype", "layout", "device", "pin_memory", "memory_format", "non_blocking", "implicit")


def lower(operations: Operations) -> Callable[..., list[Array]]:
    """The function of arrays, one for each tensor that the operations take, that gives the list of their results.

    Raises:
        CannotTraceError: operations without an entry; names them.
    """
    graph = operations.graph.graph
    called = [node for node in graph.nodes if node.op == "call_function"]
    missing = sorted({_name(node) for node in called if _name(node) not in OPERATIONS})
    if missing:
        raise CannotTraceError(f"the compiled engine does not support {', '.join(missing)}")
    orders = {node: _order(node) for node in called if _name(node).startswith("as_strided")}

    def run(*arguments: Array) -> list[Array]:
        inputs = iter([*arguments, *[jnp.asarray(tensor.detach().numpy()) for tensor in operations.constants]])
        values: dict[Node, Array] = {}
        for node in graph.nodes:
            if node.op == "placeholder":
                values[node] = next(inputs)
            elif node.op == "call_function":
                args, kwargs = map_arg((node.args, node.kwargs), values.__getitem__)
                kwargs = {key: value for key, value in kwargs.items() if key not in _OF_MEMORY}
                if node in orders:
                    kwargs["order"] = orders[node]
                values[node] = _of_dtype(OPERATIONS[_name(node)](*args, **kwargs), node)
        (outputs,) = next(node for node in graph.nodes if node.op == "output").args
        return [values[node] for node in outputs]

    return run


def _name(node: Node) -> str:
    schema = getattr(node.target, "_schema", None)
    return schema.name.split("::")[1] if schema is not None else getattr(node.target, "__name__", str(node.target))


def _order(node: Node) -> list[int]:
    """The dimensions, as they follow each other in memory, of the tensor that a view by strides is taken of."""
    (base,) = node.all_input_nodes[:1]
    shape, stride = base.meta["shape"], base.meta["stride"]
    order = sorted(range(len(shape)), key=lambda dim: -stride[dim])
    plain = torch.empty([shape[dim] for dim in order], device="meta").stride()
    if any(stride[dim] != step for dim, step in zip(order, plain, strict=True) if shape[dim] > 1):
        raise CannotTraceError("a view by strides is taken of a tensor with gaps in memory")
    return order


def _of_dtype(value: Array, node: Node) -> Array:
    """The result as PyTorch's dtype; a tuple of them as it is."""
    dtype = jnp.dtype(str(node.meta["dtype"]).removeprefix("torch.")) if "dtype" in node.meta else None
    return value if dtype is None or getattr(value, "dtype", None) == dtype else jnp.asarray(value, dtype)
