"""What a start loads: ``import pyrovae`` nothing heavy, and its names nothing that is used only here and there."""

import subprocess
import sys

HEAVY = {"jinja2", "matplotlib", "pandas", "pooch", "requests", "safetensors", "scipy", "sklearn", "tyro"}


def loaded_by(code):
    code += "; import sys; print(*{name.partition('.')[0] for name in sys.modules})"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_the_first_line_is_said_before_the_imports_that_take_seconds():
    loaded = loaded_by("import pyrovae.__main__")
    assert "pyrovae" in loaded
    assert not loaded & {*HEAVY, "numpy", "pyro", "torch"}


def test_heavy_packages_are_loaded_where_they_are_used():
    names = "[getattr(pyrovae, name) for name in pyrovae.__all__ if not name.endswith(('Transformer', 'Regressor'))]"
    loaded = loaded_by(f"import pyrovae; {names}")
    assert {"pyro", "torch"} <= loaded
    assert sorted(HEAVY & loaded) == []
