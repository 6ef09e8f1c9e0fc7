"""Every ordered pair of Gaussians has a closed form, equal to dense float64 algebra."""

import itertools

import pyro.distributions as dist
import pytest
import torch
from torch.distributions import kl_divergence

from pyrovae import AR1Normal
from pyrovae.distributions import MarkovNormal
from pyrovae.testing import dense_kl

D = 5


def double(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def positive(*shape):
    return torch.rand(*shape, dtype=torch.float64) + 0.3


GAUSSIANS = {
    "independent": lambda b: dist.Normal(double(*b, D), positive(*b, D)).to_event(1),
    "ar1": lambda b: AR1Normal(double(*b, D), positive(*b, 1), fisher_z=double(*b, 1)),
    "ar1-per-step": lambda b: AR1Normal(double(*b, D), positive(*b, D), fisher_z=double(*b, D - 1)),
    "dense": lambda b: dist.MultivariateNormal(
        double(*b, D), scale_tril=double(*b, D, D).tril(-1) + positive(*b, D).diag_embed()
    ),
    "markov": lambda b: MarkovNormal(double(*b, D), positive(*b, D)[..., None, None], double(*b, D - 1, 1, 1)),
    "low-rank": lambda b: dist.LowRankMultivariateNormal(double(*b, D), double(*b, D, 2), positive(*b, D)),
}


@pytest.mark.parametrize(("q", "p"), list(itertools.product(GAUSSIANS, repeat=2)))
def test_against_dense_algebra(q, p):
    for batch_q, batch_p in (((), ()), ((3,), ()), ((3,), (3,)), ((), (3,)), ((2, 3), (3,))):
        left, right = GAUSSIANS[q](batch_q), GAUSSIANS[p](batch_p)
        expected = dense_kl(left, right)
        torch.testing.assert_close(kl_divergence(left, right).expand(expected.shape), expected)


@pytest.mark.parametrize("name", GAUSSIANS)
def test_zero_against_itself_and_a_gradient(name):
    q = GAUSSIANS[name]((4,))
    torch.testing.assert_close(kl_divergence(q, q), torch.zeros(4).double(), rtol=0, atol=1e-9)


@pytest.mark.parametrize(("q", "p"), [("dense", "independent"), ("low-rank", "independent"), ("dense", "ar1")])
def test_no_factorisation_and_no_solve(q, p, monkeypatch):
    left, right = GAUSSIANS[q]((3,)), GAUSSIANS[p](())

    def refuse(*args, **kwargs):
        raise AssertionError("a factorisation or a solve")

    for module, name in (
        (torch.linalg, "cholesky"),
        (torch.linalg, "solve_triangular"),
        (torch, "cholesky_inverse"),
        (torch, "cholesky_solve"),
    ):
        monkeypatch.setattr(module, name, refuse)
    torch.testing.assert_close(kl_divergence(left, right).shape, torch.Size([3]))


def test_pairs_without_a_closed_form_raise():
    student = dist.StudentT(3.0, torch.zeros(D).double(), 1.0).to_event(1)
    for name in ("ar1", "dense", "low-rank"):
        with pytest.raises(NotImplementedError):
            kl_divergence(GAUSSIANS[name](()), student)
    with pytest.raises(NotImplementedError):
        kl_divergence(student, GAUSSIANS["ar1"](()))
    with pytest.raises(NotImplementedError):
        kl_divergence(student, GAUSSIANS["low-rank"](()))


def test_a_diagonal_at_its_floor_does_not_fail():
    from pyrovae import LowRankPosterior

    head = LowRankPosterior(4, 16, rank=2)
    with torch.no_grad():
        head.covariance_head.bias[:16] = -1e4  # softplus gives 0: the floor is all that is left
        head.covariance_head.bias[16:] = 1.0  # and the two columns of W are the same
        head.covariance_head.weight.zero_()
    q = head(torch.randn(3, 4))
    p = dist.Normal(torch.zeros(16), torch.ones(16)).to_event(1)
    assert kl_divergence(q, p).isfinite().all()
    assert q.rsample().isfinite().all()
    torch.testing.assert_close(kl_divergence(q, p).double(), dense_kl(q, p), rtol=0.02, atol=0.1)


@pytest.mark.parametrize("other", ["ar1", "dense", "low-rank", "independent"])
@pytest.mark.parametrize("which", ["loc", "scale", "fisher_z"])
def test_one_batched_parameter_of_three(other, which):
    sizes = {name: (4,) if name == which else () for name in ("loc", "scale", "fisher_z")}
    q = AR1Normal(double(*sizes["loc"], D), positive(*sizes["scale"], 1), fisher_z=double(*sizes["fisher_z"], 1))
    p = GAUSSIANS[other](())
    for left, right in ((q, p), (p, q)):
        kl = kl_divergence(left, right)
        assert kl.shape == (4,)
        torch.testing.assert_close(kl, dense_kl(left, right))


@pytest.mark.parametrize(("z", "other"), [(20.0, -25.0), (25.0, -20.0), (40.0, -40.0), (-40.0, 39.0), (0.0, 40.0)])
def test_far_apart_correlations_have_finite_values_and_gradients_in_float32(z, other):
    results = []
    for dtype in (torch.float32, torch.float64):
        fisher_z = torch.full((1,), z, dtype=dtype, requires_grad=True)
        q = AR1Normal(torch.zeros(4, dtype=dtype), 1.0, fisher_z=fisher_z)
        p = AR1Normal(torch.zeros(4, dtype=dtype), 1.0, fisher_z=torch.full((1,), other, dtype=dtype))
        kl = kl_divergence(q, p)
        results.append((kl.detach().double(), torch.autograd.grad(kl, fisher_z)[0].double()))
    (value, gradient), (exact, exact_gradient) = results
    assert gradient.isfinite().all()
    torch.testing.assert_close(value, exact, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(gradient, exact_gradient, rtol=1e-3, atol=1e-3 * float(1 + exact))


@pytest.mark.parametrize("z", [5.0, 6.0, 8.0])
def test_a_dense_gaussian_against_the_same_ar1_keeps_its_digits_in_float32(z):
    p = AR1Normal(torch.zeros(8), 1.0, fisher_z=torch.tensor([z]))
    exact = AR1Normal(torch.zeros(8).double(), 1.0, fisher_z=torch.tensor([z]).double())
    q = dist.MultivariateNormal(torch.zeros(8), scale_tril=p.scale_tril)
    truth = kl_divergence(dist.MultivariateNormal(torch.zeros(8).double(), scale_tril=q.scale_tril.double()), exact)
    assert abs(kl_divergence(q, p).item() - truth.item()) < 0.01


def test_event_shapes_must_agree():
    with pytest.raises(ValueError, match=r"event shapes \(3,\) and \(1,\)"):
        kl_divergence(AR1Normal(torch.zeros(3), 1.0, 0.1), dist.Normal(torch.zeros(1), 1.0).to_event(1))
