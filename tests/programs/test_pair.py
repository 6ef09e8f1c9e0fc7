"""Programs as people write them, each with an answer worked out by hand: the right number, or one line that refuses."""

import math

import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoLaplaceApproximation, AutoMultivariateNormal
from torch import nn

import pyrovae as pv
from pyrovae.elbo import ESTIMATORS
from pyrovae.errors import InputWarning
from pyrovae.programs import takes_any_axes

X = torch.tensor([[0.3], [1.2]])


MEANS = [pv.MonteCarloELBO, pv.AnalyticELBO, pv.ClosedFormEntropyELBO, pv.StickingTheLandingELBO]


def standard(x, mask=None):
    """z ~ N(0, I), x ~ N(z, 1)."""
    with pyro.plate("data", len(x)):
        with pyro.poutine.mask(mask=True if mask is None else mask):
            z = pyro.sample("z", dist.Normal(torch.zeros(x.shape[1]), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)


def half(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(0.5 * x, 0.7).to_event(1))


def elbo_of_half(x, s=0.7):
    """The ELBO of ``standard`` and ``half``, datum by datum, in closed form."""
    x = x.double()
    reconstruction = -0.5 * (math.log(2 * math.pi) + (0.5 * x).square() + s**2)
    kl = 0.5 * (s**2 + (0.5 * x).square() - 1) - math.log(s)
    return (reconstruction - kl).sum(-1)


def ladder(third=False):
    """a → b → x, drawn from the bottom up; with ``third``, c → a before them and drawn last."""

    def model(x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Normal(torch.zeros(len(x)), 1.0)) if third else 0.0
            a = pyro.sample("a", dist.Normal(c + torch.zeros(len(x)), 1.0))
            b = pyro.sample("b", dist.Normal(a, 0.5))
            pyro.sample("x", dist.Normal(b, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            b = pyro.sample("b", dist.Normal(0.5 * x, 0.7))
            a = pyro.sample("a", dist.Normal(0.8 * b, 0.4))
            if third:
                pyro.sample("c", dist.Normal(0.5 * a, 0.8))

    return model, guide


@pytest.mark.parametrize("third", [False, True])
def test_sites_drawn_in_another_order(third):
    """By hand: means and variances of Gaussians alone."""
    x = 0.3
    mb, vb = 0.5 * x, 0.49
    ma, va = 0.8 * mb, 0.64 * vb + 0.16
    log_2pi = math.log(2 * math.pi)
    expected = -0.5 * (log_2pi + vb + (x - mb) ** 2)  # E log p(x|b)
    diff, var = mb - ma, 0.04 * vb + 0.16  # b − a
    expected += -0.5 * (log_2pi + 2 * math.log(0.5) + (var + diff**2) / 0.25)
    expected += 0.5 * (log_2pi + 1) + math.log(0.7) + 0.5 * (log_2pi + 1) + math.log(0.4)
    if third:
        mc, vc = 0.5 * ma, 0.25 * va + 0.64
        expected += -0.5 * (log_2pi + 0.25 * va + 0.64 + (ma - mc) ** 2)  # E log p(a|c)
        expected += -0.5 * (log_2pi + vc + mc**2) + 0.5 * (log_2pi + 1) + math.log(0.8)
    else:
        expected += -0.5 * (log_2pi + va + ma**2)
    found = pv.elbo_terms(*ladder(third), torch.tensor([x]), num_samples=1000)
    # false alarms below 1e-6
    assert found.elbo.item() == pytest.approx(expected, abs=5 * found.stderr_per_datum.item())
    assert found.stderr_per_datum.item() < 0.1


@pytest.mark.parametrize(
    ("names", "dims"), [(("data", "k"), (-1, -2)), (("data", "k"), (-2, -1)), (("b", "k"), (-1, -2))]
)
@pytest.mark.parametrize("k", [3, 4])
def test_the_data_s_plate_is_not_any_plate_of_its_size(names, dims, k):
    x = torch.arange(4.0)
    rows = x if dims[0] == -1 else x.unsqueeze(-1)
    shape = (k, 4) if dims[0] == -1 else (4, k)

    def model(x):
        with pyro.plate(names[0], len(x), dim=dims[0]), pyro.plate(names[1], k, dim=dims[1]):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=rows.expand(shape))

    def guide(x):
        with pyro.plate(names[0], len(x), dim=dims[0]), pyro.plate(names[1], k, dim=dims[1]):
            pyro.sample("z", dist.Normal(0.5 * rows.expand(shape), 0.7))

    if names[0] != "data" and k == 4:
        with pytest.raises(pv.InputError, match=r"'b', 'k' all have the data's size, 4, so .* call that one 'data'$"):
            pv.elbo_terms(model, guide, x)
        return
    kl = k * (0.5 * (0.49 + x.double() ** 2 / 4 - 1) - math.log(0.7))
    torch.testing.assert_close(pv.elbo_terms(model, guide, x).kl, kl, rtol=0, atol=1e-5)
    found = pv.elbo_estimate(model, guide, x, num_samples=2000)
    assert ((found.per_datum - k * elbo_of_half(x.unsqueeze(-1))).abs() < 5 * found.stderr_per_datum).all()


def subsampled(full, s=0.5**0.5, **how):
    def model(x):
        with pyro.plate("data", full, **(how or {"subsample": torch.arange(len(x))})):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x):
        scale = pyro.param("scale_subsampled", torch.tensor(s))
        with pyro.plate("data", full, **(how or {"subsample": torch.arange(len(x))})):
            pyro.sample("z", dist.Normal(0.5 * x, scale).to_event(1))

    return model, guide


@pytest.mark.parametrize(("full", "how"), [(100, {}), (7, {}), (100, {"subsample_size": 4})])
def test_a_subsampled_plate_is_reported_in_nats_per_datum(full, how):
    """At the exact posterior every draw gives log p(x)."""
    x, right = torch.tensor([[0.0], [1.0], [2.0], [-1.0]]), dist.Normal(0.0, 2**0.5)
    per_datum = right.log_prob(x).squeeze(-1).double()
    pair = subsampled(full, **how)
    torch.testing.assert_close(pv.elbo_estimate(*pair, x, num_samples=2).per_datum, per_datum, rtol=0, atol=1e-5)
    torch.testing.assert_close(pv.log_marginal(*pair, x, num_samples=2).per_datum, per_datum, rtol=0, atol=1e-5)
    assert pv.audit(*pair, pv.MonteCarloELBO(), x).loss == pytest.approx(-per_datum.mean().item(), abs=1e-5)
    statistics = pv.gradient_statistics(*pair, pv.MonteCarloELBO(), x, num_repeats=3)
    assert statistics.loss == pytest.approx(-per_datum.mean().item(), abs=1e-5)
    history = pv.fit(
        *pair, x, pv.MonteCarloELBO(), epochs=1, batch_size=4, learning_rate=1e-9, progress=False, validation=x
    )
    for name in ("loss", "validation_loss"):
        assert history.to_frame()[name].iloc[-1] == pytest.approx(-per_datum.mean().item(), abs=1e-5)


def test_another_subsampled_plate_scales_an_elbo_but_no_density():
    """Two of six elements: three times their ELBO is unbiased; log p(x) is an integral over all six."""

    def program(body):
        def run(x):
            with pyro.plate("elements", 6, subsample=torch.arange(2), dim=-2), pyro.plate("data", len(x), dim=-1):
                body(x[:, 0].expand(2, -1))

        return run

    def model(x):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    pair = program(model), program(lambda x: pyro.sample("z", dist.Normal(0.5 * x, 0.7)))
    for found in (pv.elbo_terms(*pair, X, num_samples=500).elbo, pv.elbo_estimate(*pair, X).per_datum):
        torch.testing.assert_close(found, 6 * elbo_of_half(X), rtol=0, atol=0.5)
    for run in (
        lambda: pv.log_marginal(*pair, X, "importance"),
        lambda: pv.log_marginal(*pair, X, "quadrature"),
        lambda: pv.inference_gaps(*pair, X),
    ):
        with pytest.raises(pv.InputError, match=r"^site 'z' is scaled, .* a subsampled plate that is not the data's"):
            run()


def test_a_plate_that_takes_another_number_of_rows_is_refused():
    x = torch.zeros(10, 1)
    with pytest.raises(pv.InputError, match=r"^plate 'data' takes subsample_size=4 of 100, but a batch holds 2 data"):
        pv.fit(*subsampled(100, subsample_size=4), x, pv.MonteCarloELBO(), epochs=1, batch_size=4, progress=False)


@pytest.mark.parametrize("where", ["poutine", "distribution", "both"])
def test_a_mask_on_one_side_counts_as_pyro_counts_it(where):
    """Without the prior's term of the masked datum, log q alone remains of its KL."""
    mask = torch.tensor([True, False, True])
    x = torch.tensor([[0.1, 0.4], [1.0, -0.5], [0.3, 0.2]])

    def model(x):
        if where != "distribution":
            standard(x, mask)
            return
        with pyro.plate("data", 3):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1).mask(mask))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", 3), pyro.poutine.mask(mask=mask if where == "both" else True):
            pyro.sample("z", dist.Normal(0.5 * x, 0.7).to_event(1))

    entropy = 0.5 * (math.log(2 * math.pi) + 1) + math.log(0.7)
    right = elbo_of_half(x)
    reconstruction = -0.5 * (math.log(2 * math.pi) + (0.5 * x[1]).square() + 0.49).sum().item()
    right[1] = reconstruction + (2 * entropy if where != "both" else 0)
    found = pv.elbo_terms(model, guide, x, num_samples=2000)
    assert ((found.elbo - right).abs() < 5 * found.stderr_per_datum).all()
    if where != "both":
        with pytest.raises(pv.InputError, match="site 'z' has another mask in the guide than in the model") as caught:
            pv.log_marginal(model, guide, x)
        assert "\n" not in str(caught.value)


def test_differing_masks_inside_distributions_are_no_overlap():
    """Pyro's KL of two masked distributions takes the overlap of the masks."""
    masks = torch.tensor([True, False, True]), torch.tensor([True, True, False])
    x = torch.tensor([[0.1], [1.0], [0.3]])

    def model(x):
        with pyro.plate("data", 3):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1).mask(masks[0]))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", 3):
            pyro.sample("z", dist.Normal(0.5 * x, 0.7).to_event(1).mask(masks[1]))

    found = pv.elbo_terms(model, guide, x, num_samples=2000)
    entropy, means = 0.5 * (math.log(2 * math.pi) + 1) + math.log(0.7), (0.5 * x.double()).squeeze(-1)
    right = -0.5 * (math.log(2 * math.pi) + means**2 + 0.49)
    log_p = -0.5 * (math.log(2 * math.pi) + means**2 + 0.49)
    right = right + torch.tensor([1.0, 0.0, 1.0]) * log_p + torch.tensor([1.0, 1.0, 0.0]) * entropy
    assert ((found.elbo - right).abs() < 5 * found.stderr_per_datum).all()


@pytest.mark.parametrize("elbo_class", ESTIMATORS.values(), ids=ESTIMATORS)
@pytest.mark.parametrize("sites", [1, 2])
def test_a_factor_in_the_guide_counts_in_value_and_gradient(elbo_class, sites):
    """f(z) = w z² in the guide: its value and its derivatives in w and in the guide's scale are known."""
    x, w, s = torch.zeros(1), torch.tensor(0.3, requires_grad=True), torch.tensor(0.5, requires_grad=True)
    num = 20_000

    def model(x):
        with pyro.plate("data", num):
            pyro.sample("z", dist.Normal(torch.zeros(num), 1.0))
            if sites == 2:
                pyro.sample("y", dist.Normal(torch.zeros(num), 1.0))

    def guide(x):
        with pyro.plate("data", num):
            z = pyro.sample("z", dist.Normal(torch.zeros(num), s))
            if sites == 2:
                pyro.sample("y", dist.Normal(torch.zeros(num), 1.0))
            pyro.factor("f", w * z.square(), has_rsample=True)

    elbo = elbo_class(1) if issubclass(elbo_class, pv.ImportanceWeightedELBO) else elbo_class()
    with pyro.validation_enabled(True):
        loss = elbo.differentiable_loss(model, guide, x) / num
    gradient = torch.autograd.grad(loss, [w, s])
    kl = 0.5 * (0.25 - 1) - math.log(0.5)
    tolerance = 5 * 2 / math.sqrt(num)
    assert loss.item() == pytest.approx(kl + 0.3 * 0.25, abs=tolerance)
    assert gradient[0].item() == pytest.approx(0.25, abs=tolerance)
    assert gradient[1].item() == pytest.approx(0.5 - 1 / 0.5 + 2 * 0.3 * 0.5, abs=2 * tolerance)


@pytest.mark.parametrize("k", [3])
def test_a_factor_inside_weights_has_the_gradient_of_the_weights(k):
    """The doubly reparameterised gradient stays the importance-weighted one in mean."""
    s = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    num = 100_000

    def model(x):
        with pyro.plate("data", num):
            z = pyro.sample("z", dist.Normal(torch.zeros(num).double(), 1.0))
            pyro.sample("x", dist.Normal(z, 0.7), obs=torch.ones(num).double())

    def guide(x):
        with pyro.plate("data", num):
            z = pyro.sample("z", dist.Normal(torch.full((num,), 0.4).double(), s))
            pyro.factor("f", 0.5 * s * z.square(), has_rsample=True)

    gradients = []
    for elbo in (pv.ImportanceWeightedELBO(k), pv.DoublyReparameterizedELBO(k)):
        loss = elbo.differentiable_loss(model, guide, torch.zeros(1)) / num
        gradients.append(torch.autograd.grad(loss, s)[0].item())
    assert gradients[0] == pytest.approx(gradients[1], abs=0.02)  # a datum's gradients spread by about one


def test_a_factor_without_rsample_is_refused_where_it_cannot_be_counted():
    def guide(x):
        half(x)
        pyro.factor("f", torch.tensor(1.0), has_rsample=False)

    with pytest.raises(pv.NoClosedFormError, match=r"the guide's factor 'f' is not marked .* use MonteCarloELBO$"):
        pv.AnalyticELBO().loss(standard, guide, X)


@pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)
@pytest.mark.parametrize("observed", [True, False])
def test_a_log_density_wider_than_its_plates_is_refused(estimator, observed):
    x, decoder = torch.linspace(-1, 1, 8), nn.Linear(1, 1)

    def model(x):
        pyro.module("decoder_wide", decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1) if observed else dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(decoder(z.reshape(-1, 1)), 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            loc = 0.3 * x.unsqueeze(-1)
            pyro.sample("z", dist.Normal(loc, 0.8).to_event(1) if observed else dist.Normal(loc, 0.8))

    message = (
        r"^site '[xz]' has an invalid log_prob shape, \((8, )?8, 8\) with \d+ terms: its plates have \((8, )?8,?\)"
    )
    for run in (
        lambda: pv.fit(model, guide, x, estimator(), epochs=1, progress=False),
        lambda: estimator(1, max_plate_nesting=1).loss(model, guide, x),
        lambda: pv.elbo_terms(model, guide, x),
        lambda: pv.audit(model, guide, estimator(), x),
    ):
        with pytest.raises(pv.InputError, match=message) as caught:
            run()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["obs_mask", "discrete", "plain"])
def test_a_latent_site_that_the_guide_lacks_is_refused(kind):
    x = torch.tensor([0.3, 1.2, -0.4])

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            if kind == "obs_mask":
                pyro.sample("x", dist.Normal(z, 1.0), obs=x, obs_mask=torch.tensor([True, False, True]))
                return
            k = pyro.sample("k", dist.Bernoulli(0.5) if kind == "discrete" else dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z + k, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.5 * x, pyro.param("scale_lacks", torch.tensor(0.7))))

    message = {
        "obs_mask": r"^obs_mask makes a latent site 'x_unobserved' .* \.mask\(observed\) .* missing=True",
        "discrete": "^latent site 'k' of the model, a discrete Bernoulli, is missing in the guide",
        "plain": "^latent site 'k' of the model is missing in the guide",
    }[kind]
    for run in (
        lambda: pv.fit(model, guide, x, pv.MonteCarloELBO(), epochs=1, progress=False),
        lambda: pv.elbo_terms(model, guide, x),
        lambda: pv.log_marginal(model, guide, x),
        lambda: pv.gradient_statistics(model, guide, pv.MonteCarloELBO(), x, 2),
    ):
        with pytest.raises(pv.InputError, match=message):
            run()


@pytest.mark.parametrize("mask", [False, torch.tensor(False), torch.tensor([False, True, False])])
@pytest.mark.parametrize(
    "elbo_class", [pv.MonteCarloELBO, pv.AnalyticELBO, pv.ClosedFormEntropyELBO, pv.StickingTheLandingELBO]
)
def test_a_masked_distribution_on_both_sides(mask, elbo_class):
    def masked(fn):
        return fn.mask(mask)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", masked(dist.Normal(torch.zeros(2), 1.0).to_event(1)))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", masked(dist.Normal(0.5 * x, 0.7).to_event(1)))

    x = torch.tensor([[0.1, 0.4], [1.0, -0.5], [0.3, 0.2]])
    reconstruction = -0.5 * (math.log(2 * math.pi) + (0.5 * x).square() + 0.49).sum(-1)
    kl = (0.5 * (0.49 + (0.5 * x).square() - 1) - math.log(0.7)).sum(-1)
    right = (reconstruction - torch.as_tensor(mask) * kl).sum().item()
    loss = elbo_class(num_particles=4000, vectorize_particles=True).loss(model, guide, x)
    assert -loss == pytest.approx(right, abs=5 * 2 * math.sqrt(6 / 4000))


def test_batch_norm_behind_a_hand_written_decoder_sees_rows():
    """Sixteen draws or sixteen data: an axis in front must not meet the layer's channels."""
    torch.manual_seed(0)
    decoder = nn.Sequential(nn.Linear(2, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3)).eval()
    decoder[1].running_var.copy_(torch.linspace(0.01, 4, 16))

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(decoder(z), 3.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))

    x = torch.randn(16, 3)
    with torch.no_grad():
        z = torch.randn(20_000, 2)
        log_p = dist.Normal(decoder(z), 3.0).to_event(1)
        right = torch.stack([log_p.log_prob(row).logsumexp(0) for row in x]).double() - math.log(len(z))
    for num in (16, 15):
        for method, options in (("importance", {"num_samples": 4000}), ("quadrature", {"num_points": 24})):
            found = pv.log_marginal(model, guide, x[:num], method, **options)
            torch.testing.assert_close(found.per_datum, right[:num], rtol=0, atol=0.1)


def test_every_method_takes_arrays_and_frames():
    right = dist.Normal(0.0, 2**0.5).log_prob(X).sum(-1).double()
    for data in (X, X.numpy(), pd.DataFrame(X.numpy())):
        for method, options in (("importance", {"num_samples": 4000}), ("quadrature", {})):
            found = pv.log_marginal(standard, half, data, method, **options)
            torch.testing.assert_close(found.per_datum, right, rtol=0, atol=0.05)
    with pytest.raises(pv.InputError, match="x must hold only numbers, not object; leave out columns of text"):
        pv.elbo_terms(standard, half, pd.DataFrame({"a": ["one"]}))


@pytest.mark.parametrize("change", ["wider latent", "event", "encoder"])
def test_programs_that_do_not_fit_are_named(change):
    width = 4 if change == "encoder" else 3
    model = pv.GenerativeModel(pv.nn.MLP(2, 8), pv.GaussianLikelihood(8, 3), 2)
    guide = pv.AmortizedGuide(pv.nn.MLP(width, 8), pv.DiagonalPosterior(8, 3 if change == "wider latent" else 2))
    message = {
        "wider latent": r"^site 'z' has the event shape \(2,\) in the model and \(3,\) in the guide",
        "event": r"^site 'z' has the event shape \(2,\) in the model and \(\) in the guide",
        "encoder": r"^the guide cannot run on data of shape \(5, 3\): .* its first layer must be as wide as the data$",
    }[change]
    if change == "event":

        def guide(x):
            with pyro.plate("data", len(x)), pyro.plate("d", 2):
                pyro.sample("z", dist.Normal(torch.zeros(2, len(x)), 1.0))

    x = torch.randn(5, 3)
    for run in (
        lambda: pv.fit(model, guide, x, pv.MonteCarloELBO(), epochs=1, progress=False),
        lambda: pv.elbo_terms(model, guide, x),
        lambda: pv.audit(model, guide, pv.AnalyticELBO(), x),
    ):
        with pytest.raises(pv.InputError, match=message) as caught:
            run()
        assert "\n" not in str(caught.value)


def test_a_last_batch_of_one_under_batch_norm_is_refused_before_training():
    encoder = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8))
    model = pv.GenerativeModel(pv.nn.MLP(2, 8), pv.GaussianLikelihood(8, 3), 2)
    guide = pv.AmortizedGuide(encoder, pv.DiagonalPosterior(8, 2))
    before = encoder[1].running_mean.clone()
    with pytest.raises(pv.InputError, match="the last batch of an epoch holds one of the 9 data, and BatchNorm1d"):
        pv.fit(model, guide, torch.randn(9, 3), pv.AnalyticELBO(), epochs=1, batch_size=4, progress=False)
    assert torch.equal(encoder[1].running_mean, before)
    pv.fit(model, guide, torch.randn(10, 3), pv.AnalyticELBO(), epochs=1, batch_size=4, progress=False)


@pytest.mark.parametrize("hidden", ["distribution", "lambda", "decoder"])
def test_a_parameter_that_nothing_trains_is_refused(hidden):
    loc, decoder = nn.Parameter(torch.zeros(2)), nn.Linear(2, 3)
    prior = {
        "distribution": dist.Normal(loc, 1.0).to_event(1),
        "lambda": lambda: dist.Normal(loc, 1.0).to_event(1),
        "decoder": None,
    }[hidden]
    model = pv.GenerativeModel(pv.nn.MLP(2, 8), pv.GaussianLikelihood(8, 3), 2, prior=prior)
    guide = pv.AmortizedGuide(pv.nn.MLP(3, 8), pv.DiagonalPosterior(8, 2))
    if hidden == "decoder":  # pyro.module was forgotten

        def model(x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
                pyro.sample("x", dist.Normal(decoder(z), 1.0).to_event(1), obs=x)

    site = "x" if hidden == "decoder" else "z"
    with pytest.raises(pv.InputError, match=f"at site '{site}' requires a gradient, but nothing trains it"):
        pv.fit(model, guide, torch.randn(8, 3), pv.MonteCarloELBO(), epochs=1, progress=False)


def test_integer_data_become_numbers_and_what_cannot_take_them_says_so():
    embedding = nn.Embedding(5, 2)

    def guide(x):
        pyro.module("embedding", embedding)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(embedding(x[:, 0]), 0.7).to_event(1))

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Poisson(z.exp().sum(-1, keepdim=True)).to_event(1), obs=x)

    x = torch.tensor([[1], [3]])
    with pytest.raises(pv.InputError, match=r"the guide cannot run on data of shape \(2, 1\) in float32: .*x\.long"):
        pv.elbo_terms(model, guide, x)
    torch.testing.assert_close(pv.elbo_terms(standard, half, x).kl, pv.elbo_terms(standard, half, x.float()).kl)


def test_a_nesting_that_was_found_is_not_stored_and_every_argument_of_pyro_s_is_taken():
    def model(x):
        with pyro.plate("data", len(x), dim=-1), pyro.plate("k", 3, dim=-2):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x.expand(3, -1))

    def guide(x):
        with pyro.plate("data", len(x), dim=-1), pyro.plate("k", 3, dim=-2):
            pyro.sample("z", dist.Normal(0.5 * x.expand(3, -1), 0.7))

    x = torch.arange(3.0)  # as many as elements of the other plate
    keywords = {
        "strict_enumeration_warning": False, "retain_graph": True, "ignore_jit_warnings": True,
        "tail_adaptive_beta": -0.5, "jit_options": None, "max_iarange_nesting": None,
    }  # fmt: skip
    right = -3 * elbo_of_half(x.unsqueeze(-1)).sum().item()
    for elbo_class in (pv.MonteCarloELBO, pv.AnalyticELBO):
        elbo = elbo_class(3000, vectorize_particles=True, **keywords)
        before = dict(vars(elbo))
        for _ in range(2):
            assert elbo.loss(model, guide, x) == pytest.approx(right, abs=5 * 2 * math.sqrt(9 / 3000))
        assert vars(elbo) == before
        assert elbo.retain_graph
        assert math.isinf(elbo.max_plate_nesting)


def test_autoguides_have_pyro_s_loss_and_the_jacobian_in_every_term():
    """A constrained latent: log |dz/du| belongs to log q of an autoguide's points."""
    x = torch.tensor([0.5, -1.3, 2.0])

    def model(x):
        with pyro.plate("data", 3):
            s = pyro.sample("s", dist.LogNormal(torch.zeros(3), 0.5))
            pyro.sample("x", dist.Normal(0.0, s), obs=x)

    guide = pyro.infer.autoguide.AutoNormal(model)
    guide(x)
    for elbo_class in (pv.MonteCarloELBO, pv.AnalyticELBO, pv.StickingTheLandingELBO, pv.ClosedFormEntropyELBO):
        right = Trace_ELBO(num_particles=4000, vectorize_particles=True, max_plate_nesting=1).loss(model, guide, x)
        assert elbo_class(4000, vectorize_particles=True).loss(model, guide, x) == pytest.approx(right, abs=0.15)
    u = torch.linspace(-5, 5, 4001).double()
    log_joint = (
        dist.LogNormal(0.0, 0.5).log_prob(u.exp()) + u + dist.Normal(0.0, u.exp()).log_prob(x.double().unsqueeze(-1))
    )
    truth = log_joint.logsumexp(-1) + math.log(10 / 4000)
    found = pv.log_marginal(model, guide, x, "quadrature")
    torch.testing.assert_close(found.per_datum, truth, rtol=0, atol=1e-4)


def drawing_more(x):
    """z given u, which the model lacks."""
    with pyro.plate("data", len(x)):
        u = pyro.sample("u", dist.Normal(0.5 * x, 0.5).to_event(1), infer={"is_auxiliary": True})
        pyro.sample("z", dist.Normal(u, 0.5).to_event(1))


def in_other_coordinates(x):
    """z = 2u with u ~ N(x/4, 0.36²)."""
    with pyro.plate("data", len(x)):
        u = pyro.sample("u", dist.Normal(0.25 * x, 0.36).to_event(1), infer={"is_auxiliary": True})
        shift = torch.full((len(x),), -x.shape[1] * math.log(2.0))
        pyro.sample("z", dist.Delta(2 * u, log_density=shift, event_dim=1))


def at_a_point(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Delta(0.5 * x, event_dim=1))


@pytest.mark.parametrize("method", ["auto", "importance", "annealed", "quadrature"])
@pytest.mark.parametrize(
    ("guide", "message"),
    [
        (drawing_more, "site 'u' is drawn by the guide alone, so log q"),
        (at_a_point, "the guide of site 'z' is a point estimate, Delta"),
    ],
)
def test_guides_without_a_density_of_the_latents_have_no_log_marginal(guide, message, method):
    with pytest.raises(pv.InputError, match=message):
        pv.log_marginal(standard, guide, X, method=method)


@pytest.mark.parametrize("estimator", [pv.ImportanceWeightedELBO, pv.DoublyReparameterizedELBO])
def test_guides_without_a_density_of_the_latents_have_no_weights(estimator):
    for guide in (drawing_more, at_a_point):
        with pytest.raises(pv.InputError, match=r"is drawn by the guide alone|is a point estimate"):
            estimator(num_particles=3).loss(standard, guide, X)
    assert math.isfinite(pv.MonteCarloELBO().loss(standard, drawing_more, X))  # a bound all the same


@pytest.mark.parametrize("make", [None, pyro.infer.autoguide.AutoNormal, pyro.infer.autoguide.AutoMultivariateNormal])
def test_draws_that_are_the_latents_in_other_coordinates_are_integrated(make):
    guide = in_other_coordinates if make is None else make(standard, init_scale=0.7)
    exact = dist.Normal(0.0, math.sqrt(2.0)).log_prob(X).sum(-1)
    if make is pyro.infer.autoguide.AutoMultivariateNormal:  # one site for all data: no value per datum
        with pytest.raises(pv.InputError):
            pv.log_marginal(standard, guide, X, method="importance")
        return
    found = pv.log_marginal(standard, guide, X, method="importance", num_samples=2_000)
    assert ((found.per_datum - exact).abs() < 5 * found.stderr_per_datum).all()


@pytest.mark.parametrize("num", [1, 4])
def test_a_plate_of_a_fixed_size_takes_no_other_number_of_data(num):
    """One datum would be broadcast over all six."""

    def model(x):
        with pyro.plate("data", 6):
            z = pyro.sample("z", dist.Normal(torch.zeros(6, 1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", 6):
            pyro.sample("z", dist.Normal(pyro.param("loc_fixed", torch.zeros(6, 1)), 0.7).to_event(1))

    x = torch.randn(num, 1)
    for run in (
        lambda: pv.fit(model, guide, x, pv.MonteCarloELBO(), epochs=1, progress=False),
        lambda: pv.audit(model, guide, pv.AnalyticELBO(), x),
        lambda: pv.elbo_terms(model, guide, x),
        lambda: pv.log_marginal(model, guide, x),
    ):
        with pytest.raises(pv.InputError, match=r"^plate 'data' always has 6 elements, but a batch holds \d data"):
            run()
    pv.fit(model, guide, torch.randn(6, 1), pv.MonteCarloELBO(), epochs=1, progress=False)


def test_shapes_that_do_not_fit_are_one_line():
    def model(x):
        with pyro.plate("rows", 6):
            z = pyro.sample("z", dist.Normal(torch.zeros(6), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("rows", 6):
            pyro.sample("z", dist.Normal(torch.zeros(6), 0.7))

    with pytest.raises(pv.InputError, match=r"^site 'x' has a distribution of shape \(6,\) and a value of shape \(4"):
        pv.MonteCarloELBO().loss(model, guide, torch.zeros(4))


@pytest.mark.parametrize("mask", [False, torch.tensor([True, False])])
def test_masked_observations_are_left_out_of_log_p(mask):
    """Semi-supervised and missing data: the latent stays, what is not observed goes."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1).mask(mask), obs=x)

    right = torch.as_tensor(mask) * dist.Normal(0.0, math.sqrt(2.0)).log_prob(X).squeeze(-1).double()
    for method in ("quadrature", "importance"):
        found = pv.log_marginal(model, half, X, method)
        torch.testing.assert_close(found.per_datum, right, rtol=0, atol=0.1)


def test_a_program_that_masks_nan_itself_says_so():
    """Its value is that of the observed values, by every method and in a comparison of guides."""
    x = torch.tensor([[0.3, math.nan], [1.2, 0.4], [math.nan, 0.9]])

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).mask(~x.isnan()).to_event(1), obs=x.nan_to_num())

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.5 * x.nan_to_num(), 0.7).to_event(1))

    with pytest.raises(pv.InputError, match=r"set model\.missing = True$"):
        pv.log_marginal(model, guide, x)
    how = {"epochs": 1, "hidden": (4,), "latent_dims": (2,), "estimators": ["analytic"], "progress": False}
    how |= {"posteriors": ["diagonal"]}
    with pytest.raises(pv.InputError, match=r"^missing='mask' needs a model that masks NaN: model\.missing = True$"):
        pv.compare(x.repeat(10, 1), test=x, model=model, missing="mask", **how)
    model.missing = True
    right = dist.Normal(0.0, math.sqrt(2.0), validate_args=False).log_prob(x).nan_to_num().sum(-1).double()
    for method in ("quadrature", "importance", "auto"):
        torch.testing.assert_close(pv.log_marginal(model, guide, x, method).per_datum, right, rtol=0, atol=0.1)
    families = {"diagonal": pv.DiagonalPosterior}
    found = pv.inference_gaps(model, guide, x, families, max_steps=30, num_samples=1000)
    torch.testing.assert_close(found.log_p.per_datum, right, rtol=0, atol=0.1)
    table = pv.compare(x.repeat(10, 1), test=x, model=model, missing="mask", **how)
    assert table["test_log_marginal"][0] == pytest.approx(right.mean().item(), abs=0.1)


def test_a_model_without_latents_is_its_own_log_density():
    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(0.0, math.sqrt(2.0)), obs=x[:, 0])

    right = dist.Normal(0.0, math.sqrt(2.0)).log_prob(X).squeeze(-1).double()
    for estimator in ESTIMATORS.values():
        assert estimator().loss(model, lambda x: None, X) == pytest.approx(-right.sum().item(), abs=1e-5)
    torch.testing.assert_close(pv.log_marginal(model, lambda x: None, X).per_datum, right, rtol=0, atol=1e-6)
    with pytest.raises(pv.InputError, match="the guide draws nothing"):
        pv.log_marginal(model, lambda x: None, X, "quadrature")


def test_a_guide_that_cannot_draw_a_part_of_the_prior_has_no_log_marginal():
    def positive(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.LogNormal(0.5 * x, 0.7).to_event(1))

    for method in ("auto", "importance", "quadrature", "annealed"):
        with pytest.raises(
            pv.InputError, match=r"LogNormal.* at site 'z' cannot draw all values of the model's Normal"
        ):
            pv.log_marginal(standard, positive, X, method)


class Own(nn.Linear):
    """A layer that may do anything."""


def test_only_dense_layers_are_trusted_with_an_axis_of_draws():
    dense = pv.GenerativeModel(pv.nn.MLP(2, 4), pv.GaussianLikelihood(4, 2), 2)
    assert takes_any_axes(dense)
    assert takes_any_axes(pv.AmortizedGuide(pv.nn.MLP(2, 4), pv.FullCovariancePosterior(4, 2)))
    for layer in (nn.BatchNorm1d(4), nn.GRU(4, 4), nn.Conv1d(1, 1, 1), Own(4, 4)):
        decoder = nn.Sequential(pv.nn.MLP(2, 4), layer)
        assert not takes_any_axes(pv.GenerativeModel(decoder, pv.GaussianLikelihood(4, 2), 2))
    assert not takes_any_axes(standard)


@pytest.mark.parametrize("num", [15, 16])
@pytest.mark.parametrize("module", [nn.BatchNorm1d(16), nn.GRU(16, 16)])
def test_an_axis_of_draws_does_not_meet_a_module_of_rows(num, module):
    """Sixteen data of sixteen features: BatchNorm1d takes the data for its channels, a GRU the draws for time."""
    linear = nn.Linear(2, 16)

    def features(z):
        found = module.eval()(linear(z))
        return found if isinstance(found, torch.Tensor) else found[0]

    def pair(decode):
        def model(x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
                pyro.sample("x", dist.Normal(decode(z), 3.0).to_event(1), obs=x)

        def guide(x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))

        return model, guide

    x = torch.randn(num, 16)
    for estimator in ESTIMATORS.values():
        with pytest.raises(pv.InputError, match=r"mistakes the axis of 5 draws for the data's .*on_rows") as caught:
            estimator(5, vectorize_particles=True).loss(*pair(features), x)
        assert "\n" not in str(caught.value)
    by_rows = pair(lambda z: pv.nn.on_rows(features, z))
    losses = [pv.MonteCarloELBO(400, vectorize_particles=how).loss(*by_rows, x) for how in (True, False)]
    assert losses[0] == pytest.approx(losses[1], abs=5 * 2 * math.sqrt(num / 400))


def test_half_precision_is_refused_and_data_in_it_are_taken():
    model = pv.GenerativeModel(pv.nn.MLP(2, 8), pv.GaussianLikelihood(8, 3), 2).bfloat16()
    guide = pv.AmortizedGuide(pv.nn.MLP(3, 8), pv.DiagonalPosterior(8, 2)).bfloat16()
    x = torch.randn(5, 3).bfloat16()
    for run in (
        lambda: pv.fit(model, guide, x, pv.AnalyticELBO(), epochs=1, progress=False),
        lambda: pv.elbo_terms(model, guide, x),
        lambda: pv.log_marginal(model, guide, x),
    ):
        with pytest.raises(pv.InputError, match=r"in torch.bfloat16, .*; use float32: model.float\(\) and guide.float"):
            run()
    kl = pv.elbo_terms(standard, half, X.bfloat16()).kl  # of functions, whose constants are in float32
    torch.testing.assert_close(kl, pv.elbo_terms(standard, half, X.bfloat16().float()).kl)


def test_data_that_are_no_dense_tensor_of_numbers_are_refused():
    for x, what in ((X.to_sparse(), "is sparse"), (X.to(torch.complex64), "is complex"), ((X, X), "not tuple")):
        with pytest.raises(pv.InputError, match=what):
            pv.elbo_terms(standard, half, x)
    with pytest.raises(pv.InputError, match="not dict"):
        pv.fit(standard, half, {"x": X}, pv.AnalyticELBO(), epochs=1, progress=False)


def test_latents_that_the_model_enumerates_are_summed_out_by_pyro_s_estimator_alone():
    """A mixture of N(0, 2) and N(1, 2) whose component the guide does not draw; at q of half and z | k known."""
    x = X[:, 0]

    def model(x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})
            pyro.sample("x", dist.Normal(k, 1.0), obs=x)
            pyro.sample("z", dist.Normal(pyro.param("loc_enumerated", torch.tensor(0.0)), 1.0))

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))

    log_p = [dist.Normal(k, 1.0).log_prob(x.double()) + math.log(p) for k, p in ((0.0, 0.7), (1.0, 0.3))]
    right = torch.logaddexp(*log_p).mean().item()
    elbo = pyro.infer.TraceEnum_ELBO(max_plate_nesting=1)
    history = pv.fit(model, guide, x, elbo, epochs=1, learning_rate=1e-9, progress=False)
    assert -history.batch_loss[0] == pytest.approx(right, abs=1e-5)
    with pytest.raises(pv.InputError, match="latent site 'k' of the model, a discrete Bernoulli, is missing"):
        pv.fit(model, guide, x, pv.MonteCarloELBO(), epochs=1, progress=False)


def test_a_messenger_s_guide_has_no_density_at_given_values():
    def model(x):
        with pyro.plate("data", 2):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[:, 0])

    guide = pyro.infer.autoguide.AutoNormalMessenger(model)
    guide(X)
    for method in ("quadrature", "annealed"):
        with pytest.raises(pv.InputError, match=r"a messenger around the model .*; use method='importance'"):
            pv.log_marginal(model, guide, X, method)


def test_a_laplace_approximation_is_a_point_until_it_is_made():
    guide, alone = (
        AutoLaplaceApproximation(standard),
        "use a guide with a distribution for each datum, such as AutoNormal",
    )
    with pytest.warns(InputWarning, match=r"is a point .* until its laplace_approximation\(x\) is called: training"):
        pv.fit(standard, guide, X, pv.MonteCarloELBO(), epochs=300, learning_rate=0.05, progress=False)
    assert torch.allclose(guide.loc.view_as(X), X / 2, atol=0.02)  # the posterior's mode
    for refused in (
        lambda: pv.log_marginal(standard, guide, X),
        lambda: pv.inference_gaps(standard, guide, X),
        lambda: pv.elbo_terms(standard, guide, X),
        lambda: pv.ImportanceWeightedELBO(num_particles=3).loss(standard, guide, X),
    ):
        with pytest.raises(pv.InputError, match=rf"guide is a point .* until its laplace_approx.*{alone}"):
            refused()
    with pytest.raises(pv.InputError, match=f"draws the latents of all data at once.*{alone}"):
        pv.log_marginal(standard, AutoMultivariateNormal(standard), X)
