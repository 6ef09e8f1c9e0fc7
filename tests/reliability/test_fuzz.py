"""Changed files of data whose right outcome is known from how they were made: the exact array, or where it is wrong.

python -m pytest -n0 -s tests/reliability/test_fuzz.py    (PYROVAE_FUZZ: number of files, of a fixed seed)
"""

import io
import os
from collections import Counter

import numpy as np
import pytest

import pyrovae as pv
from pyrovae.commands.main import main
from pyrovae.datasets import read_spectra
from tests.reliability.combined_tables import combined
from tests.reliability.mutations import MUTATIONS, Case, make
from tests.reliability.tables import TABLES
from tests.reliability.untidy_tables import UNTIDY

NUM = int(os.environ.get("PYROVAE_FUZZ", "400"))
"""Of each kind of test; 2000 for a thorough one."""


def saved(values, **arrays):
    """Bytes of an ``.npy`` file, or of an ``.npz`` file with other arrays."""
    buffer = io.BytesIO()
    if arrays:
        np.savez(buffer, x=values, **arrays)
    else:
        np.save(buffer, values, allow_pickle=True)
    return buffer.getvalue()


def arrays(rng):
    """Files in numpy's formats."""
    values = rng.normal(size=(9, 4))
    axis = np.arange(900, 904) + rng.random()
    for dtype in ("<f4", ">f8", "f2", "i4", ">u2", "i1"):
        own = (values * 20).astype(dtype) if "f" in dtype else rng.integers(0, 100, (9, 4)).astype(dtype)
        yield Case(f"npy {dtype}", saved(own), own.astype(float), suffix=".npy")
        yield Case(f"npy {dtype}, by columns", saved(np.asfortranarray(own)), own.astype(float), suffix=".npy")
    i, j = int(rng.integers(9)), int(rng.integers(4))
    for value, word in ((np.nan, "missing"), (np.inf, "infinite")):
        bad = values.copy()
        bad[i, j] = value
        yield Case(word, saved(bad), says=(f"row {i + 1}, column {j + 1}:", word), suffix=".npy")
    labels = np.array([f"s{i}" for i in range(9)])
    yield Case("labels", saved(values, axis=axis, label=labels), values, axis=axis.tolist(), suffix=".npz")
    yield Case("pickles", saved(values, label=labels.astype(object)), says=("(label)", "pickled"), suffix=".npz")
    for name, wrong, word in (
        ("nan", np.where(np.arange(4) == 2, np.nan, axis), "position 3, nan"),
        ("twice", axis[[0, 1, 1, 3]], "position 3"),
        ("order", axis[[1, 2, 0, 3]], "position 3"),
        ("length", axis[:3], "positions of 4 channels"),
        ("text", axis.astype(str), "positions of 4 channels"),
    ):
        yield Case(f"axis, {name}", saved(values, axis=wrong), says=("(axis)", word), suffix=".npz")
    for dtype in ("complex64", "U3", "datetime64[s]", "bool", "V4"):
        yield Case(dtype, saved(np.zeros((9, 4), dtype)), says=("not numbers",), suffix=".npy")
    for shape in ((4,), (2, 3, 4), (), (0, 4), (4, 0)):
        yield Case(
            f"shape {shape}", saved(np.ones(shape)), says=("spectr" if shape == (4,) else "(samples",), suffix=".npy"
        )
    whole = saved(values)
    for _ in range(10):
        k = int(rng.integers(10, len(whole)))
        yield Case("torn", whole[:k], says=("damaged",), suffix=".npy")
        yield Case("torn", saved(values, axis=axis)[:k], says=("damaged",), suffix=".npz")


def check(case, folder):
    """Read a file and hold what comes of it against what must."""
    path = folder / f"{case.name.split()[0].strip(',')}{case.suffix}"
    path.write_bytes(case.content)
    if case.expected is None:
        with pytest.raises(ValueError) as caught:  # noqa: PT011  the words are looked for below
            read_spectra(path, **case.options)
        message = str(caught.value)
        assert message.startswith(str(path)), message
        assert "\n" not in message
        assert len(message) < len(str(path)) + 400
        for words in case.says:
            assert words in message, (case.name, case.says, message)
        return
    spectra = read_spectra(path, **case.options)
    np.testing.assert_array_equal(spectra.x.numpy(), case.expected.astype(np.float32), err_msg=case.name)
    if case.axis is not None:
        assert spectra.axis.tolist() == case.axis
    if (
        case.suffix == ".csv" and "fat" in spectra.targets and case.name != "latin-1"
    ):  # a number, whatever the decimal sign
        fat = spectra.targets["fat"].to_numpy()
        np.testing.assert_array_equal(fat[~np.isnan(fat)], (np.arange(len(fat)) + 0.5)[~np.isnan(fat)])


@pytest.mark.filterwarnings("ignore:.*more channels")
def test_changed_files(tmp_path):
    rng, kinds = np.random.default_rng(8), Counter()
    cases = list(arrays(rng))
    while len(cases) < NUM:
        cases.append(MUTATIONS[len(cases) % len(MUTATIONS)](make(rng), rng))
    for k, case in enumerate(cases):
        try:
            check(case, tmp_path)
        except Exception as error:
            raise AssertionError(f"file {k}, {case.name}: {type(error).__name__}: {error}") from error
        kinds["an array" if case.says == () else "an error"] += 1
    assert min(kinds["an array"], kinds["an error"]) > NUM / 10
    print(f"\n{len(cases)} files: {kinds['an array']} with their exact array, {kinds['an error']} with a right error")


def check_table(case, folder):
    """Read a table: to the array that it holds, or refused in a line, never to another array."""
    path = folder / f"table{case.suffix}"
    path.write_bytes(case.content)
    try:
        found = read_spectra(path, **case.options)
    except pv.InputError as error:
        message = str(error)
        assert not case.is_clear, message
        assert message.startswith(str(path)), message
        assert "\n" not in message
        assert not case.says or any(words in message for words in case.says), message
        return "refused"
    assert not case.says, f"read {tuple(found.x.shape)} in silence"
    np.testing.assert_array_equal(found.x.numpy(), case.truth.x.astype(np.float32))
    if case.truth.axis is not None:
        np.testing.assert_allclose(found.axis.numpy(), case.truth.axis)
    assert found.reading.num == len(case.truth.x)
    return "read"


@pytest.mark.filterwarnings("ignore::pyrovae.errors.InputWarning", "ignore:.*more channels")
def test_tables_of_chance(tmp_path):
    rng, outcomes = np.random.default_rng(10), Counter()
    kinds = (*TABLES, *UNTIDY, *[combined] * 8)
    for k in range(NUM):
        case = kinds[k % len(kinds)](rng)
        try:
            outcomes[check_table(case, tmp_path)] += 1
        except Exception as error:
            raise AssertionError(f"table {k}, {case.name}: {type(error).__name__}: {error}") from error
    assert min(outcomes["read"], outcomes["refused"]) > NUM / 10
    print(f"\n{NUM} tables: {dict(outcomes)}")


@pytest.mark.filterwarnings("ignore:.*more channels")
def test_changed_files_through_the_command(tmp_path, capsys):
    rng = np.random.default_rng(9)
    cases = [mutate(make(rng), rng) for mutate in MUTATIONS for _ in range(8)]
    cases = [case for case in cases if case.says and not case.options]
    for case in cases:
        path = tmp_path / "data.csv"
        path.write_bytes(case.content)
        with pytest.raises(SystemExit) as stop:
            main(["fit", str(path), "--out", str(tmp_path / "run")])
        said, errors = capsys.readouterr()
        assert (stop.value.code, said) == (2, "")
        assert errors.startswith(f"error: {path}")
        assert errors.count("\n") == 1
    assert len(cases) > 30
    assert [path.name for path in tmp_path.iterdir()] == ["data.csv"]
