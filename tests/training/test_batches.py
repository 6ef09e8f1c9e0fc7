"""Data made afresh for each epoch: what is drawn, when, and that engines, replicas and restarts agree on it."""

import numpy as np
import pytest
import torch

import pyrovae as pv
from pyrovae.training import Trainer, TrainingSettings
from pyrovae.training._batches import Batches, Order
from tests import pairs
from tests.pairs import as_graph


def make_pair():
    return pairs.make_pair(likelihood=pv.BernoulliLikelihood, seed=1)


def grey(num=96):
    return torch.rand(num, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


SETTINGS = {"epochs": 5, "learning_rate": 3e-3, "progress": False, "transform": pv.datasets.binarize}


def test_an_order_is_the_batches_of_its_indices():
    index = torch.randperm(22).view(2, 11)
    order, batches = Order(index, 4), index.split(4, dim=1)
    assert len(order) == 3
    assert all(torch.equal(a, b) for a, b in zip(order, batches, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(order[1:], batches[1:], strict=True))
    assert torch.equal(order[-1], batches[-1])
    assert torch.equal(order[:2].stacked(), torch.stack(batches[:2]))
    assert torch.equal(order[2:].stacked(), torch.stack(batches[2:]))
    assert not order[3:]
    with pytest.raises(IndexError):
        order[3]


def test_each_epoch_is_drawn_anew_and_its_draws_are_of_the_seed():
    x = grey(2000)
    seen = []
    batches = Batches(x, 500, [3, 4], pv.datasets.binarize)
    for _ in range(3):
        drawn, index = batches.epoch()
        again, index_again = batches.epoch()
        assert torch.equal(drawn, again)
        assert all(torch.equal(a, b) for a, b in zip(index, index_again, strict=True))
        assert [tuple(i.shape) for i in index] == [(2, 500)] * 4
        for r, rows in enumerate(torch.cat(list(index), 1)):
            assert sorted((rows - 2000 * r).tolist()) == list(range(2000))
        seen += [drawn[:2000], drawn[2000:]]
        batches.end_epoch()
    for i, first in enumerate(seen):
        # 5 standard errors, the seed fixed
        assert abs((first - x).sum() / (x * (1 - x)).sum().sqrt()) <= 5
        assert not any(torch.equal(first, second) for second in seen[:i])
    alone = Batches(x, 500, [4], pv.datasets.binarize)
    drawn, index = alone.epoch()
    assert torch.equal(drawn, seen[1])
    plain, order = Batches(x, 500, [4]).epoch()
    assert plain is x
    assert all(torch.equal(a, b) for a, b in zip(index, order, strict=True))  # the order is what it is without


def test_training_sees_binary_data_of_the_greys_means():
    seen = []

    class Watched(pv.MonteCarloELBO):
        def differentiable_loss(self, model, guide, x):
            seen.append(x.clone())
            return super().differentiable_loss(model, guide, x)

    pv.fit(*make_pair(), grey(), Watched(), engine="eager", **SETTINGS)
    steps = torch.stack([x for x in seen if len(x) == 32][-10:])
    assert set(steps.unique().tolist()) == {0.0, 1.0}


def test_engines_agree():
    x, elbo = grey(), pv.AnalyticELBO()
    eager = pv.fit(*make_pair(), x, elbo, engine="eager", **SETTINGS)
    torch.manual_seed(5)  # the caller's random state plays no part
    settings = TrainingSettings(epochs=5, learning_rate=3e-3, transform=pv.datasets.binarize)
    losses = as_graph(*make_pair(), x, elbo, settings)
    np.testing.assert_allclose(losses, eager.batch_loss, atol=1e-10, rtol=0)
    static = pv.fit(
        *make_pair(), pv.datasets.binarize(x, torch.Generator()), elbo, engine="eager", **SETTINGS | {"transform": None}
    )
    assert not np.allclose(static.batch_loss, eager.batch_loss, atol=1e-3)


def test_replicas_are_single_runs():
    together = pv.fit(*make_pair(), grey(), pv.AnalyticELBO(), num_replicas=3, seed=2, engine="graph", **SETTINGS)
    assert together[0].history.engine == "graph"
    for replica in together:
        alone = pv.fit(
            *make_pair(), grey(), pv.AnalyticELBO(), engine="eager", num_replicas=1, seed=replica.seed, **SETTINGS
        )
        np.testing.assert_allclose(replica.history.batch_loss, alone[0].history.batch_loss, atol=1e-10, rtol=0)


def test_a_run_restored_in_the_middle_of_an_epoch():
    def trainer(x=grey(), transform=pv.datasets.binarize):  # noqa: B008
        settings = TrainingSettings(epochs=4, engine="eager", transform=transform)
        return Trainer([make_pair()], x, pv.AnalyticELBO(), settings, progress=False)

    whole, part, rest = trainer(), trainer(), trainer()
    whole.run()
    part.run(max_steps=4)  # 3 to an epoch
    rest.load_state_dict(part.state_dict())
    rest.run()
    assert rest.histories[0].batch_loss == whole.histories[0].batch_loss
    with pytest.raises(ValueError, match=r"this state is of a run with transform pyrovae\.binarize, not None"):
        trainer(grey().round(), None).load_state_dict(part.state_dict())


def test_transforms_that_cannot_be():
    for transform, message in (
        (lambda x, generator: x[:3], r"torch.float64 of shape \(96, 3\), not torch.float64 of shape \(3, 3\)"),
        (lambda x, generator: x.float(), "not torch.float32 of shape"),
        (lambda x, generator: None, "not NoneType"),
    ):
        with pytest.raises(ValueError, match="transform must keep the dtype and shape of its data, .*" + message):
            pv.fit(*make_pair(), grey(), pv.AnalyticELBO(), epochs=1, progress=False, transform=transform)
    with pytest.raises(ValueError, match="must be 0 or 1"):
        pv.fit(*make_pair(), grey(), pv.AnalyticELBO(), epochs=1, progress=False, transform=lambda x, generator: x)
