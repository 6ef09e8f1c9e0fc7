"""Training with networks in bfloat16: their products alone, close to full precision, stored, and refused elsewhere."""

import dataclasses

import pytest
import torch
from torch import nn

import pyrovae as pv
from pyrovae.training import Checkpoints, Trainer, TrainingSettings, describe_settings
from pyrovae.training.engines._precision import networks_in_bfloat16
from tests.training import runs


def pair32():
    return tuple(part.float() for part in runs.make_pair())


def data(num):
    return runs.data(num).float()


HOW = {"epochs": 5, "batch_size": 32, "learning_rate": 3e-3, "engine": "eager", "progress": False}


def test_the_loss_is_close_to_that_of_full_precision_and_not_the_same():
    full, mixed = (pv.fit(*pair32(), data(200), pv.AnalyticELBO(), precision=p, **HOW) for p in ("full", "bf16"))
    assert full.batch_loss != mixed.batch_loss
    assert torch.allclose(torch.tensor(full.batch_loss), torch.tensor(mixed.batch_loss), atol=0.05)
    assert mixed.epochs[-1].loss < mixed.epochs[0].loss


def test_networks_are_in_bfloat16_and_densities_in_float32():
    """A decoder's product is rounded to 8 bits; the features, p(x|z), q(z|x) and their densities are float32."""
    model, guide = pair32()
    seen = {}

    def see(name):
        return lambda module, inputs, output: seen.update({name: (inputs[0].dtype, getattr(output, "dtype", output))})

    for name, network in (("decoder", model.decoder), ("encoder", guide.encoder)):
        next(m for m in network.modules() if isinstance(m, nn.Linear)).register_forward_hook(see(f"product of {name}"))
    model.likelihood.register_forward_hook(see("likelihood"))
    guide.posterior_head.register_forward_hook(see("posterior"))
    with networks_in_bfloat16((model, guide)):
        loss = pv.AnalyticELBO().differentiable_loss(model, guide, x := data(20))
        loss.backward()
    assert [seen[f"product of {name}"][1] for name in ("decoder", "encoder")] == [torch.bfloat16] * 2
    for name in ("likelihood", "posterior"):
        features, p = seen[name]
        assert features == torch.float32
        assert p.mean.dtype == torch.float32
    assert seen["likelihood"][1].log_prob(x).dtype == loss.dtype == torch.float32
    assert all(p.grad.dtype == torch.float32 for p in model.parameters())
    assert "forward" not in vars(model.decoder)
    assert torch.equal(model.decoder(torch.ones(1, model.latent_dim)), model.decoder(torch.ones(1, model.latent_dim)))


def test_the_affine_map_of_a_linear_start_keeps_its_digits():
    encoder = pv.nn.Skip(pv.nn.MLP(5, 8), 2)
    model = pv.GenerativeModel(pv.nn.Skip(pv.nn.MLP(2, 8), 2), pv.GaussianLikelihood(10, 5), 2)
    guide = pv.AmortizedGuide(pv.nn.ImputeMissing(encoder), pv.DiagonalPosterior(10, 2))
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    whole = guide.encoder(x)
    with networks_in_bfloat16((model, guide)):
        mixed = guide.encoder(x)
    assert torch.equal(whole[:, :2], mixed[:, :2])
    assert 0 < (whole - mixed)[:, 2:].abs().max() < 0.05


def test_a_run_resumes_in_its_precision_alone(tmp_path):
    settings = TrainingSettings(epochs=3, precision="bf16")
    assert describe_settings(settings)["precision"] == "bf16"

    def trainer(settings, folder):
        return Trainer([pair32()], data(64), pv.AnalyticELBO(), settings, progress=False, checkpoints=folder)

    with Checkpoints(tmp_path / "a") as folder:
        trainer(settings, folder).run(max_steps=3)
    with Checkpoints(tmp_path / "a") as folder:
        again = trainer(settings, folder)
        again.run()
    whole = Trainer([pair32()], data(64), pv.AnalyticELBO(), settings, progress=False)
    whole.run()
    assert again.histories[0].batch_loss == whole.histories[0].batch_loss
    with Checkpoints(tmp_path / "a") as folder, pytest.raises(pv.InputError, match="precision"):
        trainer(dataclasses.replace(settings, precision="full"), folder)


def test_a_state_of_an_earlier_version_was_in_full_precision():
    trainer = Trainer([pair32()], data(64), pv.AnalyticELBO(), TrainingSettings(epochs=1), progress=False)
    state = trainer.state_dict()
    state["of"] = {name: value for name, value in state["of"].items() if name != "precision"}
    trainer.load_state_dict(state)
    mixed = TrainingSettings(epochs=1, precision="bf16", engine="eager")
    other = Trainer([pair32()], data(64), pv.AnalyticELBO(), mixed, progress=False)
    with pytest.raises(pv.InputError, match="precision full, not bf16"):
        other.load_state_dict(state)


@pytest.mark.parametrize(
    ("pair", "options", "said"),
    [
        (pair32, {"precision": "half"}, "unknown precision 'half'"),
        (pair32, {"engine": "graph"}, "needs engine='eager'"),
        (pair32, {"engine": "compiled"}, "needs engine='eager'"),
        (lambda: tuple(part.double() for part in pair32()), {}, "for parameters in float32, not torch.float64"),
        (lambda: tuple((lambda x, part=part: part(x)) for part in pair32()), {}, "needs a GenerativeModel"),
    ],
)
def test_what_bfloat16_cannot_do_is_refused(pair, options, said):
    how = HOW | {"precision": "bf16"} | options
    with pytest.raises(pv.InputError, match=said):
        pv.fit(*pair(), data(64), pv.AnalyticELBO(), **how)


def test_auto_runs_eagerly_and_says_why(capsys, monkeypatch):
    how = HOW | {"precision": "bf16", "engine": "auto", "progress": True, "epochs": 1}
    assert pv.fit(*pair32(), data(64), pv.AnalyticELBO(), **how).engine == "eager"
    assert "precision='bf16' runs on it alone" in capsys.readouterr().err
