import runpy
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs ``python -m`` with these arguments in this process, with Python's own warning filters."""

    def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
        module, *options = map(str, arguments)
        capsys.readouterr()
        with monkeypatch.context() as patch, warnings.catch_warnings():
            patch.chdir(ROOT)
            patch.setattr(sys, "argv", [module, *options])
            warnings.simplefilter("default")
            for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
                warnings.simplefilter("ignore", category)
            warnings.filterwarnings("ignore", "'.*' found in sys.modules", RuntimeWarning)  # it may be imported already
            try:
                runpy.run_module(module, run_name="__main__", alter_sys=True)
                status = 0
            except SystemExit as stop:
                status = int(stop.code or 0)
        return subprocess.CompletedProcess([module, *options], status, *capsys.readouterr())

    return run
