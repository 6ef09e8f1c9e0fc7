"""The importance-weighted pair: the bound it claims, its gradients, and what it refuses."""

import itertools
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI

import pyrovae as pv
from pyrovae.posteriors import POSTERIORS
from pyrovae.testing import dense_kl
from tests.pairs import dependent_pair, make_pair

PAIR = (pv.ImportanceWeightedELBO, pv.DoublyReparameterizedELBO)
both = pytest.mark.parametrize("elbo_class", PAIR)


def gradients_of(loss, *programs):
    parameters = [p for program in programs for p in program.parameters()]
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])


@both
@pytest.mark.parametrize("family", POSTERIORS.values(), ids=POSTERIORS)
@pytest.mark.parametrize("beta", [0.0, 0.6, 1.0])
def test_value_and_its_derivative_in_beta_from_the_same_draws(elbo_class, family, beta):
    model, guide = make_pair(family)
    x = torch.randn(5, 3, dtype=torch.float64)
    weight = torch.tensor(beta, dtype=torch.float64, requires_grad=True)
    elbo = elbo_class(4).with_beta(weight)
    torch.manual_seed(1)
    loss = elbo.differentiable_loss(model, guide, x)
    (slope,) = torch.autograd.grad(loss, weight)
    torch.manual_seed(1)
    with torch.no_grad():
        q = guide.posterior(x).expand([4, 5])
        z = q.rsample()
        excess = q.log_prob(z) - model.prior_distribution().log_prob(z)
        log_w = model.conditional(z).log_prob(x) - beta * excess
    assert loss.item() == pytest.approx(-log_w.exp().mean(0).log().sum().item(), rel=1e-9)
    assert slope.item() == pytest.approx((log_w.softmax(0) * excess).sum().item(), rel=1e-9)


@pytest.mark.slow
@both
def test_the_bound_rises_with_k_to_log_p(elbo_class, linear):
    x, model = linear.sample(40), linear.to_model()
    guide = linear.gaussian_guide(0.6 * linear.gain, 2 * linear.covariance)
    log_p = linear.log_prob(x).sum().item()
    elbo = log_p - dense_kl(guide.posterior(x), linear.posterior(x)).sum().item()
    means, stderrs = [], []
    for k in (1, 5, 50):
        values = torch.tensor([-elbo_class(k).loss(model, guide, x) for _ in range(400)], dtype=torch.float64)
        means.append(values.mean().item())
        stderrs.append(values.std().item() / math.sqrt(400))
    assert means[0] == pytest.approx(elbo, abs=5 * stderrs[0])
    for i in range(2):
        assert means[i + 1] > means[i] + 3 * math.hypot(stderrs[i], stderrs[i + 1])
    assert 0 < log_p - means[-1] < 0.03 * (log_p - means[0])


@both
@pytest.mark.parametrize("k", [1, 3, 50])
def test_every_bound_is_log_p_at_the_exact_posterior(elbo_class, k, linear):
    x = linear.sample(6)
    loss = elbo_class(k).loss(linear.to_model(), linear.to_guide(), x)
    assert -loss == pytest.approx(linear.log_prob(x).sum().item(), rel=1e-9)


@pytest.mark.slow
@both
def test_particles_in_one_pass_and_one_by_one_have_the_same_mean(elbo_class, linear):
    x, model, guide = linear.sample(4), linear.to_model(), linear.to_guide("isotropic")
    values = {}
    for vectorize in (True, False):
        elbo = elbo_class(3, vectorize_particles=vectorize)
        rows = []
        for _ in range(400):
            loss = elbo.differentiable_loss(model, guide, x)
            rows.append(torch.cat([loss.detach().reshape(1), gradients_of(loss, guide, model)]))
        values[vectorize] = torch.stack(rows)
    difference = (values[True].mean(0) - values[False].mean(0)).abs()
    stderr = sum(v.var(0) / len(v) for v in values.values()).sqrt()
    assert (difference <= 5 * stderr + 1e-9).all()


@both
def test_one_particle_is_the_one_sample_estimator(elbo_class):
    model, guide = make_pair(pv.FullCovariancePosterior)
    x = torch.randn(5, 3, dtype=torch.float64)
    one = pv.MonteCarloELBO if elbo_class is pv.ImportanceWeightedELBO else pv.StickingTheLandingELBO
    results = []
    for elbo in (elbo_class(1, beta=0.7), one(beta=0.7)):
        torch.manual_seed(2)
        loss = elbo.differentiable_loss(model, guide, x)
        results.append(torch.cat([loss.detach().reshape(1), gradients_of(loss, guide, model)]))
    torch.testing.assert_close(*results)


def test_the_models_gradient_is_the_same_and_the_guides_is_the_formula(linear):
    x, model = linear.sample(5), linear.to_model()
    guide = linear.gaussian_guide(0.8 * linear.gain, 1.4 * linear.covariance)
    beta, k = 0.6, 7
    grads = []
    for elbo_class in PAIR:
        torch.manual_seed(3)
        of_both = gradients_of(elbo_class(k, beta=beta).differentiable_loss(model, guide, x), model, guide)
        num = sum(p.numel() for p in model.parameters())
        grads.append((of_both[:num], of_both[num:]))
    torch.testing.assert_close(grads[0][0], grads[1][0])
    # written out: weights held, log q at detached parameters
    torch.manual_seed(3)
    q = guide.posterior(x)
    z = q.expand([k, 5]).rsample()
    fixed = dist.MultivariateNormal(q.loc.detach(), scale_tril=q.scale_tril.detach())
    log_w = model.conditional(z).log_prob(x) + beta * (model.prior_distribution().log_prob(z) - fixed.log_prob(z))
    w = log_w.detach().softmax(0)
    torch.testing.assert_close(gradients_of(-(((1 - beta) * w + beta * w**2) * log_w).sum(), guide), grads[1][1])


def detached_arguments(name):
    """The wrong way: log q at detached arguments of each site, not at detached parameters of the guide."""

    class Wrong(pv.DoublyReparameterizedELBO):
        def _log_q(self, site):
            fn = site.guide["fn"]
            return dist.Normal(fn.loc.detach(), fn.scale.detach()).log_prob(site.guide["value"])

    Wrong.__name__ = name
    return Wrong


def mean_gradient(elbo, num, seed):
    """Mean and standard error of the gradient for one datum, from ``num`` draws of K particles."""
    model, guide, w = dependent_pair((0.3, 0.9, 0.1, -1.0))
    torch.manual_seed(seed)
    rows = []
    for _ in range(100):
        x = torch.full((num // 100,), 0.7, dtype=torch.float64)
        loss = elbo.differentiable_loss(model, guide, x) / len(x)
        rows.append(torch.stack(torch.autograd.grad(loss, w)))
    rows = torch.stack(rows)
    return rows.mean(0), rows.std(0) / 10


@pytest.mark.parametrize("beta", [0.5, 1.0])
def test_doubly_reparameterized_is_unbiased_with_dependent_sites(beta):
    reference, noise = mean_gradient(pv.ImportanceWeightedELBO(3, beta=beta), 100_000, 0)
    ours, own_noise = mean_gradient(pv.DoublyReparameterizedELBO(3, beta=beta), 100_000, 1)
    assert ((ours - reference).abs() <= 5 * (noise**2 + own_noise**2).sqrt()).all()
    wrong, wrong_noise = mean_gradient(detached_arguments("Wrong")(3, beta=beta), 100_000, 1)
    bias = (wrong - reference).abs() / (noise**2 + wrong_noise**2).sqrt()
    assert bias.max() > 7, "the test could not see a bias"


@pytest.mark.parametrize("beta", [0.5, 1.0])
def test_doubly_reparameterized_is_unbiased_with_one_site(beta, linear):
    model, guide = linear.to_model(), linear.gaussian_guide(0.7 * linear.gain, 1.3 * linear.covariance)
    x = linear.sample(1).expand(1000, 3)
    rows = {elbo_class: [] for elbo_class in PAIR}
    for elbo_class in PAIR:
        for _ in range(100):
            loss = elbo_class(3, beta=beta).differentiable_loss(model, guide, x) / len(x)
            rows[elbo_class].append(gradients_of(loss, guide))
    (plain, doubly) = (torch.stack(r) for r in rows.values())
    stderr = ((plain.var(0) + doubly.var(0)) / 100).sqrt()
    assert ((plain.mean(0) - doubly.mean(0)).abs() <= 5 * stderr).all()
    assert (plain.mean(0).abs() > 10 * stderr).any()


def test_signal_to_noise_of_the_encoder(linear):
    x, model = linear.sample(8), linear.to_model()
    guide = linear.gaussian_guide(1.1 * linear.gain, 1.3 * linear.covariance)
    snr = {
        elbo_class: [pv.gradient_statistics(model, guide, elbo_class(k), x, 500)["encoder"] for k in (1, 8, 64)]
        for elbo_class in PAIR
    }
    plain, doubly = ([(s.snr, s.snr_stderr) for s in snr[elbo_class]] for elbo_class in PAIR)
    for (low, low_error), (high, high_error) in itertools.pairwise(doubly):
        assert high > low + 3 * math.hypot(low_error, high_error)
    assert plain[2][0] + 3 * plain[2][1] < plain[0][0] - 3 * plain[0][1]


@both
def test_a_global_latent_is_refused_with_the_reason(elbo_class):
    def model(x):
        shift = pyro.sample("shift", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(z + shift, 1.0), obs=x)

    def guide(x):
        pyro.sample("shift", dist.Normal(0.1, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 1.0))

    with pytest.raises(pv.NoClosedFormError, match=r"latent site 'shift' \(Normal\) is outside the data plate"):
        elbo_class(3).loss(model, guide, torch.randn(4))


@both
def test_inner_plates_belong_to_the_datum(elbo_class):
    """A latent for each datum and one for each of its channels: weights are summed over channels, not averaged."""
    x = torch.randn(4, 3, dtype=torch.float64)
    zero = torch.zeros((), dtype=torch.float64)

    def model(x):
        with pyro.plate("data", 4, dim=-2):
            a = pyro.sample("a", dist.Normal(zero, 1.0))
            with pyro.plate("channels", 3, dim=-1):
                b = pyro.sample("b", dist.Normal(a, 1.0))
                pyro.sample("x", dist.Normal(b, 0.5), obs=x)

    def guide(x):
        with pyro.plate("data", 4, dim=-2):
            a = pyro.sample("a", dist.Normal(0.3 * x.mean(1, keepdim=True), 1.0))
            with pyro.plate("channels", 3, dim=-1):
                pyro.sample("b", dist.Normal(0.5 * (a + x), 0.8))

    torch.manual_seed(0)
    loss = elbo_class(6, max_plate_nesting=2).loss(model, guide, x)
    torch.manual_seed(0)
    qa = dist.Normal(0.3 * x.mean(1, keepdim=True), 1.0).expand([6, 4, 1])
    a = qa.sample()
    qb = dist.Normal(0.5 * (a + x), 0.8)
    b = qb.sample()
    log_w = dist.Normal(zero, 1.0).log_prob(a) - qa.log_prob(a)
    log_w = log_w + (dist.Normal(a, 1.0).log_prob(b) - qb.log_prob(b) + dist.Normal(b, 0.5).log_prob(x)).sum(
        -1, keepdim=True
    )
    assert loss == pytest.approx(-log_w.exp().mean(0).log().sum().item(), rel=1e-9)


@pytest.mark.parametrize("elbo_class", [*PAIR, pv.StickingTheLandingELBO, pv.MonteCarloELBO])
@pytest.mark.parametrize("sites", [1, 2])
def test_a_subsampled_plate(elbo_class, sites):
    data = torch.arange(6.0, dtype=torch.float64)
    shift = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    seen = []

    def model(x):
        with pyro.plate("data", 6, subsample_size=2) as index:
            a = pyro.sample("a", dist.Normal(torch.zeros(2).double(), 1.0))
            b = pyro.sample("b", dist.Normal(a, 1.0)) if sites == 2 else a
            pyro.sample("x", dist.Normal(a + b, 0.5), obs=x[index])

    def guide(x):
        with pyro.plate("data", 6, subsample_size=2) as index:
            seen.append(index)
            a = pyro.sample("a", dist.Normal(shift * x[index], 0.1))
            if sites == 2:
                pyro.sample("b", dist.Normal(0.5 * a, 0.1))

    elbo = elbo_class(num_particles=1)
    elbo.differentiable_loss(model, guide, data).backward()
    assert shift.grad.abs() > 0
    assert all((index == seen[0]).all() for index in seen), "a replay drew another subsample"
    torch.manual_seed(0)
    scaled = elbo.loss(model, guide, data)
    torch.manual_seed(0)
    plain = elbo.loss(pyro.poutine.scale(model, 1 / 3), pyro.poutine.scale(guide, 1 / 3), data)
    assert scaled == pytest.approx(3 * plain, rel=1e-9)


@both
def test_scales_that_differ_are_refused(elbo_class):
    model, guide = make_pair(pv.DiagonalPosterior)
    with pytest.raises(ValueError, match="has another scale than site"):
        elbo_class(2).loss(pyro.poutine.scale(model, 3.0), guide, torch.randn(4, 3, dtype=torch.float64))


@both
def test_in_plain_svi_and_in_fit(elbo_class):
    model, guide = make_pair(pv.LowRankPosterior)
    x = torch.randn(64, 3, dtype=torch.float64)
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 1e-2}), loss=elbo_class(4))
    before = [p.detach().clone() for program in (model, guide) for p in program.parameters()]
    svi.step(x)
    after = [p for program in (model, guide) for p in program.parameters()]
    assert all((a != b).any() for a, b in zip(after, before, strict=True))
    history = pv.fit(model, guide, x, elbo_class(4), epochs=20, batch_size=16, learning_rate=1e-2, progress=False)
    assert history.epochs[-1].loss < history.epochs[0].loss


@both
def test_masked_data_have_the_weights_of_what_is_left(elbo_class, linear):
    x, model, guide = linear.sample(4), linear.to_model(), linear.to_guide()
    kept = torch.tensor([True, False, True, True])
    masked = pyro.poutine.mask(model, mask=kept), pyro.poutine.mask(guide, mask=kept)
    assert -elbo_class(5).loss(*masked, x) == pytest.approx(linear.log_prob(x)[kept].sum().item(), rel=1e-9)


@pytest.mark.parametrize("arguments", [{"num_particles": 0}, {"num_particles": 2.5}, {"beta": -1.0}])
@both
def test_bad_settings(elbo_class, arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        elbo_class(**arguments)


@both
def test_masks_that_differ_are_refused(elbo_class):
    model, guide = make_pair(pv.DiagonalPosterior)
    masked = pyro.poutine.mask(guide, mask=torch.tensor([True, False, True, True]))
    with pytest.raises(ValueError, match="site 'z' has another mask in the guide"):
        elbo_class(2).loss(model, masked, torch.randn(4, 3, dtype=torch.float64))


def masked_latent_pair(mask):
    """The latent of some data is masked in both programs, their observation is not."""
    shift = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    scale = torch.tensor(-0.2, dtype=torch.float64, requires_grad=True)

    def model(x):
        with pyro.plate("data", len(x)):
            with pyro.poutine.mask(mask=mask):
                z = pyro.sample("z", dist.Normal(torch.zeros(len(x)).double(), 1.0))
            pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)), pyro.poutine.mask(mask=mask):
            pyro.sample("z", dist.Normal(shift * x, scale.exp()))

    return model, guide, (shift, scale)


def test_doubly_reparameterized_with_a_masked_latent_is_unbiased():
    mask = torch.tensor([True, False]).repeat(2000)
    x = torch.tensor([0.7, -1.1], dtype=torch.float64).repeat(2000)
    means = {}
    for elbo_class in PAIR:
        model, guide, parameters = masked_latent_pair(mask)
        rows = []
        for _ in range(60):
            loss = elbo_class(3).differentiable_loss(model, guide, x) / len(x)
            rows.append(torch.stack(torch.autograd.grad(loss, parameters)))
        rows = torch.stack(rows)
        means[elbo_class] = rows.mean(0), rows.var(0) / len(rows)
    (plain, plain_noise), (doubly, doubly_noise) = means.values()
    assert ((plain - doubly).abs() <= 5 * (plain_noise + doubly_noise).sqrt()).all()


def test_what_doubly_reparameterized_cannot_do_is_refused():
    x = torch.randn(4, dtype=torch.float64)

    def model(x):
        with pyro.plate("data", 4):
            z = pyro.sample("z", dist.Normal(torch.zeros(4).double(), 1.0))
            pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    def point(x):
        with pyro.plate("data", 4):
            pyro.sample("z", dist.Delta(0.3 * x.clone().requires_grad_()))

    def in_other_coordinates(x):
        with pyro.plate("data", 4):
            u = pyro.sample("u", dist.Normal(x.clone().requires_grad_(), 1.0), infer={"is_auxiliary": True})
            pyro.sample("z", dist.Delta(u))

    with pytest.raises(pv.InputError, match="the guide of site 'z' is a point estimate"):
        pv.DoublyReparameterizedELBO(2).loss(model, point, x)
    with pytest.raises(pv.NoClosedFormError, match="site 'z' is a Delta"):
        pv.DoublyReparameterizedELBO(2).loss(model, in_other_coordinates, x)

    def two(mask):
        def program(x, obs=None):
            with pyro.plate("data", 4):
                with pyro.poutine.mask(mask=mask):
                    a = pyro.sample("a", dist.Normal(torch.zeros(4).double(), 1.0))
                b = pyro.sample("b", dist.Normal(a, 1.0))
                if obs is not None:
                    pyro.sample("x", dist.Normal(b, 0.5), obs=obs)

        return program

    program = two(torch.tensor([True, False, True, True]))
    with pytest.raises(ValueError, match="the latent sites a, b have different masks"):
        pv.DoublyReparameterizedELBO(2).loss(lambda x: program(x, x), program, x)


@pytest.mark.parametrize("elbo_class", [pv.StickingTheLandingELBO, pv.DoublyReparameterizedELBO])
def test_other_randomness_of_the_guide_is_the_same_in_its_replay(elbo_class):
    """Dropout in a guide of two sites: the replayed guide must drop the same units, or log q is another q's."""
    x = torch.linspace(-1, 1, 6, dtype=torch.float64)
    dropout = torch.nn.Dropout(0.5)
    slope = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)

    def model(x):
        with pyro.plate("data", 6):
            a = pyro.sample("a", dist.Normal(torch.zeros(6).double(), 1.0))
            b = pyro.sample("b", dist.Normal(a, 1.0))
            pyro.sample("x", dist.Normal(a + b, 0.5), obs=x)

    def guide(x):
        with pyro.plate("data", 6):
            a = pyro.sample("a", dist.Normal(dropout(slope * x), 0.1))
            pyro.sample("b", dist.Normal(dropout(a + slope), 0.1))

    values, states = [], []
    for elbo in (pv.MonteCarloELBO(), elbo_class(num_particles=1)):
        torch.manual_seed(7)
        values.append(elbo.differentiable_loss(model, guide, x).item())
        states.append(torch.get_rng_state())
    assert values[0] == pytest.approx(values[1], rel=1e-9)
    assert (states[0] == states[1]).all()


@both
def test_plates_deeper_than_said_and_deterministic_sites(elbo_class):
    x = torch.randn(4, 3, dtype=torch.float64)

    def model(x):
        pyro.deterministic("outside", torch.tensor(1.0))
        with pyro.plate("data", 4, dim=-2):
            a = pyro.sample("a", dist.Normal(torch.zeros(()).double(), 1.0))
            with pyro.plate("channels", 3, dim=-1):
                pyro.sample("x", dist.Normal(a, 0.5), obs=x)

    def guide(x):
        with pyro.plate("data", 4, dim=-2):
            a = pyro.sample("a", dist.Normal(0.3 * x.mean(1, keepdim=True), 1.0))
            pyro.deterministic("twice", 2 * a)

    assert math.isfinite(elbo_class(3, max_plate_nesting=2).loss(model, guide, x))
    assert [row.site for row in pv.audit(model, guide, elbo_class(3, max_plate_nesting=2), x).sites] == ["x", "a"]
    assert math.isfinite(elbo_class(3).loss(model, guide, x))  # the depth is found
    with pyro.validation_enabled(False), pytest.raises((ValueError, RuntimeError)):
        elbo_class(3, max_plate_nesting=1).loss(model, guide, x)
