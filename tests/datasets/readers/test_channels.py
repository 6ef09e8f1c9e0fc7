"""Which columns are channels: found by their names, or named by the user."""

import re

import numpy as np
import pytest

from pyrovae.datasets import ReadingSettings, read_spectra
from tests.datasets.readers.files import AXIS, IDS, N, X, as_text, message_of, numbers, rows_of, text, written


def test_channels_by_prefix_by_name_and_without_a_header(tmp_path):
    values = numbers(6, 4)
    header = "abs_1,abs_2,pc_1,pc_2"
    path = written(tmp_path, as_text(values, header, labels=False))
    with pytest.raises(ValueError, match=r"2 columns 'abs_' and as many 'pc_'; say which .* channels='abs_'"):
        read_spectra(path)
    assert read_spectra(path, channels="pc_").x.tolist() == values[:, 2:].astype(np.float32).tolist()
    assert read_spectra(path, channels=["abs_2", "pc_2"]).axis.tolist() == [0, 1]
    assert read_spectra(path, ReadingSettings(channels="abs_")).unit == "channel"
    bare = read_spectra(written(tmp_path, as_text(values, "", labels=False).lstrip(), "b.csv"))
    assert (bare.x.shape, bare.unit, bare.axis.tolist()) == ((6, 4), "channel", [0, 1, 2, 3])
    named = read_spectra(tmp_path / "b.csv", axis=[900, 910, 920, 930], unit="nm")
    assert (named.axis.tolist(), named.unit) == ([900, 910, 920, 930], "nm")
    with pytest.raises(ValueError, match=r"axis has 2 positions, and .* has 4 channels"):
        read_spectra(tmp_path / "b.csv", axis=[900, 910])
    with pytest.raises(ValueError, match=r"has no column 'x'; its columns are 'abs_1'"):
        read_spectra(path, channels=["x", "abs_1"])
    with pytest.raises(ValueError, match="no columns named 'q' and a number"):
        read_spectra(path, channels="q")


POSITIONS = 400.0 + 2 * np.arange(N)
HALF = N // 2


def with_names(folder, names, sep=","):
    return written(folder, text([["id", *names], *rows_of(left=IDS)], sep))


@pytest.mark.parametrize("form", ["T1.{:g}", "nir2.{:g}", "ch1.{:g} nm", "V2.{:g}.x"])
def test_a_digit_may_belong_to_the_prefix(form, tmp_path):
    path, prefix = with_names(tmp_path, [form.format(a) for a in POSITIONS]), form.split("{")[0]
    message = message_of(path)
    assert f"{form.format(400)!r} may be the position {prefix[-2:]}4, then say channels={prefix[:-2]!r}" in message
    assert f"or 400, then say channels={prefix!r}" in message
    found = read_spectra(path, channels=prefix)
    assert found.axis.tolist() == POSITIONS.tolist()
    np.testing.assert_allclose(found.x, X, atol=1e-6)
    np.testing.assert_allclose(read_spectra(path, channels=prefix[:-2]).axis, float(prefix[-2]) + POSITIONS / 1000)


@pytest.mark.parametrize("form", ["X{:.3f}", "R_{:.3f}", "w{:.3f} um", "{:.3f}"])
@pytest.mark.parametrize(
    "axis", [0.4 + 0.012 * np.arange(N), 0.95 + 0.025 * np.arange(N), 1.1 + 0.25 * np.arange(N)], ids=str
)
def test_small_positions_with_a_prefix(form, axis, tmp_path):
    found = read_spectra(with_names(tmp_path, [form.format(a) for a in axis]))
    np.testing.assert_allclose(found.axis, axis, atol=1e-9)


@pytest.mark.parametrize("form", ["w{:.3f} um", "R({:.3f} µm)"])
def test_a_unit_says_that_positions_are_small(form, tmp_path):
    axis = 1.4 + 0.012 * np.arange(N)
    np.testing.assert_allclose(read_spectra(with_names(tmp_path, [form.format(a) for a in axis])).axis, axis, atol=1e-9)


@pytest.mark.parametrize(
    ("names", "prefixes"),
    [
        ([f"VIS_{a:g}" for a in POSITIONS[:HALF]] + [f"NIR_{a:g}" for a in POSITIONS[HALF:]], ("VIS_", "NIR_")),
        ([f"vis{a:g}" for a in POSITIONS[:7]] + [f"nir{a:g}" for a in POSITIONS[7:]], ("vis", "nir")),
        ([f"vis{a:g}" for a in POSITIONS[:2]] + [f"nir{a:g}" for a in POSITIONS[2:]], ("vis", "nir")),
        ([f"T{1 + (j >= HALF)}.{a:g}" for j, a in enumerate(POSITIONS)], ("T1.", "T2.")),
    ],
)
def test_two_detectors_may_be_taken_together(names, prefixes, tmp_path):
    path = with_names(tmp_path, names)
    assert f"channels={prefixes!r}" in message_of(path)
    found = read_spectra(path, channels=prefixes)
    assert found.axis.tolist() == POSITIONS.tolist()
    assert found.channel_names == tuple(names)
    np.testing.assert_allclose(found.x, X, atol=1e-6)


def test_detectors_that_overlap_are_counted(tmp_path):
    names = [f"VIS_{a:g}" for a in POSITIONS[:HALF]] + [f"NIR_{a - 6:g}" for a in POSITIONS[HALF:]]
    found = read_spectra(with_names(tmp_path, names), channels=["VIS_", "NIR_"])
    assert (found.unit, found.axis.tolist()) == ("channel", list(range(N)))


@pytest.mark.parametrize("pair", [("{}_R", "{}_T"), ("A{} (raw)", "A{} (snv)"), ("X{}", "X{}ref"), ("{}", "{}_sd")])
def test_groups_of_one_prefix_are_told_by_their_suffix(pair, tmp_path):
    names = [form.format(int(a)) for form in pair for a in POSITIONS]
    path = tmp_path / "a.csv"
    path.write_text(text([["id", *names], *([f"s{i}", *row, *row[::-1]] for i, row in enumerate(X.tolist()))]))
    message = message_of(path)
    words = re.findall(r"channels='(\w*)'", message)
    assert len(words) == 2
    for word, x in zip(words, (X, X[:, ::-1]), strict=True):
        found = read_spectra(path, channels=word)
        np.testing.assert_allclose(found.x, x, atol=1e-6)
        assert found.axis.tolist() == POSITIONS.astype(int).tolist()


def test_a_label_named_like_a_channel(tmp_path):
    rows = [[k % 5 + 0.5, *row] for k, row in enumerate(X.tolist())]
    path = written(tmp_path, text([[f"{POSITIONS[7]:g}", *(f"{a:g}" for a in POSITIONS)], *rows]))
    message = message_of(path)
    assert "columns 1 and 9: both are channel '414'" in message
    assert message.endswith("or if one is a label, say which with label='1'")
    np.testing.assert_allclose(read_spectra(path, label="1").x, X, atol=1e-6)


EVEN = [f"{1480 + 2 * j}" for j in range(N)]
TENTHS = [f"{1492 + j / 10:g}" for j in range(N)]


@pytest.mark.parametrize("prefix", ["", "X"])
@pytest.mark.parametrize(
    ("names", "mangled"),
    [
        ([*EVEN[:7], "1492.1", *EVEN[7:-1]], [9]),
        ([*EVEN[::-1][:9], "1502.1", *EVEN[::-1][9:-1]], [11]),
        ([*EVEN[:7], "1492.1", "1492.2", *EVEN[7:-2]], [9, 10]),
        ([name for even in EVEN[: N // 2] for name in (even, f"{even}.1")], range(3, N + 2, 2)),
    ],
    ids=["one", "descending", "three of one name", "all twice"],
)
def test_names_that_pandas_makes_of_two_that_are_alike(prefix, names, mangled, tmp_path):
    path = with_names(tmp_path, [prefix + name for name in names])
    first, drop = names[mangled[0] - 3], tuple(map(str, mangled))
    message = message_of(path)
    assert f"column {drop[0]}: '{prefix}{first}.1' beside '{prefix}{first}' is no step of the others" in message
    assert f"drop={drop[0]!r}" in message or f"drop={drop!r}" in message
    left = read_spectra(path, drop=drop)
    assert [f"{a:g}" for a in left.axis.tolist()] == [name for k, name in enumerate(names, 2) if k not in mangled]
    if float(names[0]) < float(names[-1]):
        assert read_spectra(path, channels=prefix or "all").x.shape == X.shape


@pytest.mark.parametrize("names", [TENTHS, [name for name in TENTHS if name != "1492.5"] + ["1494"]])
def test_tenths_beside_a_whole_position_are_positions(names, tmp_path):
    assert read_spectra(with_names(tmp_path, names)).axis.tolist() == [float(name) for name in names]


UNDERSCORED = [f"X{a:.1f}".replace(".", "_") for a in AXIS]


@pytest.mark.parametrize("prefix", ["X", "v", "", "nm_"])
@pytest.mark.parametrize("digits", [1, 2])
def test_an_underscore_for_the_decimal_point(prefix, digits, tmp_path):
    names = [f"{prefix}{a:.{digits}f}".replace(".", "_") for a in AXIS]
    found = read_spectra(with_names(tmp_path, names))
    np.testing.assert_array_equal(found.axis, AXIS)
    assert found.channel_names == tuple(names)
    assert f"{names[0]!r} as " in found.reading.lines()[1]


def test_an_underscore_that_is_no_decimal_point(tmp_path):
    mixed = [name.removesuffix("_0") for name in UNDERSCORED]
    assert "not named like them" in message_of(with_names(tmp_path, mixed))
    pairs = [f"x{101 + j // 5}_{j % 5}" for j in range(N)]
    assert "columns 'x101_' and as many 'x102_'" in message_of(with_names(tmp_path, pairs))
    assert read_spectra(with_names(tmp_path, UNDERSCORED), channels=UNDERSCORED[3:6]).axis.tolist() == [0, 1, 2]
