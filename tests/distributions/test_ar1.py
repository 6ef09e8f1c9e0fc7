"""AR1Normal against dense float64 algebra, over all shapes, dtypes and correlations, and as torch and Pyro use it."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyro.distributions.testing.gof import vector_density_goodness_of_fit
from pyro.infer import SVI, Predictive
from torch.distributions import kl_divergence

import pyrovae as pv
from pyrovae import AR1Normal
from pyrovae.testing import dense_kl


def covariance_by_definition(scale, rho, d):
    """Σ_ij = σ_i σ_j ∏_{k=i}^{j−1} ρ_k, in plain loops."""
    scale = scale.double().expand(d).tolist()
    rho = rho.double().expand(d - 1).tolist()
    return torch.tensor(
        [[scale[i] * scale[j] * math.prod(rho[min(i, j) : max(i, j)]) for j in range(d)] for i in range(d)],
        dtype=torch.float64,
    )


@pytest.mark.parametrize("d", [1, 2, 3, 8, 33])
@pytest.mark.parametrize("per_dimension", [False, True])
@pytest.mark.parametrize("per_step", [False, True])
def test_covariance_factor_precision_and_density(d, per_dimension, per_step):
    torch.manual_seed(d)
    scale = torch.rand(d if per_dimension else 1, dtype=torch.float64) + 0.5
    rho = 1.8 * torch.rand(d - 1 if per_step and d > 1 else 1, dtype=torch.float64) - 0.9
    loc = torch.randn(d, dtype=torch.float64)
    sigma = covariance_by_definition(scale, rho, d)
    q = AR1Normal(loc, scale, rho)
    torch.testing.assert_close(q.covariance_matrix, sigma)
    torch.testing.assert_close(q.scale_tril, torch.linalg.cholesky(sigma))
    torch.testing.assert_close(q.precision_matrix, torch.linalg.inv(sigma))
    torch.testing.assert_close(q.variance, sigma.diagonal())
    dense = torch.distributions.MultivariateNormal(loc, sigma)
    x = torch.randn(10, d, dtype=torch.float64)
    torch.testing.assert_close(q.log_prob(x), dense.log_prob(x))
    torch.testing.assert_close(q.entropy(), dense.entropy())
    by_fisher_z = AR1Normal(loc, scale, fisher_z=rho.atanh())
    torch.testing.assert_close(by_fisher_z.log_prob(x), dense.log_prob(x))


def test_draws_are_the_factor_times_the_noise():
    q = AR1Normal(torch.randn(3, 6, dtype=torch.float64), torch.rand(3, 6).double() + 0.1, torch.rand(3, 5).double())
    torch.manual_seed(1)
    draw = q.rsample()
    torch.manual_seed(1)
    noise = torch.randn(3, 6, dtype=torch.float64)
    torch.testing.assert_close(draw, q.loc + (q.scale_tril @ noise.unsqueeze(-1)).squeeze(-1))


def test_kl_of_the_rho_vae_is_its_equation_6():
    mu, s, rho, d = (
        torch.randn(4, 5).double(),
        torch.rand(4, 1).double() + 0.1,
        torch.rand(4, 1).double() - 0.5,
        5,
    )
    q = AR1Normal(mu, s.sqrt(), rho)
    p = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(d).double(), torch.ones(d).double()), 1)
    s, rho = s.squeeze(-1), rho.squeeze(-1)
    equation = 0.5 * (mu.square().sum(-1) + d * (s - 1 - s.log()) - (d - 1) * torch.log1p(-rho.square()))
    torch.testing.assert_close(kl_divergence(q, p), equation)
    torch.testing.assert_close(kl_divergence(q, p), dense_kl(q, p))


def test_two_dimensions_with_a_scale_each_are_any_gaussian():
    factor = torch.tensor([[1.3, 0.0], [-0.4, 0.6]], dtype=torch.float64)
    sigma = factor @ factor.T
    scale = sigma.diagonal().sqrt()
    q = AR1Normal(torch.zeros(2).double(), scale, (sigma[0, 1] / scale.prod()).reshape(1))
    torch.testing.assert_close(q.covariance_matrix, sigma)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"correlation": None}, ValueError, "exactly one of correlation and fisher_z, but neither"),
        ({"fisher_z": 0.1}, ValueError, "exactly one of correlation and fisher_z, but both"),
        ({"correlation": torch.tensor([1.0])}, ValueError, r"correlation must be inside \(−1, 1\), but holds 1"),
        ({"scale": torch.tensor([0.0])}, ValueError, "scale must be positive, but holds 0"),
        ({"scale": torch.ones(2)}, ValueError, r"last axis of scale must be 1 \(shared\) or 3 .* shape \(2,\)"),
        ({"correlation": torch.zeros(3)}, ValueError, r"last axis of correlation must be 1 \(shared\) or 2"),
        ({"scale": torch.ones(1).double()}, TypeError, "scale is of torch.float64, loc of torch.float32"),
        ({"loc": torch.ones(3, dtype=torch.long)}, TypeError, "loc must be a floating-point tensor"),
        ({"scale": torch.ones(1, dtype=torch.long)}, TypeError, "scale must be a floating-point tensor"),
        ({"scale": torch.ones(1, device="meta")}, ValueError, "scale is on meta, loc on cpu"),
        ({"loc": torch.zeros(2, 3), "scale": torch.ones(5, 1)}, ValueError, r"do not broadcast: loc \(2,\)"),
    ],
)  # fmt: skip
def test_bad_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        AR1Normal(**{"loc": torch.zeros(3), "scale": torch.ones(1), "correlation": torch.zeros(1)} | arguments)


def test_tensors_without_axes_are_shared_by_all():
    q = AR1Normal(torch.zeros(2, 3), torch.tensor(2.0), torch.tensor(0.5))
    torch.testing.assert_close(q.covariance_matrix, AR1Normal(torch.zeros(2, 3), 2.0, 0.5).covariance_matrix)
    assert q.batch_shape == (2,)


BATCHES = st.sampled_from([(), (1,), (3,), (2, 3), (0,)])


@st.composite
def ar1_arguments(draw, max_fisher_z=4.0):
    """loc, scale, fisher_z in float64, of every combination of shared and own, full and broadcast batch shapes."""
    d = draw(st.integers(1, 9))
    batch = draw(BATCHES)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))

    def shape(size):
        axes = (draw(st.sampled_from([1, size])),) if size > 0 else (1,)
        return draw(st.sampled_from([batch, (1,) * len(batch), ()])) + axes

    loc = torch.randn(*batch, d, generator=generator, dtype=torch.float64)
    scale = torch.exp(torch.randn(shape(d), generator=generator, dtype=torch.float64))
    fisher_z = max_fisher_z * (2 * torch.rand(shape(d - 1), generator=generator, dtype=torch.float64) - 1)
    return loc, scale, fisher_z


def dense_covariance(scale, rho, d):
    """Σ_ij = σ_i σ_j ∏_{k=i}^{j−1} ρ_k entry by entry."""
    scale = scale.expand(*scale.shape[:-1], d)
    rho = rho.expand(*rho.shape[:-1], max(d - 1, 1))
    rows = []
    for i in range(d):
        rows.append(
            torch.stack(
                [scale[..., i] * scale[..., j] * rho[..., min(i, j) : max(i, j)].prod(-1) for j in range(d)],
                -1,
            )
        )
    return torch.stack(rows, -2)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(ar1_arguments(max_fisher_z=3.0))
def test_against_dense_algebra(arguments):
    loc, scale, fisher_z = arguments
    q = AR1Normal(loc, scale, fisher_z=fisher_z)
    d = loc.shape[-1]
    sigma = dense_covariance(scale, fisher_z.tanh(), d).expand(*q.batch_shape, d, d)
    torch.testing.assert_close(q.covariance_matrix, sigma, rtol=1e-9, atol=1e-9)
    x = q.sample(torch.Size([2]))
    assert x.shape == (2, *q.batch_shape, d)
    if math.prod(q.batch_shape) == 0:
        assert q.log_prob(x).shape == (2, *q.batch_shape)
        return
    dense = torch.distributions.MultivariateNormal(q.mean, sigma)
    torch.testing.assert_close(q.log_prob(x), dense.log_prob(x), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(q.entropy(), dense.entropy(), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(q.precision_matrix @ sigma, torch.eye(d).double().expand_as(sigma), rtol=0, atol=1e-6)
    torch.testing.assert_close(q.first_off_diagonal, sigma.diagonal(1, -2, -1))
    by_correlation = AR1Normal(loc, scale, fisher_z.tanh())
    torch.testing.assert_close(by_correlation.log_prob(x), q.log_prob(x), rtol=1e-6, atol=1e-6)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(ar1_arguments(max_fisher_z=8.0), st.sampled_from([torch.float32, torch.float64]))
def test_shapes_dtypes_and_expand(arguments, dtype):
    loc, scale, fisher_z = (t.to(dtype) for t in arguments)
    q = AR1Normal(loc, scale, fisher_z=fisher_z)
    assert AR1Normal.infer_shapes(loc=loc.shape, scale=scale.shape, fisher_z=fisher_z.shape) == (
        q.batch_shape,
        q.event_shape,
    )
    value = q.rsample()
    assert value.dtype == dtype
    for shape in ((), (5,), (2, 5)):
        wide = q.expand(torch.Size(shape) + q.batch_shape)
        assert wide.batch_shape == torch.Size(shape) + q.batch_shape
        assert wide.sample().shape == wide.batch_shape + q.event_shape
        torch.testing.assert_close(wide.log_prob(value), q.log_prob(value).expand(wide.batch_shape))
        torch.testing.assert_close(wide.entropy(), q.entropy().expand(wide.batch_shape))
        for name in ("mean", "variance"):
            assert getattr(wide, name).shape == wide.batch_shape + q.event_shape
    assert q.expand_by(torch.Size([4])).batch_shape == (4, *q.batch_shape)


@pytest.mark.parametrize("fisher_z", [-8.0, -3.0, 0.0, 1.0, 8.0])
def test_float32_density_at_its_own_draws(fisher_z):
    q = AR1Normal(torch.zeros(32), torch.ones(1), fisher_z=torch.tensor([fisher_z]))
    exact = AR1Normal(torch.zeros(32).double(), torch.ones(1).double(), fisher_z=torch.tensor([fisher_z]).double())
    x = q.sample(torch.Size([2000]))
    assert (q.log_prob(x).double() - exact.log_prob(x.double())).abs().max() < 0.01


@pytest.mark.parametrize("z", [-40.0, -20.0, -9.01, 0.0, 9.01, 20.0, 40.0])
@pytest.mark.parametrize("sigma", [1e-6, 1.0, 1e6])
def test_float32_entropy_and_kl_up_to_fisher_z_40(z, sigma):
    values, gradients = [], []
    for dtype in (torch.float32, torch.float64):
        loc = torch.full((8,), 0.3 * sigma, dtype=dtype, requires_grad=True)
        scale = torch.full((1,), sigma, dtype=dtype, requires_grad=True)
        fisher_z = torch.full((1,), z, dtype=dtype, requires_grad=True)
        q = AR1Normal(loc, scale, fisher_z=fisher_z)
        standard = dist.Normal(torch.zeros(8, dtype=dtype), torch.ones(8, dtype=dtype)).to_event(1)
        same = AR1Normal(loc.detach(), scale.detach(), fisher_z=fisher_z.detach())
        near = AR1Normal(loc.detach(), 1.5 * scale.detach(), fisher_z=fisher_z.detach() - 0.5)
        results = torch.stack([q.entropy(), kl_divergence(q, standard), kl_divergence(q, same), kl_divergence(q, near)])
        values.append(results.detach().double())
        gradients.append([torch.autograd.grad(r, (loc, scale, fisher_z), retain_graph=True) for r in results])
    assert values[0].isfinite().all()
    torch.testing.assert_close(values[0], values[1], rtol=2e-5, atol=2e-4)
    for single, double in zip(*gradients, strict=True):
        for a, b in zip(single, double, strict=True):
            assert a.isfinite().all()
            # in the natural units of loc and scale, σ: the terms that cancel are of order 1 there
            unit = 1.0 if a is single[-1] else sigma
            torch.testing.assert_close(unit * a.double(), unit * b, rtol=2e-4, atol=2e-4)


def test_log1p_of_minus_tanh_squared_would_have_failed():
    z = torch.tensor(9.02)
    assert torch.log1p(-z.tanh().square()).isinf()
    assert pv.distributions.ar1.log_sech(z).isfinite()


class TestDraws:
    """Goodness of fit by Pyro's testers: each test raises a false alarm once in 1,000, at a seed that does not."""

    RATE = 1e-3

    def p_value(self, q, rsample):
        torch.manual_seed(20)
        draws = rsample(torch.Size([20_000]))
        return vector_density_goodness_of_fit(draws, q.log_prob(draws).exp())

    def distribution(self, d=3):
        return AR1Normal(torch.tensor([0.5, -1.0, 2.0])[:d], torch.tensor([0.6]), torch.tensor([0.7]))

    @pytest.mark.parametrize("d", [2, 3])
    def test_right(self, d):
        q = self.distribution(d)
        assert self.p_value(q, q.rsample) > self.RATE

    def test_right_in_the_general_form(self):
        q = AR1Normal(torch.zeros(3), torch.tensor([0.5, 1.0, 2.0]), torch.tensor([-0.8, 0.4]))
        assert self.p_value(q, q.rsample) > self.RATE

    def wrong(self, step, scale):
        q = self.distribution()

        def rsample(shape):
            noise = torch.randn(*shape, 3)
            y = [noise[..., 0]]
            for j in (1, 2):
                y.append(step(y[-1], noise[..., j], q.correlation.item()))
            return q.loc + scale(q.scale) * torch.stack(y, -1)

        return self.p_value(q, rsample)

    def test_the_released_random_walk_is_told_apart(self):
        assert self.wrong(lambda y, e, rho: y + e, lambda s: s) < self.RATE

    def test_a_missing_innovation_scale_is_told_apart(self):
        assert self.wrong(lambda y, e, rho: rho * y + e, lambda s: s) < self.RATE

    def test_one_over_the_scale_is_told_apart(self):
        assert self.wrong(lambda y, e, rho: rho * y + math.sqrt(1 - rho**2) * e, lambda s: 1 / s) < self.RATE

    def test_the_same_loop_with_no_slip_passes(self):
        assert self.wrong(lambda y, e, rho: rho * y + math.sqrt(1 - rho**2) * e, lambda s: s) > self.RATE


@pytest.mark.parametrize("size", ["shared", "own"])
def test_gradcheck_of_both_orders(size):
    loc = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    scale = (torch.rand(2, 1 if size == "shared" else 4, dtype=torch.float64) + 0.5).requires_grad_()
    fisher_z = torch.randn(2, 1 if size == "shared" else 3, dtype=torch.float64, requires_grad=True)
    value = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    standard = dist.Normal(torch.zeros(4).double(), torch.ones(4).double()).to_event(1)

    def everything(loc, scale, fisher_z, value):
        torch.manual_seed(0)
        q = AR1Normal(loc, scale, fisher_z=fisher_z)
        return q.rsample(), q.log_prob(value), q.entropy(), kl_divergence(q, standard)

    assert torch.autograd.gradcheck(everything, (loc, scale, fisher_z, value))
    assert torch.autograd.gradgradcheck(everything, (loc, scale, fisher_z, value))


def test_moments():
    q = AR1Normal(torch.tensor([1.0, -2.0, 0.0]), torch.tensor([0.5, 1.0, 2.0]), torch.tensor([0.9, -0.6]))
    x = q.sample(torch.Size([100_000]))
    torch.testing.assert_close(x.mean(0), q.mean, rtol=0, atol=5 * 2 / math.sqrt(100_000))
    torch.testing.assert_close(torch.cov(x.T), q.covariance_matrix, rtol=0, atol=5 * 4 * math.sqrt(2 / 100_000))
    torch.testing.assert_close(q.mode, q.mean)


def test_mask_to_event_and_no_enumeration():
    q = AR1Normal(torch.zeros(4, 3), torch.ones(1), torch.tensor([0.5]))
    value = torch.randn(4, 3)
    mask = torch.tensor([True, False, True, False])
    torch.testing.assert_close(q.mask(mask).log_prob(value), q.log_prob(value) * mask)
    assert q.to_event(1).event_shape == (4, 3)
    torch.testing.assert_close(q.to_event(1).log_prob(value), q.log_prob(value).sum())
    assert q.has_enumerate_support is False
    assert q.event_dim == 1
    assert q.support is dist.constraints.real_vector
    with pytest.raises(ValueError, match="within the support"):
        q.log_prob(torch.full((4, 3), math.nan))


def test_in_a_plate_predictive_svi_prior_and_noise():
    x = torch.randn(20, 3)

    def model(x=None):
        with pyro.plate("data", 20):
            z = pyro.sample("z", AR1Normal(torch.zeros(3), torch.ones(1), torch.tensor([0.5])))
            pyro.sample("x", AR1Normal(z, torch.full((1,), 0.5), torch.tensor([0.3])), obs=x)

    def guide(x=None):
        z = pyro.param("fisher_z", torch.zeros(1))
        loc = pyro.param("loc", torch.zeros(20, 3))
        with pyro.plate("data", 20):
            pyro.sample("z", AR1Normal(loc, torch.full((1,), 0.5), fisher_z=z))

    for elbo in (pv.AnalyticELBO(), pv.MonteCarloELBO(num_particles=5, vectorize_particles=True)):
        pyro.clear_param_store()
        svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.05}), loss=elbo)
        losses = [svi.step(x) for _ in range(150)]
        assert sum(losses[-20:]) < sum(losses[:20])
    draws = Predictive(model, guide=guide, num_samples=7)()
    assert draws["x"].shape == (7, 20, 3)
    prior = AR1Normal(torch.zeros(3), torch.ones(1), torch.tensor([0.8]))
    vae = pv.GenerativeModel(pv.nn.MLP(3, 8), pv.GaussianLikelihood(8, 3), 3, prior=prior)
    q = pv.AmortizedGuide(pv.nn.MLP(3, 8), pv.FullCovariancePosterior(8, 3))
    assert math.isfinite(SVI(vae, q, pyro.optim.Adam({"lr": 1e-3}), loss=pv.AnalyticELBO()).step(x))


def test_vmap_and_functional_gradients():
    loc, scale, z = torch.randn(5, 4).double(), torch.rand(5, 4).double() + 0.5, torch.randn(5, 3).double()
    value = torch.randn(5, 4).double()

    def log_prob(loc, scale, z, value):
        return AR1Normal(loc, scale, fisher_z=z).log_prob(value)

    torch.testing.assert_close(torch.vmap(log_prob)(loc, scale, z, value), log_prob(loc, scale, z, value))
    gradients = torch.vmap(torch.func.grad(log_prob, argnums=(0, 1, 2)))(loc, scale, z, value)
    leaves = [t.clone().requires_grad_() for t in (loc, scale, z)]
    torch.testing.assert_close(gradients, torch.autograd.grad(log_prob(*leaves, value).sum(), leaves))
    noise = torch.randn(5, 4).double()

    def draw(z, noise):
        return pv.distributions._recurrence.linear_recurrence(z.tanh(), noise).square().sum()

    per_datum = torch.vmap(torch.func.grad(draw))(z, noise)
    leaf = z.clone().requires_grad_()
    torch.testing.assert_close(per_datum, torch.autograd.grad(draw(leaf, noise), leaf)[0])
    shared = torch.vmap(draw, in_dims=(None, 0))(z[0], noise)
    torch.testing.assert_close(shared, torch.stack([draw(z[0], row) for row in noise]))
    draws = torch.vmap(lambda z: AR1Normal(torch.zeros(4).double(), torch.ones(1).double(), fisher_z=z).rsample(),
                       randomness="different")(z)  # fmt: skip
    assert draws.shape == (5, 4)


def test_torch_compile():
    def total(loc, scale, z):
        q = AR1Normal(loc, scale, fisher_z=z, validate_args=False)
        return q.log_prob(torch.zeros_like(loc)).sum() + q.entropy().sum()

    arguments = (torch.randn(3, 5), torch.rand(3, 1) + 0.5, torch.randn(3, 1))
    compiled = torch.compile(total, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(*arguments), total(*arguments))


def test_meta_tensors_have_shapes():
    q = AR1Normal(
        torch.zeros(6, 4, device="meta"), torch.ones(6, 1, device="meta"), fisher_z=torch.zeros(6, 3, device="meta")
    )
    z = q.rsample()
    assert z.shape == (6, 4)
    assert z.is_meta
    assert q.entropy().shape == (6,)


def test_memory_is_linear_in_the_dimension():
    d = 20_000  # a d × d matrix would need 3.2 GB a datum
    loc = torch.zeros(4, d, dtype=torch.float64, requires_grad=True)
    q = AR1Normal(loc, torch.ones(1).double(), torch.tensor([0.9]).double())
    (q.log_prob(q.rsample()).sum() + q.entropy().sum()).backward()
    assert loc.grad.shape == (4, d)


def test_one_dimension_has_no_steps():
    scale, x = torch.tensor([[0.5], [2.0], [3.0]]), torch.randn(4, 3, 1)
    chain = pv.AR1Normal(torch.zeros(3, 1), scale, torch.zeros(3, 0))
    torch.testing.assert_close(chain.log_prob(x), torch.distributions.Normal(0.0, scale).log_prob(x).squeeze(-1))
