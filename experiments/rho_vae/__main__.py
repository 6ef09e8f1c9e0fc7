"""The ρ-VAE, tested: every Gaussian posterior family in its paper's set-up, and its released code audited.

python -m experiments.rho_vae
python -m experiments.rho_vae --dataset fashion-mnist --latent-dim 5 --epochs 15 --seeds 3 --audit
"""

import time

import torch

from experiments import page
from experiments.rho_vae import audit, pictures, study
from experiments.rho_vae.settings import Settings
from experiments.rho_vae.training import images
from pyrovae.commands import console
from pyrovae.files import write_table
from pyrovae.plotting import write_figure


def main(settings: Settings) -> None:
    """Train, evaluate and audit; print the tables, write them and the pictures."""
    data = images(settings.dataset, settings.pixels)  # first, so that a missing or damaged file is an error at once
    out = page.run_folder(settings.out, f"rho-vae-{settings.dataset}")
    torch.set_num_threads(1)
    start = time.perf_counter()
    title = f"{settings.dataset}, {settings.variant}, {settings.pixels}, d = {', '.join(map(str, settings.dims))}"
    runs = study.study(settings, out)
    write_table(out / "runs.csv", runs)
    num_train, num_test = len(data.train[: settings.num_train]), len(data.test[: settings.num_test])
    rates = ", ".join(f"{rate:g}" for rate in settings.learning_rates)
    if len(settings.learning_rates) > 1:
        rates = f"the best of {rates} by validation at the first seed"
    text = (
        f"{num_train} training images, {len(data.validation)} validation images, {num_test} test images; at most "
        f"{settings.num_epochs} epochs, batch {settings.batch_size}, {settings.schedule} learning rate, {rates}; "
        f"{settings.seeds} seed(s), ± standard errors over them. Losses in nats per datum; importance sampling with "
        f"{settings.samples} draws (bad k̂: share of images for which it may be far off)."
    )
    if not study.is_density(settings):
        text += " Grey pixels under a Bernoulli have no density: all numbers are of the cross-entropy, none of p(x)."
    text += f"\n\n{study.table(settings, runs)}\n\n{study.reading(settings, runs)}"
    families = write_figure(out / "families.png", study.picture(settings, runs))
    figures = {"Test −ELBO of each family": families} | pictures.write(settings, out, runs)
    text += f"\n\n{page.took(start, settings.workers)}"
    page.show("rho_vae", title, text, figures, settings.publish)
    if settings.audit:
        audits = audit.study(settings)
        write_table(out / "audit.csv", audits)
        text = f"{audit.table(settings, audits, runs)}\n\n{audit.reading(audits, runs)}"
        page.show("rho_vae", f"The released code audited: {title}", text, {}, settings.publish)
    print(f"results: {out}")


if __name__ == "__main__":
    console.run(main, Settings)
