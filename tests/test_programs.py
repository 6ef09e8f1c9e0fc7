"""Sites and checks of programs: what the library reads from a pair's traces, and what it refuses."""

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from torch import nn

import pyrovae as pv
from pyrovae import programs
from tests.pairs import make_pair


def model(x):
    with pyro.plate("data", len(x), subsample_size=2) as rows:
        a = pyro.sample("a", dist.Normal(torch.zeros(2), 1.0))
        b = pyro.deterministic("b", 2 * a)
        pyro.sample("x", dist.Normal(b, 1.0), obs=x[rows])


def guide(x):
    with pyro.plate("data", len(x), subsample_size=2):
        pyro.sample("a", dist.Normal(torch.ones(2), 1.0))


def test_sites_of_a_pair():
    pair = programs.trace_pair(model, guide, torch.zeros(4))
    model_trace, guide_trace = pair
    assert list(programs.latent_sites(guide_trace)) == ["a"]
    assert [(site.name, str(site.role)) for site in pair.sites] == [("a", "latent"), ("x", "observed")]
    assert model_trace.nodes["a"]["value"] is guide_trace.nodes["a"]["value"]
    assert list(model_trace.nodes) == ["_INPUT", "a", "x", "_RETURN"]


def test_a_site_that_chooses_a_subsample_is_not_latent():
    trace = pyro.poutine.trace(guide).get_trace(torch.zeros(4))
    assert "data" in trace.nodes
    assert list(programs.latent_sites(trace)) == ["a"]


@pytest.mark.parametrize(
    ("distribution", "name"),
    [
        (dist.Normal(0.0, 1.0), "Normal"),
        (dist.Normal(torch.zeros(3), 1.0).to_event(1), "Normal"),
        (dist.MaskedDistribution(dist.Normal(0.0, 1.0), torch.tensor(True)), "MaskedDistribution(Normal)"),
    ],
)
def test_distributions_have_short_names(distribution, name):
    assert programs.describe(distribution) == name


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        (None, None, True),
        (1.0, 1.0, True),
        (1.0, 2.0, False),
        (None, True, False),
        (torch.ones(2), torch.ones(2), True),
        (torch.ones(2), torch.zeros(2), False),
        (torch.tensor(1.0), 1.0, False),
    ],
)
def test_scales_are_compared(left, right, same):
    with pyro.validation_enabled(True):
        assert programs.same_scale(left, right) is same


def test_a_latent_on_one_side_alone_is_named():
    def more(x):
        model(x)
        pyro.sample("k", dist.Normal(0.0, 1.0))

    with pytest.raises(pv.InputError, match="latent site 'k' of the model is missing in the guide"):
        programs.trace_pair(more, guide, torch.zeros(4), check=True)


def test_data_become_a_tensor_of_the_parameters_dtype():
    pair = make_pair()
    x = programs.as_data("data", torch.ones(4, 3).numpy(), *pair, None)
    assert (x.dtype, x.shape) == (torch.float64, (4, 3))
    for data, message in (
        (torch.zeros(0, 3), r"^data is empty: its shape is \(0, 3\), expected \(num, …\) with num ≥ 1$"),
        (torch.zeros(2, 3, dtype=torch.complex64), "^data is complex; give real numbers in a dense tensor$"),
        (torch.full((2, 3), torch.inf), "^data holds 6 NaN or infinite values, the first at row 0, column 0 "),
    ):
        with pytest.raises(pv.InputError, match=message):
            programs.as_data("data", data, *pair, None)


def test_undisturbed_puts_everything_back():
    pair, x = make_pair(), torch.randn(4, 3, dtype=torch.float64)
    state = torch.get_rng_state()
    with programs.undisturbed(x, *pair):
        assert not any(program.training for program in pair)
        pair[0](x), pair[1](x)
        torch.randn(3)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(program.training for program in pair)
    assert not list(pyro.get_param_store())


def test_parameters_of_modules_and_functions_are_found_once():
    pair, x = make_pair(), torch.randn(4, 3, dtype=torch.float64)

    def with_more(x):
        pyro.param("more", torch.zeros(2))
        return pair[1](x)

    own = [*pair[0].parameters(), *pair[1].parameters()]
    with programs.unregistered():
        with poutine.trace(param_only=True) as announced:
            pair[0](x)
        found = programs.trainable_parameters(*pair, announced.trace)
    assert {id(p) for p in found} == {id(p) for p in own}
    assert len(found) == len(own)
    with programs.own_parameter_store():
        with poutine.trace(param_only=True) as announced:
            pair[0](x)
            with_more(x)
        found = programs.trainable_parameters(pair[0], with_more, announced.trace)
    assert len(found) == len(own) + 1
    assert list(pyro.get_param_store()) == ["more"]
    frozen = nn.Linear(2, 2).requires_grad_(False)
    with pytest.raises(pv.InputError, match=r"^neither the model nor the guide has parameters to train$"):
        programs.trainable_parameters(frozen, frozen, poutine.Trace())
