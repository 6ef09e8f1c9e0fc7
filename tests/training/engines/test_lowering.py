"""Each operation of the compiled engine's table against PyTorch's own, in float64."""

import re
from pathlib import Path

import pytest
import torch

jax = pytest.importorskip("jax")

from pyrovae.training.engines._operations import operations_of  # noqa: E402
from pyrovae.training.engines.lowering import OPERATIONS, lower  # noqa: E402

torch.manual_seed(0)
X = torch.randn(3, 4).double()
Y = torch.randn(3, 4).double()
X[0, 1] = Y[0, 1]
U = 0.05 + 0.9 * torch.rand(3, 4).double()
BOOL, OTHER = X > 0, Y > 0
ROW, COLUMN = torch.randn(4).double(), torch.randn(3, 1).double()
WHOLE, PARTS = torch.tensor([[5, -3], [2, 7]]), torch.tensor([[2, 2], [-3, 4]])
A, B = torch.randn(2, 3, 3).double(), torch.randn(2, 3, 2).double()
COVARIANCE = A @ A.mT + torch.eye(3).double()
FACTOR = torch.linalg.cholesky(COVARIANCE)
INDEX = torch.tensor([[0, 2, 1, 0], [2, 0, 0, 1]])
IMAGE = torch.randn(2, 4, 5, 6).double()
FOUR = torch.rand(4).double() + 0.5

SAMPLES = {
    "_log_softmax": [(X, 1, False), (X, 0, False)],
    "_native_batch_norm_legit_functional": [
        (IMAGE, FOUR, ROW, ROW, FOUR, True, 0.1, 1e-5),
        (X, None, None, ROW, FOUR, True, 0.3, 1e-3),
    ],
    "_softmax": [(X, -1, False)],
    "_to_copy": [(X,)],
    "abs": [(X,)],
    "acos": [(U,)],
    "acosh": [(1 + U,)],
    "add": [(X, Y), (X, 2), (X, ROW, {"alpha": 0.5}), (WHOLE, PARTS)],
    "addcmul": [(X, Y, U), (COLUMN, X, ROW, {"value": -0.5})],
    "addmm": [(ROW[:3], X, Y.mT), (COLUMN, X, Y.mT, {"beta": 0.5, "alpha": 2})],
    "alias": [(X,)],
    "amax": [(X, [1]), (X, [0, 1], True)],
    "amin": [(X, [-1]), (X, [])],
    "any": [(BOOL, 1), (BOOL,)],
    "arange": [(2, 7, 2), (0, 5)],
    "argmax": [(X, 1), (X,), (X, 0, True)],
    "argmin": [(X, 1), (X,)],
    "as_strided": [(X, [2, 3], [1, 4], 1), (X.mT, [4], [3], 2)],
    "as_strided_scatter": [(X, ROW, [4], [3], 1), (X.mT.contiguous().mT, WHOLE.double(), [2, 2], [1, 6], 0)],
    "asin": [(U,)],
    "asinh": [(X,)],
    "atan": [(X,)],
    "atan2": [(X, Y)],
    "atanh": [(U,)],
    "bitwise_and": [(BOOL, OTHER), (WHOLE, PARTS)],
    "bitwise_not": [(BOOL,), (WHOLE,)],
    "bitwise_or": [(BOOL, OTHER)],
    "bitwise_xor": [(BOOL, OTHER)],
    "bmm": [(A, B)],
    "cat": [([X, Y], 1), ([X, Y, torch.zeros(0).double()],)],
    "ceil": [(X,)],
    "cholesky_solve": [(B, FACTOR), (B, FACTOR.mT, True)],
    "clamp": [(X, -0.3, 0.4), (X, None, 0.2), (X, 0.1), (X, {"min": 0.3}), (X, ROW, {"max": FOUR})],
    "clone": [(X,)],
    "constant_pad_nd": [(X, [1, 2], 0.5), (X, [1, 0, -1, 2])],
    "copy": [(X, ROW)],
    "cos": [(X,)],
    "cosh": [(X,)],
    "cumprod": [(X, 1)],
    "cumsum": [(X, 0), (X, -1)],
    "diagonal": [(A, 0, 1, 2), (X, 1)],
    "diagonal_scatter": [(A, B[..., 0], 0, -2, -1), (X, COLUMN[:, 0], 1), (X, ROW[:2], -1)],
    "digamma": [(X,)],
    "div": [(X, Y), (X, 3), (WHOLE, PARTS), *((X, Y, {"rounding_mode": mode}) for mode in ("floor", "trunc"))],
    "elu": [(X,), (X, 0.5, 1.1, 2.0)],
    "embedding": [(X, torch.tensor([[0, 2], [1, 1]]))],
    "empty": [((2, 3),)],
    "empty_permuted": [((2, 3), (1, 0))],
    "empty_strided": [((2, 3), (1, 2))],
    "eq": [(X, Y), (WHOLE, 2)],
    "erf": [(X,)],
    "erfc": [(X,), (5 * U,)],
    "erfinv": [(U,), (-U,)],
    "exp": [(X,)],
    "exp2": [(X,)],
    "expand": [(COLUMN, [3, 5]), (ROW, [2, -1]), (COLUMN, [2, -1, 4])],
    "expm1": [(X,)],
    "flip": [(X, [0]), (X, [0, 1])],
    "floor": [(X,)],
    "fmod": [(X, Y), (WHOLE, 3)],
    "full": [((2, 3), 0.5)],
    "full_like": [(X, 0.5)],
    "gather": [(X, 0, INDEX), (X, 1, INDEX[:, :2])],
    "ge": [(X, Y), (X, 0)],
    "gelu": [(X,), (X, {"approximate": "tanh"})],
    "getitem": [],
    "gt": [(X, Y), (X, 0)],
    "hardtanh": [(X,), (X, -0.5, 0.2)],
    "hypot": [(X, Y)],
    "index": [
        (X, [INDEX]),
        (X, [None, INDEX]),
        (A, [torch.tensor([1, 0]), None, torch.tensor([2, 1])]),
        (A, [None, torch.tensor([1, 0]), torch.tensor([2, -1])]),
    ],
    "index_put": [
        (X, [torch.tensor([2, 0])], ROW),
        (X, [None, torch.tensor([2, 2])], COLUMN, True),
        (X, [BOOL], torch.tensor(0.5).double()),
        (A, [torch.tensor([True, False])], torch.tensor(0.5).double(), True),
    ],
    "index_select": [(X, 1, torch.tensor([3, 0, 0]))],
    "isinf": [(X / BOOL,)],
    "isnan": [((X * BOOL) / BOOL,)],
    "le": [(X, Y), (X, 0)],
    "leaky_relu": [(X,), (X, 0.2)],
    "lerp": [(X, Y, 0.1), (X, ROW, 0.7), (X, Y, U)],
    "lgamma": [(X,), (10 * U,)],
    "lift_fresh_copy": [(X,)],
    "linalg_cholesky_ex": [(COVARIANCE,), (COVARIANCE, {"upper": True})],
    "linalg_inv_ex": [(A,)],
    "linalg_solve_triangular": [
        (FACTOR, B, {"upper": False}),
        (FACTOR[0].mT, B, {"upper": True}),
        (FACTOR, B.mT, {"upper": False, "left": False}),
        (FACTOR, B, {"upper": False, "unitriangular": True}),
    ],
    "log": [(U,)],
    "log10": [(U,)],
    "log1p": [(U,)],
    "log2": [(U,)],
    "logcumsumexp": [(X, 1)],
    "logical_and": [(BOOL, OTHER), (X, Y)],
    "logical_not": [(BOOL,), (X,)],
    "logical_or": [(BOOL, OTHER)],
    "logical_xor": [(BOOL, OTHER)],
    "logsumexp": [(X, [1]), (X, [0, 1], True), (X / 0, [1]), (-torch.inf * U, [-1])],
    "lt": [(X, Y), (X, 0)],
    "max": [(X,), (X, 1), (X, 0, True)],
    "maximum": [(X, Y)],
    "mean": [(X,), (X, [1]), (X, [0, 1], True)],
    "min": [(X,), (X, 1), (X, 0, True)],
    "minimum": [(X, Y)],
    "mm": [(X, Y.mT)],
    "mul": [(X, Y), (X, 2), (BOOL, X)],
    "native_group_norm": [(IMAGE, FOUR, ROW, 2, 4, 30, 2, 1e-5), (IMAGE, None, None, 2, 4, 30, 4, 1e-5)],
    "native_layer_norm": [(X, [4], FOUR, ROW, 1e-5), (IMAGE, [5, 6], None, None, 1e-3)],
    "ne": [(X, Y), (X, 0)],
    "neg": [(X,)],
    "new_empty_strided": [(X, (2, 3), (1, 2))],
    "permute": [(A, [2, 0, 1])],
    "polygamma": [(2, 5 * U), (3, 5 * U)],  # the first, in PyTorch, has nine digits
    "pow": [(U, Y), (X, 3), (X, 2.0), (U, 0.5), (U, -1.7), (2.0, X), (WHOLE, 2)],
    "prod": [(X,), (X, 1)],
    "reciprocal": [(X,)],
    "relu": [(X,)],
    "remainder": [(X, Y), (WHOLE, 3), (-X, 0.7)],
    "repeat": [(X, [2, 1]), (X, [3, 1, 2])],
    "round": [(3 * X,), (X, {"decimals": 1})],
    "rsqrt": [(U,)],
    "scalar_tensor": [(0.5,)],
    "scatter": [(X, 0, INDEX[:, :3], Y), (X, 1, torch.tensor([[3], [0], [1]]), 0.5)],
    "scatter_add": [(X, 0, INDEX, Y)],
    "select": [(A, 1, -1), (X, 0, 2)],
    "sgn": [(X,), (X * BOOL,)],
    "sigmoid": [(X,)],
    "sign": [(X,), (X * BOOL,)],
    "sin": [(X,)],
    "sinh": [(X,)],
    "slice": [(X, 1, 1, 3), (X, 0, -2, 9223372036854775807), (X, 1, 0, 4, 2), (X,)],
    "slice_scatter": [(X, Y[:, :2], 1, 1, 3), (X, Y[:2], 0, -2, 9223372036854775807), (X, Y[:, :2], 1, 0, 4, 2)],
    "softplus": [(9 * X,), (9 * X, 2.0, 3.0)],
    "sort": [(X,), (X, 0, True)],
    "split_with_sizes": [(X, [1, 3], 1), (X, [2, 1])],
    "sqrt": [(U,)],
    "squeeze": [(COLUMN, [1]), (COLUMN[None], [0, 1, 2])],
    "sub": [(X, Y), (X, 2), (X, ROW, {"alpha": 0.5})],
    "sum": [(X, [1]), (X, [0, 1], True), (X, None), (BOOL, [0])],
    "tan": [(X,)],
    "tanh": [(X,)],
    "topk": [(X, 2), (X, 2, 0, False)],
    "trunc": [(3 * X,)],
    "unsqueeze": [(X, 1), (X, -1)],
    "var": [(X, [1]), (X, [0, 1], {"correction": 0, "keepdim": True}), (X, None, {"correction": 1})],
    "view": [(X, [2, 6]), (A, [-1, 3])],
    "where": [(BOOL, X, Y), (BOOL, COLUMN, ROW)],
}  # fmt: skip
"""Arguments of each operation; a mapping at the end is by name."""

CASES = [(name, k) for name, samples in SAMPLES.items() for k in range(len(samples))]
UNDEFINED = {"empty", "empty_permuted", "empty_strided", "new_empty_strided"}
"""Operations of whose results the shapes alone are defined."""


def lowered(function, *tensors):
    """What a function gives, and what its graph gives after it is lowered."""
    flat = jax.tree.leaves(function(*tensors))
    operations = operations_of(lambda *tensors: jax.tree.leaves(function(*tensors)), *tensors)
    with jax.enable_x64(True):
        results = jax.jit(lower(operations))(*[jax.numpy.asarray(t.numpy()) for t in tensors])
        return flat, [torch.tensor(jax.device_get(each)) for each in results]


def test_every_operation_has_a_sample():
    assert SAMPLES.keys() == OPERATIONS.keys()


def test_the_docs_list_every_operation():
    page = (Path(__file__).parents[3] / "docs" / "guides" / "engines.md").read_text(encoding="utf-8")
    assert re.findall(r"`(\w+)`", page.split("## Operations")[1]) == sorted(OPERATIONS)


@pytest.mark.parametrize(("name", "k"), CASES)
def test_operations(name, k):
    *args, options = SAMPLES[name][k] if isinstance(SAMPLES[name][k][-1], dict) else (*SAMPLES[name][k], {})
    leaves, structure = jax.tree.flatten(args, is_leaf=lambda leaf: leaf is None)
    at = [i for i, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]

    def call(*tensors):
        filled = list(leaves)
        for i, tensor in zip(at, tensors, strict=True):
            filled[i] = tensor
        made = {} if at else {"dtype": torch.int64 if name == "arange" else torch.float64}
        return getattr(torch.ops.aten, name)(*jax.tree.unflatten(structure, filled), **options, **made)

    expected, found = lowered(call, *[leaves[i] for i in at])
    assert len(found) == len(expected) > 0
    for left, right in zip(found, expected, strict=True):
        assert (left.shape, left.dtype) == (right.shape, right.dtype)
        if name not in UNDEFINED:
            torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12, equal_nan=True)
