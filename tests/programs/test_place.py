"""What belongs to the places of a batch: trained in the data's order, or refused."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal
from torch import nn

import pyrovae as pv
from pyrovae.training import Trainer, TrainingSettings

X = torch.randn(8, 1, generator=torch.Generator().manual_seed(0))


def model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)


def guide(x):
    slope = pyro.param("slope", torch.tensor(0.4))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(slope * x, 0.7).to_event(1))


def row_by_row(x):
    """One mean for each datum of a batch."""
    loc = pyro.param("loc", lambda: torch.zeros(len(x), 1))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(loc, 0.5**0.5).to_event(1))


def by_index(x):
    loc = pyro.param("loc", lambda: torch.zeros(len(X), 1))
    with pyro.plate("data", len(x)) as i:
        pyro.sample("z", dist.Normal(loc[i], 0.5**0.5).to_event(1))


class Rows(nn.Module):
    def __init__(self):
        super().__init__()
        self.means = nn.Embedding(len(X), 1)

    def forward(self, x):
        with pyro.plate("data", len(x)) as i:
            pyro.sample("z", dist.Normal(self.means(i), 0.5**0.5).to_event(1))


def with_offsets(x):
    offset = pyro.param("offset", lambda: torch.zeros(len(X), 1))
    with pyro.plate("data", len(x)) as i:
        z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z + offset[i], 1.0).to_event(1), obs=x)


def with_table(x):
    with pyro.plate("data", len(x)) as i:
        z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z + torch.arange(8.0)[i].unsqueeze(-1), 1.0).to_event(1), obs=x)


def train(model, guide, **keywords):
    keywords = {"epochs": 600, "batch_size": 8, "learning_rate": 2e-2, "progress": False} | keywords
    return pv.fit(model, guide, X, pv.AnalyticELBO(num_particles=4), **keywords)


@pytest.mark.parametrize(
    ("pair", "what"),
    [
        ((model, row_by_row), r"parameter 'loc' of shape \(4, 1\)"),
        ((model, by_index), r"parameter 'loc' of shape \(8, 1\)"),
        ((model, Rows()), r"parameter 'means.weight' of shape \(8, 1\)"),
        ((with_offsets, guide), r"parameter 'offset' of shape \(8, 1\)"),
        ((with_table, guide), "what the programs compute of a datum"),
    ],
)
def test_batches_in_another_order_are_refused(pair, what):
    before = set(pyro.get_param_store().keys())
    with pytest.raises(pv.InputError, match=rf"^{what} belongs to its place in a batch, .* train with batch_size=8, "):
        train(*pair, batch_size=4, epochs=1)
    assert set(pyro.get_param_store().keys()) == before  # or the same call with batch_size=8 would meet (4, 1)
    with pytest.raises(pv.InputError, match=rf"^{what.replace('4', '8')} .* validation data have none of their own"):
        train(*pair, validation=X, epochs=1)


@pytest.mark.parametrize(
    "make",
    [lambda: row_by_row, lambda: by_index, Rows, lambda: AutoNormal(model), lambda: AutoMultivariateNormal(model)],
    ids=["parameter", "by index", "embedding", "AutoNormal", "AutoMultivariateNormal"],
)
def test_all_data_at_once_keep_their_order(make):
    """The posterior means are x/2, as in the closed form."""
    guide = make()
    train(model, guide)
    if hasattr(guide, "median"):
        found = guide.median(X)["z"]
    else:
        found = guide.means.weight if isinstance(guide, nn.Module) else pyro.param("loc")
    torch.testing.assert_close(found.detach().reshape(8, 1), 0.5 * X, rtol=0, atol=0.2)


def test_what_follows_the_data_or_the_batch_is_shuffled():
    """An embedding by a column of x, dropout, and a statistic of the batch: none belongs to a place."""
    table, layer = nn.Embedding(8, 1), nn.Linear(1, 1)

    def by_label(x):
        pyro.module("table", table)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(table(x[:, 0].long()), 0.7).to_event(1))

    def by_batch(x):
        pyro.module("layer", layer)
        with pyro.plate("data", len(x)):
            h = nn.functional.dropout(layer(x - x.mean(0)), 0.5)
            pyro.sample("z", dist.Normal(h, 0.7).to_event(1))

    labels = torch.arange(8.0).unsqueeze(-1)
    for guide in (by_label, by_batch):
        settings = TrainingSettings(epochs=1, batch_size=4)
        trainer = Trainer([(model, guide)], labels, pv.MonteCarloELBO(), settings, progress=False)
        assert not trainer.batches.in_order
        trainer.run()
