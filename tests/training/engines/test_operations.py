"""Functions of tensors as graphs of operations, run at other tensors."""

import subprocess
import sys

import pytest
import torch

from pyrovae.training import CannotTraceError
from pyrovae.training.engines._operations import operations_of

X, OTHER = torch.tensor([[1.0, -2.0, 3.0]]).double(), torch.tensor([[0.5, 4.0, -1.0]]).double()


def in_place(x):
    y = torch.zeros(2, 3).double()
    y[1:] = x
    y.mul_(2)
    return [y, y[1].sum()]


def with_gradient(x):
    x = x.detach().requires_grad_()
    return list(torch.autograd.grad((x.tanh() * x).exp().sum(), x))


def with_several_results(x):
    return [*x.split(1, dim=1), *x.sort(dim=1)]


def with_constants(x):
    scale = torch.tensor(3.0).double()
    shift = scale + OFFSET
    return [x * float(scale) + shift if float(shift) > 0 else x]


def with_a_constant_in_place(x):
    total = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    total += x[0]
    return [total, OFFSET]


OFFSET = torch.tensor([2.0]).double()


@pytest.mark.parametrize(
    "function", [in_place, with_gradient, with_several_results, with_constants, with_a_constant_in_place]
)
def test_the_graph_is_the_function(function):
    operations = operations_of(function, X)
    operations.tidy()
    for expected, found in zip(function(OTHER), operations(OTHER), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_other_tensors_are_constants():
    operations = operations_of(with_constants, X)
    assert sum(constant is OFFSET for constant in operations.constants) == 1
    assert len(operations.constants) == 2


def test_decompositions_are_recorded_operation_by_operation():
    table = dict(torch.export.default_decompositions().items())
    operations = operations_of(lambda x: [torch.nn.functional.mse_loss(x, x + 1)], X, decompositions=table)
    names = {str(node.target) for node in operations.graph.graph.nodes if node.op == "call_function"}
    assert not any("mse_loss" in name for name in names)
    assert float(operations(OTHER)[0]) == 1


def decides(x):
    return [x if x.sum() > 0 else -x]


def decides_by_a_view(x):
    """A constant that changes in place where x is written into what it shares memory with."""
    buffer = torch.ones(3).double()
    first = buffer[0]
    buffer[1:].copy_(x[0, 1:])
    buffer[:1].copy_(x[0, :1])
    return [x if first > 0 else -x]


@pytest.mark.parametrize("function", [decides, decides_by_a_view])
def test_values_that_decide(function):
    with pytest.raises(CannotTraceError, match="data-dependent control flow"):
        operations_of(function, X)


@pytest.mark.slow
def test_compiling_imports_no_compiler_of_pytorch():
    pytest.importorskip("jax")
    program = """
import sys, torch, pyrovae as pv
from pyrovae.posteriors import POSTERIORS
for posterior in POSTERIORS.values():
    for elbo in (pv.MonteCarloELBO(), pv.ImportanceWeightedELBO(2)):
        model = pv.GenerativeModel(pv.nn.MLP(2, 8), pv.GaussianLikelihood(8, 3), latent_dim=2)
        guide = pv.AmortizedGuide(pv.nn.MLP(3, 8), posterior(8, 2))
        history = pv.fit(model, guide, torch.randn(64, 3), elbo, epochs=2, engine="compiled", progress=False)
        print(history.engine, "torch._dynamo" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert set(done.stdout.splitlines()) == {"compiled False"}
