"""Files that are written whole or not at all, and the folders they are in."""

import os
import stat
from pathlib import Path

import platformdirs
import pytest

from pyrovae.errors import InputError
from pyrovae.files import cache_folder, make_private_folder


def test_one_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("PYROVAE_CACHE", str(tmp_path / "cache"))
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("PYROVAE_CACHE")
    assert cache_folder() == Path(platformdirs.user_cache_dir("pyrovae", appauthor=False))
    assert not (tmp_path / "cache").exists()  # it is named, not made


def test_a_folder_of_code_is_the_users_own(tmp_path):
    folder = make_private_folder(tmp_path / "a" / "cache")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert make_private_folder(folder) == folder
    folder.chmod(0o777)
    with pytest.raises(InputError, match=r"every user may write to the cache folder .*; name another in PYROVAE_CACHE"):
        make_private_folder(folder)


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="no users")
def test_a_folder_of_another_user_is_refused(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    folder.mkdir()
    if os.getuid() == 0:
        os.chown(folder, 12345, -1)
    else:
        monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(InputError, match=r"cache belongs to another user; name another in PYROVAE_CACHE"):
        make_private_folder(folder)
