"""What is saved loads again, and nothing else does."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import pyrovae as pv
from pyrovae.io import MissingChecksumWarning, load_preprocessing
from pyrovae.nn import ConfigurableModule
from pyrovae.posteriors import POSTERIORS
from tests.pairs import make_pair


@pytest.mark.parametrize("family", POSTERIORS.values(), ids=POSTERIORS)
@pytest.mark.parametrize(
    ("likelihood", "settings"),
    [(pv.GaussianLikelihood, {}), (pv.GaussianLikelihood, {"scale": 0.3}), (pv.BernoulliLikelihood, {})],
)
def test_round_trip(tmp_path, family, likelihood, settings):
    model, guide = make_pair(family, likelihood=likelihood, dtype=torch.float32, **settings)
    pv.save(tmp_path / "vae.safetensors", model, guide)
    other_model, other_guide = pv.load(tmp_path / "vae.safetensors")
    x, z = torch.rand(5, 3).round(), torch.randn(5, 2)
    assert torch.equal(model.conditional(z).log_prob(x), other_model.conditional(z).log_prob(x))
    assert torch.equal(guide.posterior(x).log_prob(z), other_guide.posterior(x).log_prob(z))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["vae.json", "vae.safetensors"]


def test_float64_stays_float64(tmp_path):
    model, guide = make_pair()
    pv.save(tmp_path / "vae.safetensors", model, guide)
    for ours, loaded in zip((model, guide), pv.load(tmp_path / "vae.safetensors"), strict=True):
        for a, b in zip(ours.parameters(), loaded.parameters(), strict=True):
            assert b.dtype == torch.float64
            assert torch.equal(a, b)


class _Encoder(ConfigurableModule):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.layer = nn.Linear(3, width)

    def forward(self, x):
        return self.layer(x).tanh()


def test_modules_of_ones_own(tmp_path):
    model, _ = make_pair(dtype=torch.float32)
    guide = pv.AmortizedGuide(_Encoder(8), pv.DiagonalPosterior(8, 2))
    pv.save(tmp_path / "vae.safetensors", model, guide)
    with pytest.raises(ValueError, match=r"holds a _Encoder, which is not of the library; pass classes=\[_Encoder\]"):
        pv.load(tmp_path / "vae.safetensors")
    loaded = pv.load(tmp_path / "vae.safetensors", classes=[_Encoder])[1]
    x = torch.randn(2, 3)
    assert torch.equal(loaded.posterior(x).mean, guide.posterior(x).mean)
    with pytest.raises(TypeError, match=r"cannot save guide.encoder, a Linear"):
        pv.save(
            tmp_path / "other.safetensors",
            model,
            pv.AmortizedGuide(nn.Linear(3, 8), pv.DiagonalPosterior(8, 2)),
        )
    assert not (tmp_path / "other.safetensors").exists()


def test_what_earlier_versions_saved_loads():
    """Format 1, as version 0.1 wrote it, gives the densities that were written down beside it then."""
    folder = Path(__file__).parent / "fixtures"
    values = json.loads((folder / "format-1-values.json").read_text())
    values = {name: torch.tensor(value) for name, value in values.items()}
    path = folder / "format-1.safetensors"
    with pytest.warns(MissingChecksumWarning, match=r"without a checksum, .*; save it again with pyrovae\.save"):
        model, guide = pv.load(path)
    y = load_preprocessing(path).transform(values["x"])
    torch.testing.assert_close(y, values["y"])
    jacobian = load_preprocessing(path).log_abs_det_jacobian(values["x"])
    torch.testing.assert_close(jacobian.float(), values["log_jacobian"])
    torch.testing.assert_close(model.conditional(values["z"]).log_prob(y), values["log p(y|z)"])
    torch.testing.assert_close(guide.posterior(y).log_prob(values["z"]), values["log q(z|y)"])


def damage(folder, how):
    weights, description = folder / "vae.safetensors", folder / "vae.json"
    if how == "truncated":
        weights.write_bytes(weights.read_bytes()[:-40])
    elif how == "no safetensors":
        weights.write_bytes(b"\x80\x04cos\nsystem\n")  # the beginning of a pickle
    elif how == "future":
        description.write_text(json.dumps(json.loads(description.read_text()) | {"format": 99}))
    elif how == "no JSON":
        description.write_text("{")
    elif how == "other sizes":
        content = json.loads(description.read_text())
        content["model"]["arguments"]["latent_dim"] = 3
        content["guide"]["arguments"]["posterior"]["arguments"]["latent_dim"] = 3
        description.write_text(json.dumps(content))


@pytest.mark.parametrize("how", ["truncated", "no safetensors", "future", "no JSON", "other sizes"])
def test_damaged_files_are_refused(tmp_path, how):
    pv.save(tmp_path / "vae.safetensors", *make_pair())
    damage(tmp_path, how)
    with pytest.raises(ValueError, match=r"cannot load .*vae\.safetensors: "):
        pv.load(tmp_path / "vae.safetensors")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": None}, "describes no model and guide"),
        ({"guide": {"class": "MLP"}}, "a module needs a class and its arguments, and has only class"),
        ({"model": {"class": "MLP", "arguments": {"*": 3}}}, "positional arguments of MLP must be a list, not 3"),
        ({"model": {"class": "MLP", "arguments": {"*": [2, 2]}}}, "describes no model and guide"),
        ({"model": {"class": "os.system", "arguments": {}}}, "os.system, which is not of the library"),
        ({"preprocessing": {"class": "MLP", "arguments": {"*": [2, 2]}}}, "its preprocessing is a MLP"),
        ({"preprocessing": 3}, "its preprocessing is a int"),
    ],
)
def test_descriptions_of_something_else_are_refused(tmp_path, changes, message):
    path = tmp_path / "vae.safetensors"
    pv.save(path, *make_pair())
    path.with_suffix(".json").write_text(json.dumps(json.loads(path.with_suffix(".json").read_text()) | changes))
    with pytest.raises(pv.InputError, match=message):
        load_preprocessing(path) if "preprocessing" in changes else pv.load(path)
    path.with_suffix(".json").write_text("[" * 100_000)
    for read in (pv.load, load_preprocessing):
        with pytest.raises(pv.InputError, match="cannot load"):
            read(path)


def test_swapped_programs_and_missing_folders(tmp_path):
    model, guide = make_pair()
    with pytest.raises(TypeError, match="the model must be of class GenerativeModel, not AmortizedGuide"):
        pv.save(tmp_path / "vae.safetensors", guide, model)
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        pv.save(tmp_path / "nowhere" / "vae.safetensors", model, guide)


def test_missing_and_misnamed_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        pv.load(tmp_path / "vae.safetensors")
    with pytest.raises(ValueError, match=r"must end in \.safetensors"):
        pv.save(tmp_path / "vae.pt", *make_pair())
