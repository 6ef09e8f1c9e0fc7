"""What ``import pyrovae`` loads: nothing heavy that is used only here and there."""

import subprocess
import sys

HEAVY = {"jinja2", "joblib", "matplotlib", "pandas", "pooch", "requests", "safetensors", "scipy", "sklearn", "tyro"}


def test_heavy_packages_are_loaded_where_they_are_used():
    code = "import sys, pyrovae; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "pyrovae" in loaded
    assert sorted(HEAVY.intersection(loaded)) == []
