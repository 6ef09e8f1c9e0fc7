"""A traced graph of PyTorch's Core ATen operations as a function of JAX arrays, by tables of operations.

Each entry takes the arguments of its operation, in PyTorch's order, except those about memory (device, layout). The
result's dtype is PyTorch's, not that of JAX's promotion rules.
"""

from collections.abc import Callable

import jax.numpy as jnp
import torch
from jax import Array
from torch.fx import Graph, Node
from torch.fx.node import map_arg

from pyrovae.training.engines._draws import CannotTraceError
from pyrovae.training.engines.lowering._algebra import ALGEBRA
from pyrovae.training.engines.lowering._elementwise import ELEMENTWISE
from pyrovae.training.engines.lowering._indexing import INDEXING
from pyrovae.training.engines.lowering._normalizations import NORMALIZATIONS
from pyrovae.training.engines.lowering._reductions import REDUCTIONS
from pyrovae.training.engines.lowering._shapes import SHAPES

OPERATIONS = {**ELEMENTWISE, **REDUCTIONS, **SHAPES, **INDEXING, **ALGEBRA, **NORMALIZATIONS}
"""PyTorch's operations in JAX, by name."""

_OF_MEMORY = ("dtype", "layout", "device", "pin_memory", "memory_format", "non_blocking", "implicit")


def lower(graph: Graph) -> Callable[..., list[Array]]:
    """The function of arrays, one for each input of the graph, that gives the list of its outputs.

    Raises:
        CannotTraceError: operations without an entry; names them.
    """
    called = [node for node in graph.nodes if node.op == "call_function"]
    missing = sorted({_name(node) for node in called if _name(node) not in OPERATIONS})
    if missing:
        raise CannotTraceError(f"the compiled engine does not support {', '.join(missing)}")
    orders = {node: _order(node) for node in called if _name(node).startswith("as_strided")}

    def run(*arguments: Array) -> list[Array]:
        inputs, values = iter(arguments), {}
        for node in graph.nodes:
            if node.op == "placeholder":
                values[node] = next(inputs)
            elif node.op == "get_attr":
                values[node] = jnp.asarray(getattr(graph.owning_module, node.target).numpy())
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
    meta = base.meta["tensor_meta"]
    order = sorted(range(len(meta.shape)), key=lambda dim: -meta.stride[dim])
    plain = torch.empty([meta.shape[dim] for dim in order], device="meta").stride()
    if any(meta.stride[dim] != step for dim, step in zip(order, plain, strict=True) if meta.shape[dim] > 1):
        raise CannotTraceError("a view by strides is taken of a tensor with gaps in memory")
    return order


def _of_dtype(value: Array, node: Node) -> Array:
    """The result as PyTorch's dtype; a tuple of them as it is."""
    meta = node.meta.get("tensor_meta")
    dtype = None if meta is None else jnp.dtype(str(meta.dtype).removeprefix("torch."))
    return value if dtype is None or getattr(value, "dtype", None) == dtype else jnp.asarray(value, dtype)
