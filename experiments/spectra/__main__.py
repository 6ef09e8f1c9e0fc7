"""Spectra: what a multivariate Normal is good for, posterior × likelihood beside linear baselines.

python -m experiments.spectra
python -m experiments.spectra --parts spectra --data FILE …
"""

import time
from collections.abc import Callable
from pathlib import Path

import torch

from experiments import page
from experiments.spectra import questions, reading, recovery, study
from experiments.spectra.sets import spectra_sets
from experiments.spectra.settings import Settings
from pyrovae.commands import console
from pyrovae.files import write_table
from pyrovae.plotting import write_figure

Gains = list[str]
"""What correlated noise gained, in sentences, for the answers to repeat."""


def show(start: float, settings: Settings, title: str, text: str, pictures: dict[str, Path]) -> None:
    """Print and publish a part's section, with the time it took."""
    text += f"\n\n{page.took(start, settings.workers)}"
    page.show("spectra", title, text, pictures, settings.publish)


def run_spectra(settings: Settings, out: Path, gains_so_far: Gains) -> None:
    """Each set of spectra: table, pictures, reading."""
    for data in spectra_sets(settings):
        start = time.perf_counter()
        found = study.study(settings, data, out)
        text = (
            f"{data.about} d = {settings.latent_dim}, {settings.seeds} seed(s), at most {settings.epochs} epochs; "
            "log p(x) of test spectra in nats per datum of the original units, as pv.log_marginal finds it, from "
            f"{settings.samples} draws a spectrum (untrusted: spectra for which it may be far off, over all seeds; "
            "lost by the encoder: log p(x) less the encoder's ELBO; validation: the refined ELBO that chose epochs and "
            "rates); RMSE and σ in the data's units; best epoch 0 is the start."
            f"\n\n{study.table(found)}\n\n"
            f"{reading.reading(data, found, settings)}"
        )
        title = f"Spectra: {data.name}"
        title += f", d = {settings.latent_dim}" if settings.latent_dim != Settings.latent_dim else ""
        show(start, settings, title, text, found.pictures)
        gains_so_far += [
            f"On {data.name}, {name} noise gains {reading.say(gain)} over the best independent noise ({reference})."
            for name, reference, gain in reading.gains(found)
        ]


def run_recovery(settings: Settings, out: Path, gains_so_far: Gains) -> None:
    """Noise recovered, gain as implied."""
    start = time.perf_counter()
    tried, noise, gains = recovery.study(settings)
    write_table(out / "recovery-rates.csv", tried)
    write_table(out / "recovery-noise.csv", noise)
    write_table(out / "recovery-gain.csv", gains)
    text = f"{recovery.table(tried, noise, gains)}\n\n{recovery.reading(tried, noise, gains)}"
    title = "The noise recovered, and what AR(1) noise gains"
    show(start, settings, title, text, {title: write_figure(out / "recovery.png", recovery.picture(noise, gains))})
    for d, group in gains.groupby("d"):
        gains_so_far.append(
            f"With linear networks and {d} latent dimensions AR(1) noise gains {group['gain'].mean():.1f} nats."
        )


def run_questions(settings: Settings, out: Path, gains_so_far: Gains) -> None:
    """The answers."""
    start = time.perf_counter()
    answers = questions.study(settings)
    write_table(out / "diagonals.csv", answers.trainings)
    pictures = {"Trainings that diverged": write_figure(out / "diagonals.png", questions.picture(answers))}
    text = f"{questions.reading(answers, gains_so_far)}\n\n{questions.table(answers)}"
    show(start, settings, "Three questions", text, pictures)


RUNS: dict[str, Callable[[Settings, Path, Gains], None]] = {
    "spectra": run_spectra,
    "recovery": run_recovery,
    "questions": run_questions,
}


def main(settings: Settings) -> None:
    """Run the parts; print their tables, write them and the pictures."""
    out = page.run_folder(settings.out, "spectra", settings.resume)
    torch.set_num_threads(1)
    gains_so_far: Gains = []
    for name in settings.parts:
        RUNS[name](settings, out, gains_so_far)
    print(f"results: {out}")


if __name__ == "__main__":
    console.run(main, Settings)
