"""Spectra: what a multivariate Normal is good for, posterior × likelihood beside linear baselines.

python -m experiments.spectra
python -m experiments.spectra --parts spectra --data FILE …
"""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from experiments import page
from experiments.spectra import questions, reading, recovery, study
from experiments.spectra.sets import spectra_sets
from experiments.spectra.settings import Settings
from pyrovae.commands import console
from pyrovae.comparison.tables import write_figure
from pyrovae.errors import InputError
from pyrovae.files import make_folder, write_table
from pyrovae.likelihoods import LIKELIHOODS
from pyrovae.posteriors import POSTERIORS

tell = partial(page.tell, "spectra")
Told = list[str]
"""What earlier parts measured that the answers repeat."""


def took(start: float, settings: Settings) -> str:
    """How long a part took."""
    return f"\n\nThis took {(time.perf_counter() - start) / 60:.1f} minutes on {settings.workers} worker(s)."


def run_spectra(settings: Settings, out: Path, told: Told) -> None:
    """Each set of spectra: table, pictures, reading."""
    for data in spectra_sets(settings):
        start = time.perf_counter()
        found = study.study(settings, data, out)
        text = (
            f"{data.about} d = {settings.latent_dim}, {settings.seeds} seed(s), at most {settings.epochs} epochs; "
            "log p(x) in nats per datum of the original units, by importance sampling with "
            f"{settings.samples} draws, a lower bound in expectation (bad k̂: share of test spectra for which it may be "
            f"far too low); RMSE and σ in the data's units; best epoch 0 is the start.\n\n{study.table(found)}\n\n"
            f"{reading.reading(data, found, settings)}"
        )
        title = f"Spectra: {data.name}"
        title += f", d = {settings.latent_dim}" if settings.latent_dim != Settings.latent_dim else ""
        tell(title, text + took(start, settings), found.pictures, settings.publish)
        told += [
            f"On {data.name}, {name} noise differs from the best independent noise ({reference}) by {gain:+.2f} ± "
            f"{error:.2f} nats."
            for name, reference, gain, error in reading.gains(found)
        ]


def run_recovery(settings: Settings, out: Path, told: Told) -> None:
    """Noise recovered, gain as implied."""
    start = time.perf_counter()
    tried, noise, gains = recovery.study(settings)
    write_table(out / "recovery-rates.csv", tried)
    write_table(out / "recovery-noise.csv", noise)
    write_table(out / "recovery-gain.csv", gains)
    write_figure(out / "recovery.png", recovery.picture(noise, gains))
    text = f"{recovery.table(tried, noise, gains)}\n\n{recovery.reading(tried, noise, gains)}"
    title = "The noise recovered, and what AR(1) noise gains"
    tell(title, text + took(start, settings), {title: out / "recovery.png"}, settings.publish)
    for d, group in gains.groupby("d"):
        told.append(
            f"With linear networks and {d} latent dimensions AR(1) noise gains {group['gain'].mean():.1f} nats."
        )


def run_questions(settings: Settings, out: Path, told: Told) -> None:
    """The answers."""
    start = time.perf_counter()
    answers = questions.study(settings)
    write_table(out / "diagonals.csv", answers.trainings)
    write_figure(out / "diagonals.png", questions.picture(answers))
    text = f"{questions.reading(answers, told)}\n\n{questions.table(answers)}"
    tell("Three questions", text + took(start, settings), {"Trainings broken": out / "diagonals.png"}, settings.publish)


PARTS: dict[str, Callable[[Settings, Path, Told], None]] = {
    "spectra": run_spectra,
    "recovery": run_recovery,
    "questions": run_questions,
}


def main(settings: Settings) -> None:
    """Run the parts; print their tables, write them and the pictures."""
    parts = console.pick("--parts", settings.parts, PARTS)
    console.pick("--posteriors", settings.posteriors, POSTERIORS)
    continuous = {name: make for name, make in LIKELIHOODS.items() if "bernoulli" not in name}
    console.pick("--likelihoods", settings.likelihoods, continuous)
    for option in (
        "latent_dim",
        "seeds",
        "epochs",
        "batch_size",
        "samples",
        "data_sets",
        "recovery_epochs",
        "trainings",
        "repeats",
        "workers",
    ):
        if getattr(settings, option) < 1:
            raise InputError(f"--{option.replace('_', '-')} must be at least 1, not {getattr(settings, option)}")
    for option in ("learning_rates", "recovery_rates"):
        if not getattr(settings, option):
            raise InputError(f"--{option.replace('_', '-')} needs at least one")
    if any(d < 1 for d in settings.linear_dims):
        raise InputError(f"--linear-dims must be at least 1, not {min(settings.linear_dims)}")
    out = page.new_folder(settings.out, "spectra")
    make_folder(out)
    torch.set_num_threads(1)
    told: Told = []
    for run in parts.values():
        run(settings, out, told)
    print(f"results: {out}")


if __name__ == "__main__":
    console.run(main, Settings)
