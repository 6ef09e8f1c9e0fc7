"""What is saved loads again, and nothing else does."""

import json
import resource
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

import pyrovae as pv
from pyrovae.files import checksum
from pyrovae.io import MissingChecksumWarning, load_preprocessing
from pyrovae.likelihoods import LIKELIHOODS
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


def test_an_argument_that_a_module_does_not_keep_is_named():
    class Forgets(pv.DiagonalPosterior):
        def __init__(self, in_features: int, latent_dim: int, channels: int = 1) -> None:
            super().__init__(in_features, latent_dim)

    model, _ = make_pair(dtype=torch.float32)
    guide = pv.AmortizedGuide(_Encoder(8), Forgets(8, 2))
    with pytest.raises(
        pv.InputError, match=r"^Forgets does not keep its argument 'channels'.*add self.channels = channels"
    ):
        pv.fit(model, guide, torch.rand(8, 3).round(), pv.MonteCarloELBO(), epochs=1, progress=False)


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


FORMAT_1 = Path(__file__).parent / "fixtures" / "format-1.json"


def rewrite(path, change):
    """Change the description beside a model, under a checksum that is right."""
    beside = path.with_suffix(".json")
    description = json.loads(beside.read_text())
    del description["sha256"]
    change(description)
    description["sha256"] = checksum(description, path.read_bytes())
    beside.write_text(json.dumps(description))


def refusal(read, path):
    """What is said of a file that cannot be read; None of one that can."""
    try:
        read(path)
    except pv.InputError as error:
        return str(error)


@pytest.mark.parametrize("file", ["vae.json", "vae.safetensors"])
def test_a_flipped_bit_of_any_byte_is_refused_or_changes_nothing(tmp_path, file):
    torch.manual_seed(0)
    path = tmp_path / "vae.safetensors"
    model = pv.GenerativeModel(pv.nn.MLP(1, 1), pv.GaussianLikelihood(1, 1), 1)
    guide = pv.AmortizedGuide(pv.nn.MLP(1, 1), pv.IsotropicPosterior(1, 1))
    pv.save(path, model, guide, preprocessing=pv.datasets.Standardize().fit(torch.randn(9, 1)))
    damaged = tmp_path / file
    sound, content, refused = damaged.read_bytes(), json.loads(path.with_suffix(".json").read_text()), 0
    for place in range(len(sound)):
        flipped = bytearray(sound)
        flipped[place] ^= 1 << place % 8
        damaged.write_bytes(flipped)
        for read in (pv.load, load_preprocessing):
            said = refusal(read, path)
            if said is None:  # 1e-4 and 1E-4 are one number
                assert file == "vae.json"
                assert json.loads(damaged.read_bytes()) == content
            else:
                assert said.startswith("cannot load ")
                assert "\n" not in said
                refused += 1
    assert refused > 0.99 * 2 * len(sound)


WHERE = ["format", "preprocessing", "model.class", "guide.arguments", "model.arguments.prior"]


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("signed", [True, False])
def test_a_misspelt_key_is_refused(tmp_path, where, signed):
    """Also where there is no checksum, as in version 0.1: a misspelt preprocessing would be none."""
    path = tmp_path / "vae.safetensors"
    for suffix in (".json", ".safetensors"):
        shutil.copy(FORMAT_1.with_suffix(suffix), path.with_suffix(suffix))

    def misspell(description):
        *parents, key = where.split(".")
        for parent in parents:
            description = description[parent]
        description[f"{key[:-1]}X"] = description.pop(key)

    if signed:
        with pytest.warns(MissingChecksumWarning):
            pv.save(path, *pv.load(path), preprocessing=load_preprocessing(path))
        rewrite(path, misspell)
    else:
        description = json.loads(path.with_suffix(".json").read_text())
        misspell(description)
        path.with_suffix(".json").write_text(json.dumps(description))
    with pytest.raises(pv.InputError, match=r"^cannot load .*vae\.safetensors: "):
        pv.load(path)


def numbers(description, *place):
    """Where whole numbers stand in a description."""
    if isinstance(description, dict | list):
        for key, value in description.items() if isinstance(description, dict) else enumerate(description):
            yield from numbers(value, *place, key)
    elif type(description) is int:
        yield place


def pair_of(networks):
    """A pair of networks of all kinds."""
    decoder, encoder = {
        "skip": lambda: [pv.nn.Skip(pv.nn.MLP(*sizes), 2) for sizes in ((2, 8), (4, 8))],
        "impute": lambda: [pv.nn.MLP(2, 8), pv.nn.ImputeMissing(pv.nn.MLP(8, 8), [0.1] * 4, indicate=True)],
        "convolution": lambda: [pv.nn.ConvDecoder(2, 3, side=2), pv.nn.ConvEncoder(3, side=2)],
    }[networks]()
    width = getattr(encoder, "out_features", 8)
    model = pv.GenerativeModel(decoder, pv.GaussianLikelihood(decoder.out_features, 4), 2, missing=True)
    return model, pv.AmortizedGuide(encoder, pv.DiagonalPosterior(width, 2))


PAIRS = {
    **{f"{name} posterior": partial(make_pair, make, dtype=torch.float32) for name, make in POSTERIORS.items()},
    **{f"{name} likelihood": partial(make_pair, likelihood=make) for name, make in LIKELIHOODS.items()},
    **{name: partial(pair_of, name) for name in ("skip", "impute", "convolution")},
}


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("number", [10**6, 10**9, 2**62, 10**30])
def test_a_size_that_is_not_the_tensors_takes_no_memory(tmp_path, pair, number):
    path = tmp_path / "vae.safetensors"
    pv.save(path, *PAIRS[pair]())
    pv.load(path)
    sound = path.with_suffix(".json").read_bytes()
    description = json.loads(sound)
    places = [place for part in ("model", "guide") for place in numbers(description[part], part)]
    places = [place for place in places if place[-2:] != ("arguments", "side")]  # of an image, and of no tensor
    assert len(places) >= 9  # widths, latent dimensions and channels
    for place in places:
        path.with_suffix(".json").write_bytes(sound)

        def change(changed, place=place):
            for key in place[:-1]:
                changed = changed[key]
            changed[place[-1]] = number

        rewrite(path, change)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(pv.InputError, match=r"^cannot load .*vae\.safetensors: ") as caught:
            pv.load(path)
        assert "\n" not in str(caught.value)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**16  # KiB


def test_many_layers_take_no_memory(tmp_path):
    """None of them is larger than what the file holds; together they would be 400 GB."""
    path = tmp_path / "vae.safetensors"
    model = pv.GenerativeModel(pv.nn.MLP(2, 1000), pv.GaussianLikelihood(1000, 1000), 2)
    pv.save(path, model, pv.AmortizedGuide(pv.nn.MLP(1000, 4), pv.DiagonalPosterior(4, 2)))
    rewrite(path, lambda d: d["model"]["arguments"]["decoder"]["arguments"].update({"*": [2, *[1000] * 100_000]}))
    with pytest.raises(pv.InputError, match=r"asks for more numbers, 1000 × 1000 among them, than the 1004001 in its"):
        pv.load(path)


def test_the_callers_random_state_is_left_alone(tmp_path):
    pv.save(tmp_path / "vae.safetensors", *make_pair())
    before = torch.get_rng_state()
    pv.load(tmp_path / "vae.safetensors")
    assert torch.equal(torch.get_rng_state(), before)


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

        def change(content):
            content["model"]["arguments"]["latent_dim"] = 3
            content["guide"]["arguments"]["posterior"]["arguments"]["latent_dim"] = 3

        rewrite(weights, change)


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
    rewrite(path, lambda description: description.update(changes))
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
