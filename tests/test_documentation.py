"""The code in README, CONTRIBUTING and the guides runs as it stands and prints what the page says."""

import itertools
import re
import sys
import types
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

import pyrovae as pv

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "docs/gallery"))
import make  # noqa: E402

SLOW_PAGES = {"compare", "first-steps", "scikit-learn"}
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs/guides").glob("*.md")),
]
BLOCK = re.compile(r"```(python|text)\n(.*?)```", re.DOTALL)
NUMBER = re.compile(r"[-+−]?\d+(?:[.,]\d+)*(?:e[-+]?\d+)?")


def code_of(page):
    """The page's Python in order, each block with the output that the page shows right after it (or None)."""
    found = list(BLOCK.finditer(page.read_text(encoding="utf-8")))
    for block, following in itertools.zip_longest(found, found[1:]):
        if block[1] == "python":
            adjacent = following is not None and following[1] == "text" and following.start() - block.end() < 4
            yield block[2], following[2] if adjacent else None


def assert_alike(printed, shown):
    """The same words; numbers within 5 % or 0.05, since rounding differs from machine to machine."""
    assert NUMBER.sub("#", printed).split() == NUMBER.sub("#", shown).split()
    for left, right in zip(NUMBER.findall(printed), NUMBER.findall(shown), strict=True):
        left, right = (float(text.replace(",", "").replace("−", "-")) for text in (left, right))
        assert left == pytest.approx(right, rel=0.05, abs=0.05)


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=page.stem, marks=[pytest.mark.slow] if page.stem in SLOW_PAGES else [])
        for page in PAGES
        if any(code_of(page))
    ],
)
def test_the_code_runs_and_prints_what_the_page_shows(page, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {}
    for number, (code, shown) in enumerate(code_of(page), start=1):
        capsys.readouterr()
        exec(compile(code, f"{page.name}, block {number}", "exec"), namespace)
        if shown is not None:
            assert_alike(capsys.readouterr().out, shown)


def test_outputs_are_found_and_compared():
    assert sum(shown is not None for _, shown in code_of(ROOT / "docs/first-steps.md")) >= 3
    assert_alike("ELBO -1.02, 2,000 steps\n", "ELBO -1.00, 2,000  steps")
    for other in ("ELBO -1.2, 2,000 steps", "loss -1.02, 2,000 steps", "ELBO -1.02, 2,000"):
        with pytest.raises(AssertionError):
            assert_alike("ELBO -1.02, 2,000 steps", other)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (page.parent / target).exists(), target


def test_every_public_name_is_in_the_reference():
    """The names of pyrovae and of its public packages; of a module without ``__all__``, those that its page chooses."""
    pages = (ROOT / "docs/api").glob("*.md")
    listed = {line.strip() for page in pages for line in page.read_text(encoding="utf-8").splitlines()}
    packages = [getattr(pv, name) for name in pv.__all__ if isinstance(getattr(pv, name), types.ModuleType)]
    named = {(name, package) for package in (pv, *packages) for name in getattr(package, "__all__", [])}
    public = {name for name, package in named if not isinstance(getattr(package, name), dict)}  # tables of names
    assert sorted(public - listed - {package.__name__.partition(".")[2] for package in packages}) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", make.EXAMPLES)
def test_an_example_of_the_gallery_prints_and_draws_what_is_shown(name, tmp_path):
    printed = make.run(name, tmp_path)
    assert_alike(printed, (make.GALLERY / f"{name}.txt").read_text(encoding="utf-8"))
    drawn, shown = (plt.imread(folder / f"{name}.png") for folder in (tmp_path, make.GALLERY))
    assert drawn.shape == shown.shape
    assert abs(drawn - shown).mean() < 0.02


def test_every_example_is_on_the_page():
    page = (make.GALLERY / "index.md").read_text(encoding="utf-8")
    assert all(f"({name}.png)" in page and f"{name}.py" in page for name in make.EXAMPLES)
