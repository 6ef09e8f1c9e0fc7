"""Run the examples anew: python docs/gallery/make.py [name ...] writes what each prints and draws beside it."""

import os
import subprocess
import sys
from pathlib import Path

GALLERY = Path(__file__).parent
EXAMPLES = sorted(path.stem for path in GALLERY.glob("*.py") if path.stem != "make")


def run(name: str, folder: Path) -> str:
    """Run an example in a folder, where it leaves its picture; return what it prints."""
    environment = os.environ | {"MPLBACKEND": "agg", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(GALLERY / f"{name}.py")]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{name} failed:\n{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    for name in sys.argv[1:] or EXAMPLES:
        print(name, flush=True)
        (GALLERY / f"{name}.txt").write_text(run(name, GALLERY), encoding="utf-8")
