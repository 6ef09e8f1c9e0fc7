"""The layout, as far as ``lint-imports`` does not check it: private modules, tests that mirror modules, types."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
SUBJECTS = ("layout", "mutations", "documentation", "start", "large_files")
"""Tests of the repository as a whole, which mirror no module."""

TABLES = ("pyrovae.commands", "pyrovae.datasets.readers", "pyrovae.training.engines")
"""Packages of which each file is a row of a table: subcommands, formats, engines."""


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(path): path for folder in ("pyrovae", "experiments") for path in ROOT.glob(f"{folder}/**/*.py")}
MODULES = {name for name, path in FILES.items() if name.startswith("pyrovae.") and path.name != "__init__.py"}


def imports(path: Path) -> Iterator[str]:
    """Every module of the project that a file imports anything of."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: a relative import"
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        yield from (name for name in names if name in FILES)


def test_a_module_of_its_own_package_alone_is_private():
    hidden, imported = [], {name: set(imports(path)) for name, path in FILES.items()}
    for module in MODULES:
        package, _, name = module.rpartition(".")
        if name.startswith("_") or package in ("pyrovae", *TABLES):
            continue
        importers = {importer for importer, found in imported.items() if module in found}
        if not any(importer == package or not importer.startswith(f"{package}.") for importer in importers):
            hidden.append(module)
    assert sorted(hidden) == []


def test_tests_mirror_modules():
    """``tests/a/test_b.py`` is of ``pyrovae/a/b.py``, ``pyrovae/a/_b.py`` or the package ``pyrovae/a/b``."""
    lost = []
    for path in (ROOT / "tests").glob("**/test_*.py"):
        *folders, file = path.relative_to(ROOT / "tests").with_suffix("").parts
        name = file.removeprefix("test_")
        if folders == ["reliability"] or (not folders and name in SUBJECTS):
            continue
        package = ".".join(folders if folders[:1] == ["experiments"] else ["pyrovae", *folders])
        if not {f"{package}.{name}", f"{package}._{name}"} & FILES.keys() and name != folders[-1]:
            lost.append(str(path.relative_to(ROOT)))
    assert sorted(lost) == []


def test_little_is_untyped():
    """Fewer than 60 uses of ``Any``."""
    uses = {
        name: sum(isinstance(node, ast.Name) and node.id == "Any" for node in ast.walk(ast.parse(path.read_text())))
        for name, path in FILES.items()
        if name.startswith("pyrovae")
    }
    assert sum(uses.values()) < 60, {name: n for name, n in uses.items() if n}
