"""A plain PyTorch VAE, no Pyro program, whose log p(x) is known."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal, Normal

import pyrovae as pv
from pyrovae.evaluation import Callables


class PlainVAE(nn.Module):
    """A linear decoder and a diagonal q, as people write them."""

    def __init__(self):
        super().__init__()
        self.decoder = nn.Linear(2, 4)
        self.loc, self.log_scale = nn.Linear(4, 2), nn.Linear(4, 2)

    def q(self, x):
        return Normal(self.loc(x), self.log_scale(x).exp())

    def log_joint(self, x, z):
        return Normal(0.0, 1.0).log_prob(z).sum(-1) + Normal(self.decoder(z), 0.7).log_prob(x).sum(-1)


@pytest.fixture
def vae():
    vae = PlainVAE()
    with torch.no_grad():
        gain = vae.decoder.weight.T @ torch.linalg.inv(vae.decoder.weight @ vae.decoder.weight.T + 0.49 * torch.eye(4))
        vae.loc.weight.copy_(gain)
        vae.loc.bias.copy_(-gain @ vae.decoder.bias)
        vae.log_scale.weight.zero_()
        vae.log_scale.bias.fill_(-0.3)
    return vae


@pytest.fixture
def callables(vae):
    return Callables(vae.log_joint, lambda x: vae.q(x).rsample(), lambda x, z: vae.q(x).log_prob(z).sum(-1))


def truth_of(vae, x):
    weight = vae.decoder.weight
    return MultivariateNormal(vae.decoder.bias, weight @ weight.T + 0.49 * torch.eye(4)).log_prob(x).double().detach()


@pytest.mark.parametrize(("method", "options"), [("importance", {"num_samples": 4000}), ("quadrature", {})])
def test_log_p_of_a_plain_vae(vae, callables, method, options):
    x = torch.randn(6, 4)
    found = pv.log_marginal(*callables, x, method, **options)
    assert abs(found.mean - truth_of(vae, x).mean().item()) < 0.01


def test_its_elbo_and_annealing_and_gaps(vae, callables):
    x = torch.randn(3, 4)
    q = vae.q(x)
    posterior = torch.linalg.inv(torch.eye(2) + vae.decoder.weight.T @ vae.decoder.weight / 0.49)
    mean = (x - vae.decoder.bias) @ vae.decoder.weight @ posterior / 0.49
    gap = torch.distributions.kl_divergence(
        MultivariateNormal(q.loc, q.scale.square().diag_embed()), MultivariateNormal(mean, posterior)
    )
    right = truth_of(vae, x) - gap.double().detach()
    for found in (
        pv.elbo_estimate(*callables, x, num_samples=2000),
        pv.elbo_terms(*callables, x, num_samples=500).estimate,
    ):
        assert ((found.per_datum - right).abs() < 5 * found.stderr_per_datum + 1e-4).all()
    annealed = pv.log_marginal(*callables, x, "annealed", num_temperatures=30)
    assert (annealed.per_datum - truth_of(vae, x)).abs().max() < 0.2


def test_collapse_of_a_plain_vae(callables):
    report = pv.collapse_report(*callables, torch.randn(60, 4))
    assert len(report.signal) == 2
    assert report.kl.mean == pytest.approx(report.mutual_information.mean + report.aggregate_kl.mean)
    with pytest.raises(TypeError, match=r"for other VAEs give \*Callables"):
        pv.collapse_report(lambda x: None, lambda x: None, torch.randn(3, 4))


def test_a_function_of_the_wrong_shape_is_named():
    pair = Callables(lambda x, z: z, lambda x: x, lambda x, z: z.sum(-1))
    with pytest.raises(pv.InputError, match=r"log_joint must return shape \(num,\) with num = 3, not \(3, 4\)"):
        pv.log_marginal(*pair, torch.zeros(3, 4), num_samples=5)


@pytest.mark.parametrize("missing", [False, True])
def test_a_pair_by_hand_is_described_once_for_each_shape_of_data(missing):
    """A step on a copy of the data asks anew neither what the pair is nor whether draws can be rows."""
    calls = 0

    def model(x):
        nonlocal calls
        calls += 1
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).mask(~x.isnan()).to_event(1), obs=x.nan_to_num())

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.5 * x.nan_to_num(), 0.7).to_event(1))

    model.missing = missing
    x, z = torch.tensor([[0.3, 0.1], [1.2, torch.nan if missing else 0.5]]), torch.zeros(2, 2)
    log_joint = Callables.of_pair(model, guide).model.log_joint
    normal = Normal(torch.zeros(2), 1.0, validate_args=False)
    right = (normal.log_prob(z) + normal.log_prob(x).nan_to_num()).sum(-1)
    log_joint(x, z), log_joint(x.repeat(3, 1), z.repeat(3, 1))
    calls = 0
    for _ in range(5):
        torch.testing.assert_close(log_joint(x.clone(), z), right)
        torch.testing.assert_close(log_joint(x.repeat(3, 1), z.repeat(3, 1)), right.repeat(3))
    assert calls == 10
    torch.testing.assert_close(log_joint(x.flip(0), z), right.flip(0))
