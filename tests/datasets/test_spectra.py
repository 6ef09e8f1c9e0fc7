"""Spectra: simulated ones against their truth, files of every kind, good and bad, preprocessing and splits."""

import gzip
import itertools
import math
import os
import typing
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from scipy.integrate import quad
from scipy.signal import savgol_filter
from scipy.special import voigt_profile

import pyrovae as pv
from pyrovae.datasets import (
    MultiplicativeScatterCorrection,
    Pipeline,
    ReadingKeywords,
    ReadingSettings,
    SavitzkyGolay,
    Spectra,
    Standardize,
    StandardNormalVariate,
    read_spectra,
    simulated,
    split_by_group,
    split_into_blocks,
    split_randomly,
    split_spectra,
)
from pyrovae.datasets.readers._table import Layout
from pyrovae.datasets.readers.text import read_text
from pyrovae.datasets.simulation import peak

SHARED = Path(os.environ.get("PYROVAE_DATA", Path(__file__).parents[3] / "shared" / "data"))


# Simulated spectra


def test_linear_simulator_has_the_density_it_says():
    spectra = simulated(4000, 30, linear=True, correlation=0.8, noise_scale=0.05, seed=3)
    truth = spectra.truth
    steps = np.abs(np.subtract.outer(np.arange(30), np.arange(30)))
    loadings = truth.loadings.numpy()
    assert loadings.shape == (30, 3 + 3)
    covariance = loadings @ loadings.T + 0.05**2 * 0.8**steps
    expected = stats.multivariate_normal(truth.pure.mean(0).numpy(), covariance).logpdf(spectra.x[:5].double().numpy())
    np.testing.assert_allclose(truth.log_prob(spectra.x[:5]).numpy(), expected, rtol=1e-9)
    # E log p = −entropy, within 5 standard errors: a false alarm once in 1.7 million seeds
    log_p = truth.log_prob(spectra.x)
    entropy = 0.5 * np.linalg.slogdet(2 * math.pi * math.e * covariance)[1]
    assert abs(log_p.mean().item() + entropy) < 5 * log_p.std().item() / math.sqrt(4000)
    assert np.abs(np.cov(spectra.x.double().T.numpy()) - covariance).max() < 6 * covariance.max() * math.sqrt(2 / 4000)


@pytest.mark.parametrize("linear", [False, True])
def test_noise_has_the_known_scale_and_correlation(linear):
    spectra = simulated(500, 80, correlation=0.7, noise_scale=0.02, linear=linear, seed=1)
    noise = (spectra.x - spectra.clean).double()
    num = noise.numel()
    assert noise.std().item() == pytest.approx(0.02, rel=5 * math.sqrt((1 + 0.49) / (1 - 0.49) / 2 / num))
    rho = (noise[:, 1:] * noise[:, :-1]).mean().item() / 0.02**2
    assert rho == pytest.approx(0.7, abs=5 * math.sqrt(5 / num))


def test_clean_spectra_are_beer_lambert_mixtures():
    spectra = simulated(50, 40, components=4, baseline_degree=None, scatter=0.1, seed=2)
    scatter = torch.tensor(spectra.targets["scatter"].to_numpy()).unsqueeze(1)
    torch.testing.assert_close(spectra.clean.double(), scatter * (spectra.concentrations @ spectra.truth.pure))
    torch.testing.assert_close(spectra.concentrations.sum(1), torch.ones(50).double())
    assert (spectra.concentrations > 0).all()
    assert scatter.log().std().item() == pytest.approx(0.1, rel=0.5)
    alone = simulated(3, 20, components=1)
    with pytest.raises(ValueError, match="needs linear=True, or scatter and 2 to 20 substances"):
        alone.truth.log_prob(alone.x)


def test_copies_and_days_stay_in_one_part():
    x = torch.randn(40, 3).repeat(3, 1)
    x[40, 0] = math.nan  # missing values are alike, too
    x[80, 0] = math.nan
    spectra = Spectra(x, torch.arange(3.0), "", pd.DataFrame({"row": range(120)}), "copied")
    split = split_spectra(spectra)
    parts, how, notes = split.parts, split.describe(), split.notes()
    rows = [{tuple(row.nan_to_num(9.0).tolist()) for row in part.x} for part in parts]
    assert sum(map(len, parts)) == 120
    assert sum(map(len, rows)) == len(set.union(*rows)) == 41
    assert how == "at random"
    assert notes == ["79 spectra are copies of others, and go where these go"]
    times = pd.date_range("2026-01-01", periods=120, freq="3h")
    timed = Spectra(x, torch.arange(3.0), "", pd.DataFrame({"datetime": times.astype(str)}), "timed")
    split = split_spectra(timed.take(torch.randperm(120)))
    parts, how, notes = split.parts, split.describe(), split.notes()
    days = [set(pd.to_datetime(part.targets["datetime"]).dt.date) for part in parts]
    assert sum(map(len, days)) == len(set.union(*days)) == 15
    assert max(days[0]) < min(days[1]) < max(days[1]) < min(days[2])
    assert "in blocks of whole days by datetime (15 days" in how
    assert "of 2 day(s)" in notes[0]
    sample = np.arange(120) % 12
    grouped = Spectra(x, torch.arange(3.0), "", pd.DataFrame({"sample": sample, "datetime": times.astype(str)}), "")
    split = split_spectra(grouped, group="sample")
    parts, how, notes = split.parts, split.describe(), split.notes()
    groups = [set(part.targets["sample"]) for part in parts]
    assert sum(map(len, parts)) == 120
    assert sum(map(len, groups)) == len(set.union(*groups)) == 12
    assert how == "by sample (12 groups, none in two parts)"
    assert f"of {len(groups[2])} group(s)" in notes[0]
    with pytest.raises(ValueError, match="there is no column 'batch' among the targets: sample, datetime"):
        split_spectra(grouped, group="batch")


@pytest.mark.parametrize("baseline_degree", [None, 1])
def test_density_of_mixtures_is_the_integral_over_what_they_are_made_of(baseline_degree):
    spectra = simulated(4, 25, components=2, baseline_degree=baseline_degree, noise_scale=0.05, scatter=0.1, seed=1)
    truth, (log_p, stderr) = spectra.truth, spectra.truth.log_marginal(spectra.x, num_draws=20_000)
    noise = truth.noise.covariance_matrix.numpy()
    share, log_scatter = (np.arange(300) + 0.5) / 300, np.linspace(-0.6, 0.6, 121)
    prior = stats.beta(4, 4).logpdf(share)[:, None] + stats.norm(0, 0.1).logpdf(log_scatter)
    means = share[:, None] * truth.pure[0].numpy() + (1 - share[:, None]) * truth.pure[1].numpy()
    for x, found in zip(spectra.x.double().numpy(), log_p, strict=True):
        given = [
            stats.multivariate_normal(np.zeros(25), noise + s**2 * (truth.baseline.T @ truth.baseline).numpy()).logpdf(
                x - s * means
            )
            for s in np.exp(log_scatter)
        ]
        whole = np.logaddexp.reduce(np.stack(given, 1) + prior, axis=None)
        assert found.item() == pytest.approx(whole + np.log(1.2 / 120 / 300), abs=0.02)
    assert stderr.max() < 0.02


def test_gaussian_concentrations_have_the_mixtures_moments():
    mixed, linear = (simulated(20_000, 2, linear=linear).concentrations for linear in (False, True))
    torch.testing.assert_close(mixed.mean(0), linear.mean(0), atol=0.005, rtol=0)
    torch.testing.assert_close(mixed.std(0), linear.std(0), atol=0, rtol=0.03)


def test_peaks():
    distance = np.linspace(-1, 1, 4001)
    for shape in ("gaussian", "lorentzian", "voigt"):
        profile = peak(distance, 0.2, shape)
        assert profile[2000] == pytest.approx(1)
        assert np.ptp(distance[profile >= 0.5]) == pytest.approx(0.2, abs=2e-3)
    # a Voigt profile is the convolution of its two, by direct integration
    sigma, gamma = 0.3, 0.2
    convolved = quad(lambda t: stats.norm.pdf(t, scale=sigma) * stats.cauchy.pdf(0.4 - t, scale=gamma), -8, 8)[0]
    assert voigt_profile(0.4, sigma, gamma) == pytest.approx(convolved, rel=1e-8)


def test_simulations_repeat_and_differ():
    first, same, other = (simulated(5, 12, seed=seed) for seed in (7, 7, 8))
    assert torch.equal(first.x, same.x)
    assert not torch.equal(first.truth.pure, other.truth.pure)
    assert not torch.equal(first.x, first.truth.sample(5, seed=1).x)
    part = first.take([3, 1])
    assert torch.equal(part.x, first.x[[3, 1]])
    assert torch.equal(part.concentrations, first.concentrations[[3, 1]])
    assert first.axis[[0, -1]].tolist() == [1000, 2500]
    assert (first.unit, first.x.dtype) == ("nm", torch.float32)
    scales = np.linspace(0.01, 0.1, 12)
    assert simulated(5, 12, noise_scale=scales.tolist()).truth.noise_scale.tolist() == scales.tolist()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"components": 0}, "components must be a positive integer"),
        ({"correlation": 1.0}, "inside"),
        ({"noise_scale": [0.1, 0.2]}, "a positive number or 9 of them"),
        ({"shapes": ("box",)}, "shapes must be some of"),
        ({"baseline_degree": -1}, "baseline_degree"),
        ({"axis": (2.0, 1.0)}, "axis must be"),
        ({"scatter": -0.1}, "scatter must be a finite number"),
        ({"baseline_scale": math.inf}, "baseline_scale must be a finite number"),
        ({"noise_scale": -1.0}, "noise_scale must be a positive number"),
        ({"peeks": 3}, "no setting .peeks. .did you mean .peaks."),
    ],
)
def test_simulations_that_cannot_be(settings, message):
    with pytest.raises(ValueError, match=message):
        simulated(5, 9, **settings)


# Files


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data are not here")
@pytest.mark.parametrize(
    ("name", "shape", "ends", "targets"),
    [
        ("spectra/fruit_puree_mir.csv", (983, 235), (899.327, 1802.564), ["label"]),
        ("spectra/tecator.csv", (240, 100), (1, 100), ["principal_component_1", "protein"]),
        ("spectra/tablets_nir.csv", (655, 650), (600, 1898), ["split", "assay"]),
        ("karly_soil/soilmoisture_dataset.csv", (679, 125), (454, 950), ["index", "soil_temperature"]),
    ],
)
def test_published_files_as_they_are(name, shape, ends, targets):
    spectra = read_spectra(SHARED / name)
    frame = pd.read_csv(SHARED / name)
    assert spectra.x.shape == shape
    assert (spectra.axis[0].item(), spectra.axis[-1].item()) == ends
    assert [spectra.targets.columns[0], spectra.targets.columns[-1]] == [targets[0], targets[-1]]
    columns = [c for c in frame if c not in spectra.targets]
    np.testing.assert_array_equal(spectra.x.numpy(), frame[columns].to_numpy(np.float32))
    pd.testing.assert_frame_equal(spectra.targets, frame[list(spectra.targets)], check_dtype=False)


def test_days_of_the_soil_data_make_blocks():
    if not SHARED.is_dir():
        pytest.skip("the shared data are not here")
    spectra = read_spectra(SHARED / "karly_soil/soilmoisture_dataset.csv")
    with pytest.raises(ValueError, match="comes back after another"):  # the file is not in the order of time
        split_into_blocks(len(spectra), (0.6, 0.4), groups=spectra.groups("datetime", by_day=True))
    spectra = spectra.sorted_by("datetime")
    days = spectra.groups("datetime", by_day=True)
    parts = [set(days[part]) for part in split_into_blocks(len(spectra), (0.6, 0.4), groups=days)]
    assert not parts[0] & parts[1]
    assert max(parts[0]) < min(parts[1])


def numbers(num=4, n=3):
    return np.round(np.random.default_rng(0).normal(size=(num, n)), 4)


def written(folder, text, name="a.csv", encoding="utf-8"):
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return folder / name


def as_text(values, header="label,900,902.5,905", delimiter=",", decimal=".", labels=True):
    rows = [
        delimiter.join([f"s{i}"] * labels + [f"{v}".replace(".", decimal) for v in row]) for i, row in enumerate(values)
    ]
    return "\n".join([header, *rows]) + "\n"


@pytest.mark.parametrize(
    ("name", "options", "unit"),
    [
        ("a.csv", {}, ""),
        ("a.tsv", {"header": "label\t900\t902.5\t905", "delimiter": "\t"}, ""),
        ("a.csv", {"header": "label;900;902,5;905", "delimiter": ";", "decimal": ","}, ""),
        ("a.csv", {"header": "label|900nm|902.5nm|905nm", "delimiter": "|"}, "nm"),
        ("a.txt", {"header": '"label","X900 cm-1","X902.5 cm-1","X905 cm-1"'}, "cm⁻¹"),
        ("a.csv", {"header": "label,R_900 [nm],R_902.5 [nm],R_905 [nm]"}, "nm"),
        ("a.csv", {"header": "\ufeff# a comment\n\nlabel,900,902.5,905"}, ""),
        ("a.csv", {"header": "label,-5,-2.5,0"}, ""),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_text_files(tmp_path, name, options, unit, zipped):
    values = numbers()
    text = as_text(values, **options).encode()
    if text.startswith(b"\xef\xbb\xbf#"):
        text = text.removeprefix(b"\xef\xbb\xbf")
    path = written(tmp_path, gzip.compress(text) if zipped else text, name + ".gz" * zipped)
    spectra = read_spectra(path)
    np.testing.assert_allclose(spectra.x.numpy(), values.astype(np.float32))
    assert spectra.axis.tolist() in ([900, 902.5, 905], [-5, -2.5, 0])
    assert spectra.unit == unit
    assert spectra.targets["label"].tolist() == ["s0", "s1", "s2", "s3"]


def test_channels_by_prefix_by_name_and_without_a_header(tmp_path):
    values = numbers(4, 4)
    header = "abs_1,abs_2,pc_1,pc_2"
    path = written(tmp_path, as_text(values, header, labels=False))
    with pytest.raises(ValueError, match=r"2 columns 'abs_' and as many 'pc_'; say which .* channels='abs_'"):
        read_spectra(path)
    assert read_spectra(path, channels="pc_").x.tolist() == values[:, 2:].astype(np.float32).tolist()
    assert read_spectra(path, channels=["abs_2", "pc_2"]).axis.tolist() == [0, 1]
    assert read_spectra(path, ReadingSettings(channels="abs_")).unit == "channel"
    bare = read_spectra(written(tmp_path, as_text(values, "", labels=False).lstrip(), "b.csv"))
    assert (bare.x.shape, bare.unit, bare.axis.tolist()) == ((4, 4), "channel", [0, 1, 2, 3])
    named = read_spectra(tmp_path / "b.csv", axis=[900, 910, 920, 930], unit="nm")
    assert (named.axis.tolist(), named.unit) == ([900, 910, 920, 930], "nm")
    with pytest.raises(ValueError, match=r"axis has 2 positions, and .* has 4 channels"):
        read_spectra(tmp_path / "b.csv", axis=[900, 910])
    with pytest.raises(ValueError, match=r"has no column 'x'; its columns are 'abs_1'"):
        read_spectra(path, channels=["x"])
    with pytest.raises(ValueError, match="no columns named 'q' and a number"):
        read_spectra(path, channels="q")


def test_samples_in_columns(tmp_path):
    values = numbers(5, 3)
    text = "\n".join(["wavenumber (cm-1);a;b;c", *(f"{900 - i};{a};{b};{c}" for i, (a, b, c) in enumerate(values))])
    spectra = _quietly(written(tmp_path, text))
    assert torch.equal(spectra.x, torch.tensor(values.T, dtype=torch.float32))
    assert (spectra.axis.tolist(), spectra.unit) == ([900, 899, 898, 897, 896], "cm⁻¹")
    assert spectra.targets["sample"].tolist() == ["a", "b", "c"]
    with pytest.raises(ValueError, match=r"row 4, column 1 \('wavenumber \(cm-1\)'\): the channel 899 is not in order"):
        read_spectra(written(tmp_path, text.replace("898;", "899;")))
    with pytest.raises(ValueError, match=r"row 3, column 2 \('a'\): the channel is constant"):
        read_spectra(written(tmp_path, text.replace(text.splitlines()[2], "899;1;1;1")))


def _quietly(path, **options):
    with pytest.warns(UserWarning, match="more channels"):
        return read_spectra(path, **options)


def test_numpy_and_parquet(tmp_path):
    values = numbers(6, 4)
    np.save(tmp_path / "a.npy", values)
    np.savez_compressed(tmp_path / "a.npz", spectra=values, wavelengths=np.arange(4) + 900, fat=np.arange(6))
    for name in ("a.npy", "a.npz"):
        assert read_spectra(tmp_path / name).x.tolist() == values.astype(np.float32).tolist()
    spectra = read_spectra(tmp_path / "a.npz")
    assert spectra.axis.tolist() == [900, 901, 902, 903]
    assert spectra.targets["fat"].tolist() == list(range(6))
    np.save(tmp_path / "b.npy", values.T)
    assert read_spectra(tmp_path / "b.npy", samples="columns").x.shape == (6, 4)


def test_parquet(tmp_path):
    pytest.importorskip("pyarrow")
    values = numbers(6, 4)
    frame = pd.DataFrame(values, columns=["900", "901", "902", "903"]).assign(label=list("abcdef"))
    frame.to_parquet(tmp_path / "a.parquet")
    spectra = read_spectra(tmp_path / "a.parquet")
    assert spectra.x.tolist() == values.astype(np.float32).tolist()
    assert spectra.targets["label"].tolist() == list("abcdef")
    frame["901"] = ["1", "2", "high", "3", "4", "5"]
    frame.to_parquet(tmp_path / "b.parquet")
    with pytest.raises(ValueError, match=r"b\.parquet, row 3, column 2 \('901'\): 'high' is not a number"):
        read_spectra(tmp_path / "b.parquet")
    whole = (tmp_path / "a.parquet").read_bytes()
    for k in (10, len(whole) // 2, len(whole) - 10):
        assert "parquet" in _one_line(written(tmp_path, whole[:k], "c.parquet"))


def test_missing_values_are_data_only_where_asked_for(tmp_path):
    path = written(tmp_path, "label,900,901,902\na,1,NA,3\nb,,5,6\nc,7,8,nan\nd,1,2,2\n")
    with pytest.raises(ValueError, match=r"row 2, column 3 \('901'\): the value is missing, one of 3; .*'mask'"):
        read_spectra(path)
    spectra = read_spectra(path, missing="mask")
    assert spectra.missing.tolist() == [
        [False, True, False], [True, False, False], [False, False, True], [False, False, False]
    ]  # fmt: skip
    model = pv.GenerativeModel(pv.nn.MLP(1, 8), pv.AR1GaussianLikelihood(8, 3), 1, missing=True)
    guide = pv.AmortizedGuide(pv.nn.ImputeMissing(pv.nn.MLP(3, 8)), pv.DiagonalPosterior(8, 1))
    assert math.isfinite(pv.fit(model, guide, spectra.x, pv.AnalyticELBO(), epochs=2, progress=False).batch_loss[-1])
    with pytest.raises(ValueError, match=r"row 2, column 2 \('900'\): every value of this spectrum is missing"):
        read_spectra(written(tmp_path, "label,900,901\na,,\nb,1,2\nc,2,3\n"), missing="mask")


BAD = {
    "text": ("label,900,901\na,1,2\nb,3,high\n", r"row 3, column 3 \('901'\): 'high' is not a number"),
    "decimal comma amid points": ('label,900,901\na,1.5,2\nb,"3,1",4\n', r"row 3, column 2 \('900'\): '3,1' is not"),
    "long row": ("label,900,901\na,1,2\nb,3,4,5\n", r"row 3, column 4: the row has 4 fields, the first one 3"),
    "short row": ("label,900,901\na,1,2\nb,3\n", r"row 3, column 3: the row has 2 fields, the first one 3"),
    "infinite": ("label,900,901\na,1,2\nb,inf,3\n", r"row 3, column 2 \('900'\): the value is infinite"),
    "overflow": ("label,900,901\na,1,2\nb,1e300,3\n", r"row 3, column 2 \('900'\): the value is infinite"),
    "missing": ("label,900,901\na,1,2\nb,NaN,3\n", r"row 3, column 2 \('900'\): the value is missing"),
    "constant": ("label,900,901\na,1,2\nb,3,2\nc,4,2\n", r"column 3 \('901'\): the channel is constant \(2 in all"),
    "duplicate": ("label,900,901,900\na,1,2,3\nb,3,4,5\n", "columns 2 and 4: both are channel '900'"),
    "duplicate number": ("label,900,900.0\na,1,2\nb,3,4\n", "columns 2 and 3: both are channel '900.0'"),
    "unordered": ("label,900,902,901,903\na,1,2,3,4\nb,3,4,5,6\n", "column 4: channel '901' comes after '902'"),
    "unordered numbers alone": ("900,902,901\n1,2,3\n3,4,5\n", "column 3: channel '901' comes after '902'"),
    "header alone": ("label,900,901\n", "it has a header and no rows"),
    "empty": ("", "is empty"),
    "blank": ("\n \n", "is empty"),
    "one spectrum": ("label,900,901\na,1,2\n", "holds one spectrum"),
    "no channels": ("a,b\n1,x\n2,y\n", "has no channels: no two columns"),
    "latin-1": ("label,900,901\na,1,2\nPur\xe9e,3,4\n".encode("latin-1"), "row 3, column 1: byte 0xe9 is not utf-8"),
    "UTF-16": ("label,900,901\na,1,2\nb,3,4\n".encode("utf-16"), "the file is UTF-16; pass encoding='utf-16'"),
    "binary": (b"label,900,901\na,1,2\nb,\0,4\n", "row 3, column 2: the file is not text"),
    "torn gzip": (gzip.compress(b"label,900,901\n" + b"a,1,2\nb,3,4\n" * 999)[:-20], "is damaged after row"),
    "no gzip": (b"\x1f\x8b" + bytes(range(60)), "is damaged after row 0"),
    "open quote": ('label,900,901\na,"1,2\nb,3,4\n', "row 2: unexpected end"),
}


def _one_line(path, error=ValueError, **options):
    with pytest.raises(error) as caught:
        read_spectra(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


@pytest.mark.parametrize("kind", BAD)
def test_bad_files_say_where(kind, tmp_path):
    text, expected = BAD[kind]
    path = written(tmp_path, text)
    message = _one_line(path)
    with pytest.raises(ValueError, match=expected):
        raise ValueError(message)


def test_ways_out_of_bad_files(tmp_path):
    text, _ = BAD["constant"]
    assert read_spectra(written(tmp_path, text), drop_constant=True).axis.tolist() == [900]
    text, _ = BAD["latin-1"]
    assert read_spectra(written(tmp_path, text), encoding="latin-1").targets["label"].tolist() == ["a", "Purée"]
    text, _ = BAD["UTF-16"]
    assert read_spectra(written(tmp_path, text), encoding="utf-16").x.tolist() == [[1, 2], [3, 4]]


def test_more_channels_than_samples_works_with_a_note(tmp_path):
    path = written(tmp_path, as_text(numbers(2, 3)))
    with pytest.warns(UserWarning, match=r"more channels \(3\) than samples \(2\)"):
        assert read_spectra(path).x.shape == (2, 3)


def test_decimal_commas_and_missing_values_in_targets(tmp_path):
    spectra = read_spectra(written(tmp_path, "fat;900;901;lot\n1,5;0,1;0,2;a\nNA;0,3;0,4;none\n2;0,5;0,7;b\n"))
    np.testing.assert_array_equal(spectra.targets["fat"], [1.5, np.nan, 2])
    assert spectra.targets["lot"].tolist() == ["a", "none", "b"]


def test_an_axis_in_the_first_column_is_not_rounded(tmp_path):
    text = "wavenumber,a,b,c\n" + "".join(f"{899.327 + i},{i},{i + 1},{i * i + 3}\n" for i in range(3))
    assert read_spectra(written(tmp_path, text)).axis.tolist() == [899.327 + i for i in range(3)]


def test_a_channel_that_was_never_observed(tmp_path):
    path = written(tmp_path, "900,901,902\n1,,2\n3,NA,5\n4,-,1\n")
    with pytest.raises(
        ValueError, match=r"column 2 \('901'\): the channel was never observed; pass drop_constant=True"
    ):
        read_spectra(path, missing="mask")
    assert read_spectra(path, missing="mask", drop_constant=True).axis.tolist() == [900, 902]


def test_an_axis_that_is_given_must_be_one(tmp_path):
    path = written(tmp_path, as_text(numbers(4, 3)))
    for axis in ([1, 3, 2], [1, 1, 2], [1, math.nan, 2]):
        with pytest.raises(ValueError, match=r"axis: position [23], .* is not in order, or is there twice"):
            read_spectra(path, axis=axis)


def test_a_row_without_an_end_is_refused(tmp_path):
    path = written(tmp_path, "label,900,901\n" + "1" * 100)
    with pytest.raises(ValueError, match="row 2: the row is longer than 40 bytes"):
        read_text(path, ReadingSettings(), lambda names: Layout([1, 2]), longest_row=40)


def test_bad_arrays(tmp_path):
    def saved(array, name="a.npy"):
        np.save(tmp_path / name, array, allow_pickle=True)
        return tmp_path / name

    assert "pickled objects" in _one_line(saved(np.array([[1, {}], [2, 3]], dtype=object)))
    assert "one spectrum" in _one_line(saved(np.arange(5.0)))
    assert "array (samples, channels)" in _one_line(saved(np.zeros((2, 2, 2))))
    assert "complex" in _one_line(saved(np.zeros((2, 2), dtype=complex)))
    assert "row 2, column 1: the value is missing" in _one_line(saved(np.array([[1.0, 2.0], [np.nan, 3.0]])))
    assert "constant" in _one_line(saved(np.ones((3, 2))))
    whole = saved(numbers(40, 5)).read_bytes()
    assert "damaged" in _one_line(written(tmp_path, whole[:-9], "b.npy"))
    assert "no array" in _one_line(written(tmp_path, b"\x80\x04cos\nsystem\n", "c.npy"))
    np.savez(tmp_path / "a.npz", a=numbers(), b=numbers())
    assert "say which array" in _one_line(tmp_path / "a.npz")
    assert read_spectra(tmp_path / "a.npz", channels="b").x.shape == (4, 3)
    np.savez(tmp_path / "p.npz", x=np.array([[1, {}]], dtype=object))
    assert "pickled objects" in _one_line(tmp_path / "p.npz")
    np.savez_compressed(tmp_path / "d.npz", x=np.random.default_rng(0).normal(size=(40, 5)))
    whole = bytearray((tmp_path / "d.npz").read_bytes())
    whole[400] ^= 255
    assert "damaged" in _one_line(written(tmp_path, bytes(whole), "d.npz"))
    assert "damaged" in _one_line(written(tmp_path, bytes(whole[:300]), "e.npz"))
    _one_line(tmp_path / "nowhere.csv", FileNotFoundError)
    assert "is a folder" in _one_line(tmp_path)


def test_damaged_anywhere_is_never_another_error(tmp_path):
    np.savez(tmp_path / "a.npz", x=numbers(9, 3), axis=np.arange(3))
    np.save(tmp_path / "a.npy", numbers(9, 3))
    written(tmp_path, gzip.compress(as_text(numbers(9, 3)).encode()), "a.csv.gz")
    rng, messages = np.random.default_rng(0), []
    for name in ("a.npz", "a.npy", "a.csv.gz"):
        whole = (tmp_path / name).read_bytes()
        for _ in range(150):
            broken = bytearray(whole)
            for k in rng.integers(len(whole), size=rng.integers(1, 4)):
                broken[k] = rng.integers(256)
            path = written(tmp_path, bytes(broken[: rng.integers(1, len(whole) + 1)]), "broken-" + name)
            try:
                read_spectra(path)
            except ValueError as error:
                messages.append(str(error))
    assert len(messages) > 400  # a few changes are harmless
    assert all("\n" not in message and "broken-" in message for message in messages)


def test_large_files_are_read_in_blocks_or_refused(tmp_path):
    values = numbers(50, 3)
    path = written(tmp_path, as_text(values))
    read = partial(read_text, settings=ReadingSettings(), choose=lambda names: Layout([1, 2, 3]), cells_at_once=30)
    table = read(path)
    np.testing.assert_allclose(table.numbers, values.astype(np.float32))
    assert table.others["label"].tolist() == [f"s{i}" for i in range(50)]
    with pytest.raises(ValueError, match=r"row 41, column 3 \('902.5'\): 'x' is not a number"):
        read(written(tmp_path, path.read_text().replace(str(values[39, 1]), "x"), "b.csv"))
    assert "would need about" in _one_line(path, max_gib=1e-7)
    np.save(tmp_path / "a.npy", values)
    assert "would need about" in _one_line(tmp_path / "a.npy", max_gib=1e-7)


# Preprocessing


def correlated(num=60, n=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num, n, generator=generator, dtype=torch.float64).cumsum(-1) + torch.arange(n) ** 2


@pytest.mark.parametrize(
    "make", [Standardize, lambda: Standardize(per="all"), lambda: Pipeline(Standardize("all"), Standardize())]
)
def test_log_likelihoods_are_in_the_original_units(make):
    """Log p(x) of a Gaussian fitted to y, plus the log-determinant, is scipy's density of x = f⁻¹(y)."""
    x = correlated()
    step = make().fit(x)
    assert step.comparable
    y = step.transform(x)
    torch.testing.assert_close(step.inverse(y), x)
    jacobian = torch.func.jacrev(lambda row: step.transform(row.unsqueeze(0)).squeeze(0))(x[3])
    expected = torch.linalg.slogdet(jacobian).logabsdet
    torch.testing.assert_close(step.log_abs_det_jacobian(x), expected.expand(60))
    mean, covariance = y.mean(0).numpy(), np.cov(y.T.numpy())
    in_y = stats.multivariate_normal(mean, covariance).logpdf(y.numpy())
    inverse = torch.linalg.inv(jacobian).numpy()
    in_x = stats.multivariate_normal(step.inverse(y.mean(0, keepdim=True))[0].numpy(), inverse @ covariance @ inverse.T)
    np.testing.assert_allclose(in_y + step.log_abs_det_jacobian(x).numpy(), in_x.logpdf(x.numpy()), rtol=1e-8)


def test_standardised_data_and_their_missing_values():
    x = correlated()
    y = Standardize().fit(x).transform(x)
    torch.testing.assert_close(y.mean(0), torch.zeros(8).double(), atol=1e-12, rtol=0)
    torch.testing.assert_close(y.std(0, correction=0), torch.ones(8).double())
    assert Standardize("all").fit(x).transform(x).std(correction=0).item() == pytest.approx(1)
    holed = x.clone()
    holed[0, 2], holed[:, 5] = math.nan, math.nan
    step = Standardize().fit(holed)
    np.testing.assert_allclose(step.mean[2], np.nanmean(holed[:, 2].numpy()))
    np.testing.assert_allclose(step.scale[2], np.nanstd(holed[:, 2].numpy()))
    assert (step.mean[5], step.scale[5]) == (0, 1)
    assert step.transform(holed).isnan().equal(holed.isnan())
    expected = -sum(math.log(s) for i, s in enumerate(step.scale) if i not in (2, 5))
    assert step.log_abs_det_jacobian(holed)[0].item() == pytest.approx(expected)
    with pytest.raises(ValueError, match=r"channel 1 \(counted from 0\) is constant in the training data"):
        Standardize().fit(torch.tensor([[1.0, 0.1, 3.0], [2.0, 0.1, 3.5]]))
    with pytest.raises(ValueError, match="has not been fitted"):
        Standardize().transform(x)
    with pytest.raises(ValueError, match="fitted on 8 channels, and x has 3"):
        step.transform(x[:, :3])


def test_statistics_are_of_the_training_part_alone():
    spectra = simulated(100, 10)
    train, test = (spectra.take(part) for part in split_randomly(100, (0.5, 0.5)))
    before = Standardize().fit(train.x).config()
    test.x.mul_(1e3)
    assert Standardize().fit(train.x).config() == before
    np.testing.assert_allclose(before["mean"], train.x.double().numpy().mean(0))


def test_standard_normal_variate_and_scatter_correction():
    x = correlated()
    y = StandardNormalVariate().transform(x).numpy()
    np.testing.assert_allclose(y, stats.zscore(x.numpy(), axis=1))
    step = MultiplicativeScatterCorrection().fit(x)
    reference = x.numpy().mean(0)
    for row, corrected in zip(x.numpy(), step.transform(x).numpy(), strict=True):
        slope, offset = np.polyfit(reference, row, 1)
        np.testing.assert_allclose(corrected, (row - offset) / slope)
    clean = 2.5 * torch.tensor(reference) - 7
    torch.testing.assert_close(step.transform(clean.unsqueeze(0))[0], torch.tensor(reference))
    holed = x.clone()
    holed[:, 3] = math.nan
    others = [i for i in range(8) if i != 3]
    np.testing.assert_allclose(
        StandardNormalVariate().transform(holed).numpy()[:, others], stats.zscore(x.numpy()[:, others], axis=1)
    )
    short = MultiplicativeScatterCorrection(reference[others].tolist()).transform(x[:, others])
    torch.testing.assert_close(step.transform(holed)[:, others], short)
    with pytest.raises(ValueError, match=r"spectrum 1 \(counted from 0\) is constant"):
        StandardNormalVariate().transform(torch.tensor([[1.0, 2.0], [3.0, 3.0]]))


def test_savitzky_golay_is_scipys():
    x = correlated(5, 20)
    expected = savgol_filter(x.numpy(), 7, 3, deriv=1)
    np.testing.assert_allclose(SavitzkyGolay(7, 3, 1).transform(x).numpy(), expected)
    for arguments in ((6, 2, 0), (5, 5, 0), (5, 2, 3)):
        with pytest.raises(ValueError, match="odd window > degree ≥ derivative"):
            SavitzkyGolay(*arguments)
    with pytest.raises(ValueError, match="wider than the spectra"):
        SavitzkyGolay(21).transform(x)
    with pytest.raises(ValueError, match="no missing values"):
        SavitzkyGolay(5).transform(x.masked_fill(x == x[0, 0], math.nan))


@pytest.mark.parametrize(
    "step",
    [
        StandardNormalVariate(),
        MultiplicativeScatterCorrection(),
        SavitzkyGolay(5),
        Pipeline(Standardize(), SavitzkyGolay(5)),
    ],
)
def test_what_loses_dimensions_is_not_comparable(step):
    x = correlated()
    step.fit(x)
    assert not step.comparable
    with pytest.raises(ValueError, match="not comparable"):
        step.log_abs_det_jacobian(x)
    with pytest.raises(ValueError, match="cannot be undone"):
        step.inverse(step.transform(x))


def test_preprocessing_is_saved_with_the_model(tmp_path):
    x = correlated()
    steps = Pipeline(
        StandardNormalVariate(), MultiplicativeScatterCorrection(), SavitzkyGolay(5, 2), Standardize()
    ).fit(x)
    model = pv.GenerativeModel(pv.nn.MLP(1, 4), pv.GaussianLikelihood(4, 8), 1)
    guide = pv.AmortizedGuide(pv.nn.MLP(8, 4), pv.DiagonalPosterior(4, 1))
    pv.save(tmp_path / "vae.safetensors", model, guide, preprocessing=steps)
    assert torch.equal(pv.load_preprocessing(tmp_path / "vae.safetensors").transform(x), steps.transform(x))
    assert torch.equal(pv.load(tmp_path / "vae.safetensors")[0].decoder[0].weight, model.decoder[0].weight)
    pv.save(tmp_path / "vae.safetensors", model, guide)
    assert pv.load_preprocessing(tmp_path / "vae.safetensors") is None
    with pytest.raises(TypeError, match="preprocessing must be of class Preprocessing"):
        pv.save(tmp_path / "vae.safetensors", model, guide, preprocessing=torch.nn.Identity())
    (tmp_path / "vae.json").write_text("[1")
    with pytest.raises(ValueError, match="cannot load"):
        pv.load_preprocessing(tmp_path / "vae.safetensors")


# Splits


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.7, 0.15, 0.15)])
def test_splits_are_partitions(shares):
    groups = np.repeat(np.arange(20), np.random.default_rng(0).integers(1, 9, 20))
    for parts in (
        split_randomly(len(groups), shares, seed=1),
        split_by_group(groups, shares, seed=1),
        split_into_blocks(len(groups), shares),
        split_into_blocks(len(groups), shares, groups=groups),
    ):
        assert sorted(torch.cat(parts).tolist()) == list(range(len(groups)))
        sizes = [len(part) / len(groups) for part in parts]
        assert sizes == pytest.approx(shares, abs=0.1)
    for parts in (split_by_group(groups, shares, seed=2), split_into_blocks(len(groups), shares, groups=groups)):
        sets = [set(groups[part]) for part in parts]
        assert sum(len(s) for s in sets) == len(set.union(*sets))
    blocks = split_into_blocks(len(groups), shares, groups=groups)
    assert all(max(a) < min(b) for a, b in itertools.pairwise(blocks))
    assert split_by_group(groups, shares, seed=1)[0].tolist() != split_by_group(groups, shares, seed=3)[0].tolist()


def test_splits_that_cannot_be():
    with pytest.raises(ValueError, match="sum to 1"):
        split_randomly(10, (0.5, 0.6))
    with pytest.raises(ValueError, match="2 data are too few"):
        split_randomly(2)
    with pytest.raises(ValueError, match="2 groups are too few"):
        split_by_group(["a", "b"] * 10)
    with pytest.raises(ValueError, match="comes back after another"):
        split_into_blocks(4, (0.5, 0.5), groups=list("abab"))
    with pytest.raises(ValueError, match=r"datum 1 \(counted from 0\) has no group label"):
        split_by_group(["a", None, "b"], (0.5, 0.5))
    assert [len(part) for part in split_by_group(list("abc"))] == [1, 1, 1]


def test_parts_of_spectra():
    spectra = Spectra(
        torch.arange(12.0).reshape(3, 4),
        torch.tensor([900.0, 901, 902, 903]),
        "nm",
        pd.DataFrame({"day": ["2020-01-01 10:00", "2020-01-01 12:00", "2020-01-02 09:00"]}),
    )
    assert spectra.between(901, 902).x.tolist() == [[1, 2], [5, 6], [9, 10]]
    assert spectra.groups("day", by_day=True).tolist() == ["2020-01-01", "2020-01-01", "2020-01-02"]
    with pytest.raises(ValueError, match=r"no channel lies in \[1, 2\]"):
        spectra.between(1, 2)
    with pytest.raises(ValueError, match="there is no column 'x' among the targets: day"):
        spectra.groups("x")
    with pytest.raises(ValueError, match="do not fit"):
        Spectra(torch.zeros(3, 4), torch.zeros(3), "nm", spectra.targets)


def test_names_that_moved_out_of_spectra_warn():
    from pyrovae.datasets import spectra as module

    with pytest.warns(DeprecationWarning, match=r"spectra\.simulated is now pyrovae\.datasets\.simulation\.sim"):
        assert module.simulated is simulated
    with pytest.warns(DeprecationWarning, match=r"is now pyrovae\.datasets\.splitting\.split_spectra"):
        assert module.split_spectra is split_spectra
    with pytest.raises(AttributeError, match="has no attribute 'simulate'"):
        _ = module.simulate


def test_channels_in_the_place_of_the_settings_warn(tmp_path):
    path = written(tmp_path, as_text(numbers(4, 4), "abs_1,abs_2,pc_1,pc_2", labels=False))
    for channels in ("pc_", ["pc_1", "pc_2"]):
        with pytest.warns(DeprecationWarning, match=r"is now read_spectra\(path, channels=…\)") as caught:
            old = read_spectra(path, channels, drop_constant=True)
        assert caught[0].filename == __file__
        assert torch.equal(old.x, read_spectra(path, channels="pc_").x)


def test_reading_settings_are_declared_once():
    assert typing.get_type_hints(ReadingSettings) == typing.get_type_hints(ReadingKeywords)
    assert ReadingSettings(channels=["a", "b"], axis=np.arange(2)) == ReadingSettings(("a", "b"), axis=(0.0, 1.0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"samples": "diagonal"}, "samples must be 'rows', 'columns' or None, not 'diagonal'"),
        ({"missing": True}, "missing must be 'error' or 'mask', not True"),
        ({"decimal": "'"}, "decimal must be"),
        ({"delimiter": "||"}, "delimiter must be one character or None"),
        ({"encoding": "utf-9"}, "there is no encoding 'utf-9'"),
        ({"max_gib": 0}, "max_gib must be a positive number"),
        ({"chanels": "x"}, r"no setting 'chanels' \(did you mean 'channels'\?\)"),
    ],
)
def test_reading_settings_that_cannot_be(settings, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        read_spectra(tmp_path / "a.csv", **settings)
