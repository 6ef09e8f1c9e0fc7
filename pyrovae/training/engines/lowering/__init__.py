"""PyTorch's operations in terms of JAX, a table a subject, and a traced graph as a function of JAX arrays."""

from pyrovae.training.engines.lowering._graph import OPERATIONS, lower

__all__ = ["OPERATIONS", "lower"]
