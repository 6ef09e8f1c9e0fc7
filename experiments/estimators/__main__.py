"""Which ELBO estimator to optimise: values, gradient noise by part, seconds, and where training ends.

python -m experiments.estimators
"""

import torch

from experiments import page
from experiments.estimators.gradients import gradient_noise, linear_gaussian, networks, noise_pictures, noise_tables
from experiments.estimators.settings import Settings
from experiments.estimators.trainings import training_picture, training_table, trainings, which_one
from pyrovae.commands import console
from pyrovae.comparison.tables import markdown_table
from pyrovae.files import write_table
from pyrovae.plotting import write_figure


def main(settings: Settings) -> None:
    """Run the study; print its tables, write them and the pictures."""
    out = page.run_folder(settings.out, "estimators")
    torch.set_num_threads(1)
    studies = {
        "linear-Gaussian": (linear_gaussian(settings), settings.repeats),
        "figure-eight": (networks("figure-eight", settings), settings.repeats // 2),
        "digits": (networks("digits", settings), settings.repeats // 2),
    }
    conclusions = []
    for name, (cases, repeats) in studies.items():
        noise = gradient_noise(cases, 3 * settings.seeds, repeats, settings, f"{name}, gradients")
        write_table(out / f"{name}-gradients.csv", noise)
        pictures = {
            f"{name}: {kind}": write_figure(out / f"{name}-{kind}.png", picture)
            for kind, picture in noise_pictures(noise).items()
        }
        loss = "loss + log p(x)" if name == "linear-Gaussian" else "loss"
        text = "\n\n".join(f"**{where}**\n\n{markdown_table(t)}" for where, t in noise_tables(noise, loss).items())
        page.show("estimators", f"{name}, gradient noise", text, pictures, settings.publish)
        if name == "linear-Gaussian":
            continue
        runs = trainings(name, settings)
        write_table(out / f"{name}-trainings.csv", runs)
        pictures = {f"{name}: test log p(x)": write_figure(out / f"{name}-trainings.png", training_picture(runs))}
        conclusions.append(which_one(name, runs))
        text = f"{markdown_table(training_table(runs))}\n\n{conclusions[-1]}"
        page.show("estimators", f"{name}, trainings", text, pictures, settings.publish)
    criterion = (
        "A difference counts beyond a 95 % interval of Student's t, paired by seed, and beyond what more draws may add."
    )
    page.show("estimators", "Which one to use", "\n".join([*conclusions, "", criterion]), {}, settings.publish)
    print(f"results: {out}")


if __name__ == "__main__":
    console.run(main, Settings)
