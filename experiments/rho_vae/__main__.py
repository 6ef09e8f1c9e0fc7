"""The ρ-VAE put to the test: every Gaussian posterior family in its paper's set-up, and its released code audited.

python -m experiments.rho_vae
python -m experiments.rho_vae --dataset fashion-mnist --latent-dim 5 --epochs 15 --seeds 3 --audit
"""

import math
import time
from functools import partial

import torch

from experiments import page
from experiments.rho_vae import audit, pictures, study
from experiments.rho_vae.settings import Settings
from experiments.rho_vae.training import PIXELS, images
from pyrovae.commands import console
from pyrovae.comparison.tables import write_figure
from pyrovae.datasets.images import IMAGES
from pyrovae.errors import InputError
from pyrovae.files import make_folder, write_table
from pyrovae.posteriors import POSTERIORS
from pyrovae.training import ENGINES, check_learning_rate
from pyrovae.training.schedules import SCHEDULES

VARIANTS = dict.fromkeys(("vanilla", "convolutional", "beta", "info"))
tell = partial(page.tell, "rho_vae")


def check(settings: Settings) -> None:
    """Raise an InputError for what cannot be run, before anything is trained or written."""
    console.pick("--dataset", [settings.dataset], IMAGES)
    console.pick(
        "--posteriors", settings.posteriors, {name: make for name, make in POSTERIORS.items() if name != "flow"}
    )
    console.pick("--variant", [settings.variant], VARIANTS)
    console.pick("--pixels", [settings.pixels], PIXELS)
    console.pick("--schedule", [settings.schedule], SCHEDULES)
    console.pick("--engine", [settings.engine], dict.fromkeys(ENGINES))
    for option in ("seeds", "num_epochs", "batch_size", "samples", "num_train", "num_test", "workers"):
        value = getattr(settings, option)
        least = 2 if option in ("num_train", "num_test", "batch_size") else 1
        if value is not None and value < least:
            name = option.removeprefix("num_") if option == "num_epochs" else option.replace("_", "-")
            raise InputError(f"--{name} must be at least {least}, not {value}")
    for option in ("dims", "hidden", "channels", "posteriors", "learning_rates", "betas"):
        values = getattr(settings, option)
        name = "latent-dim" if option == "dims" else option.replace("_", "-")
        if not values or (len(set(values)) < len(values) and option not in ("hidden", "channels")):
            raise InputError(f"--{name} needs at least one, and none twice, not {values}")
        if option in ("dims", "hidden", "channels") and min(values) < 1:
            raise InputError(f"--{name} must be positive, not {values}")
    for rate in settings.learning_rates:
        check_learning_rate(rate)
    if not all(0 <= beta < math.inf for beta in settings.betas):
        raise InputError(f"--betas must be finite numbers ≥ 0, not {settings.betas}")
    if not settings.info_alpha <= 1 or not 1 <= settings.info_alpha + settings.info_lambda < math.inf:
        raise InputError("--info-alpha must be at most 1, and --info-alpha plus --info-lambda at least 1")
    if settings.audit and settings.pixels == "continuous-bernoulli":
        raise InputError("--audit is of a cross-entropy; use --pixels soft-targets or binarised")
    if settings.device != "cpu" and settings.workers > 1:
        raise InputError("processes would share the device; give --workers 1")
    try:
        torch.zeros(1, device=settings.device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {settings.device} cannot be used: {str(error).splitlines()[0]}") from None


def main(settings: Settings) -> None:
    """Train, evaluate and audit; print the tables, write them and the pictures."""
    check(settings)
    data = images(settings.dataset, settings.pixels)  # a file that is missing or damaged is found at once
    out = page.new_folder(settings.out, f"rho-vae-{settings.dataset}")
    make_folder(out)
    torch.set_num_threads(1)
    start = time.perf_counter()
    title = f"{settings.dataset}, {settings.variant}, {settings.pixels}, d = {', '.join(map(str, settings.dims))}"
    runs = study.study(settings, out)
    write_table(out / "runs.csv", runs)
    write_figure(out / "families.png", study.picture(settings, runs))
    num_train, num_test = len(data.train[: settings.num_train]), len(data.test[: settings.num_test])
    rates = ", ".join(f"{rate:g}" for rate in settings.learning_rates)
    if len(settings.learning_rates) > 1:
        rates = f"the best of {rates} by validation at the first seed"
    text = (
        f"{num_train} training images, {len(data.validation)} that validate, {num_test} test images; at most "
        f"{settings.num_epochs} epochs, batch {settings.batch_size}, {settings.schedule} learning rate, {rates}; "
        f"{settings.seeds} seed(s), ± standard errors over them. Losses in nats per datum; importance sampling with "
        f"{settings.samples} draws (bad k̂: share of images for which it may be far off)."
    )
    if not study.is_density(settings):
        text += " Grey pixels under a Bernoulli have no density: all numbers are of the cross-entropy, none of p(x)."
    text += f"\n\n{study.table(settings, runs)}\n\n{study.reading(settings, runs)}"
    figures = {"Test −ELBO of each family": out / "families.png"} | pictures.write(settings, out, runs)
    text += f"\n\nThis took {(time.perf_counter() - start) / 60:.1f} minutes on {settings.workers} worker(s)."
    tell(title, text, figures, settings.publish)
    if settings.audit:
        audits = audit.study(settings)
        write_table(out / "audit.csv", audits)
        text = f"{audit.table(settings, audits, runs)}\n\n{audit.reading(audits, runs)}"
        tell(f"The released code audited: {title}", text, {}, settings.publish)
    print(f"results: {out}")


if __name__ == "__main__":
    console.run(main, Settings)
