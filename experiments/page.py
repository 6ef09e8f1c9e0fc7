"""A study's page, experiments/results/<study>.md: one section for each command that made numbers for it."""

import re
import shlex
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from pyrovae.errors import InputError
from pyrovae.files import make_folder

RESULTS = Path(__file__).parent / "results"


def command(study: str) -> str:
    """The command line of this run, without the options that only say where its results go."""
    arguments = [a for a in sys.argv[1:] if a not in ("--publish", "--resume")]
    if "--out" in arguments:
        at = arguments.index("--out")
        del arguments[at : at + 2]
    return shlex.join(["python", "-m", f"experiments.{study}", *arguments])


def publish(study: str, section: str, text: str, pictures: Mapping[str, Path], results: Path = RESULTS) -> Path:
    """Write or replace a section of the study's page, and copy its pictures beside the page.

    What stands before the first section, an introduction, and all other sections stay as they are.

    Args:
        study: the script's name; it names the page.
        section: the section's heading.
        text: its text, in Markdown.
        pictures: files by caption.
        results: the folder of all pages.
    """
    results.mkdir(exist_ok=True)
    stem = study.replace(".", "-").replace("_", "-")
    page = results / f"{stem}.md"
    lines = [f"## {section}", "", f"`{command(study)}`", "", text.strip(), ""]
    for caption, source in pictures.items():
        target = results / stem / f"{_slug(section)}-{source.name}"
        target.parent.mkdir(exist_ok=True)
        with Image.open(source) as picture:  # 256 colours: a third of the bytes
            picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(target, optimize=True)
        lines += [f"![{caption}]({stem}/{target.name})", ""]
    sections = re.split(r"(?m)^(?=## )", page.read_text(encoding="utf-8")) if page.exists() else [f"# {study}\n\n"]
    body = "\n".join(lines) + "\n"
    replaced = [body if s.startswith(f"## {section}\n") else s for s in sections]
    page.write_text("".join(replaced if body in replaced else [*sections, body]), encoding="utf-8")
    return page


def show(study: str, section: str, text: str, pictures: Mapping[str, Path], to_page: bool) -> None:
    """Print a section, and publish it if asked to."""
    print(f"## {section}\n\n{text}\n")
    if to_page:
        publish(study, section, text, pictures)


def run_folder(out: Path | None, study: str, resumable: bool = False) -> Path:
    """The folder for a run's results, made and named on standard output: ``out``, or a new one under runs/.

    It is new or empty unless ``resumable``.

    Raises:
        InputError: it holds files.
    """
    out = out or Path("runs") / f"{study}-{time.strftime('%Y%m%d-%H%M%S')}"
    if not resumable and out.exists() and any(out.iterdir() if out.is_dir() else [out]):
        raise InputError(f"--out {out} already holds files; give a new or an empty folder")
    folder = make_folder(out)
    print(f"{study}: results go to {folder}", flush=True)
    return folder


def took(start: float, workers: int) -> str:
    """How long it took since ``start``, a time of :func:`time.perf_counter`."""
    return f"This took {(time.perf_counter() - start) / 60:.1f} minutes on {workers} worker(s)."


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
