"""Files that are written whole or not at all, and the folders they are in."""

import json
import os
import stat
from pathlib import Path

import pandas as pd
import platformdirs
import pytest

from pyrovae.errors import InputError
from pyrovae.files import (
    cache_folder,
    locked_folder,
    remove_partial_files,
    write_bytes,
    write_json,
    write_table,
    write_text,
    write_together,
)


def test_one_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("PYROVAE_CACHE", str(tmp_path / "cache"))
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("PYROVAE_CACHE")
    assert cache_folder() == Path(platformdirs.user_cache_dir("pyrovae", appauthor=False))
    assert not (tmp_path / "cache").exists()  # it is named, not made


@pytest.mark.skipif(os.name != "posix", reason="no umask")
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_the_umask_of_the_process_applies_and_is_left_alone(tmp_path, monkeypatch, umask):
    before, set_umask = os.umask(umask), os.umask
    try:
        monkeypatch.setattr(os, "umask", lambda _: pytest.fail("the umask belongs to the caller"))
        write_text(tmp_path / "a.txt", "a")
    finally:
        set_umask(before)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o666 & ~umask


def test_all_files_are_written_or_none(tmp_path):
    write_bytes((tmp_path / "a", b"old"), (tmp_path / "b", b"old"))

    def broken(temporary):
        temporary.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left on device") as caught:
        write_together({tmp_path / "a": lambda temporary: temporary.write_bytes(b"new"), tmp_path / "b": broken})
    assert caught.value.filename == str(tmp_path / "b")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"old", "b": b"old"}


def test_what_is_written(tmp_path):
    write_json(tmp_path / "a.json", {"x": [1.5, float("nan"), (float("inf"), True)], 2: None})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": [1.5, None, [None, True]], "2": None}
    table = pd.DataFrame({"a": [1, 2], "b": ["x", "y"]})
    write_table(tmp_path / "a.csv", table)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "a.csv"), table)


def test_a_folder_is_locked_and_cleaned(tmp_path):
    (tmp_path / ".partial-a").write_text("of a run that was killed")
    with locked_folder(tmp_path):
        assert not (tmp_path / ".partial-a").exists()
        with (
            pytest.raises(InputError, match=r"another run is writing to .*; wait until it ends"),
            locked_folder(tmp_path),
        ):
            pass
    with locked_folder(tmp_path):  # free again
        pass
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write to the output folder"), locked_folder(tmp_path / "file" / "a"):
        pass


def test_partial_files_are_removed_and_nothing_else(tmp_path):
    for name in (".partial-model-1f", "model"):
        (tmp_path / name).write_text("x")
    remove_partial_files(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_folder_named_by_a_tilde_is_no_home(tmp_path, monkeypatch):
    """Pandas takes it for one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for folder in ("home", "~"):
        (tmp_path / folder).mkdir()
    write_table(Path("~/a.csv"), pd.DataFrame({"x": [1]}))
    assert (tmp_path / "~" / "a.csv").read_text() == "x\n1\n"
    assert list((tmp_path / "home").iterdir()) == []
