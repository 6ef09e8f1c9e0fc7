"""Train one model on a file of data, evaluate it, and keep it in a folder; an interrupted training resumes there."""

import copy
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from torch import Tensor

from pyrovae.comparison._data import warn_of_counts
from pyrovae.comparison._linear import best_latent_dim
from pyrovae.comparison._pairs import at_mean_of, can_start_as_linear, new_pair
from pyrovae.comparison._runs import callers_state_left_alone
from pyrovae.comparison.notes import notes_of_copies
from pyrovae.comparison.settings import ModelSettings, judged_by_model
from pyrovae.comparison.study import Project, at_scale_of_data, begun_in, check_same
from pyrovae.datasets import ChannelAxis, Preprocessing, Spectra, TrainingRows
from pyrovae.elbo import ESTIMATORS
from pyrovae.evaluation import RefinedELBO, refit_encoder
from pyrovae.files import check_free, locked_folder, versions, write_json, write_table
from pyrovae.fitted import VAE
from pyrovae.io import save
from pyrovae.likelihoods import LIKELIHOODS
from pyrovae.linear_gaussian.warm_start import linear_models
from pyrovae.posteriors import POSTERIORS
from pyrovae.trained_model import TrainedModel, summary_of
from pyrovae.training import Checkpoints, Trainer, TrainingSettings, processes
from pyrovae.vae import AmortizedGuide, GenerativeModel

_RESULTS = "history.csv", "metrics.json", "model.safetensors", "model.json", "channels.json", "training-rows.npy"


def fit_file(
    project: Project,
    out: str | Path,
    *,
    checkpoint_seconds: float = 30.0,
    progress: bool = True,
    on_read: Callable[[Spectra], object] | None = None,
) -> dict[str, object]:
    """Train the model on 70 % of the data, keep the best epoch by 15 %, evaluate it on the rest, and write all of it.

    ``out`` gets ``config.json``, ``checkpoints/``, ``history.csv``, ``metrics.json``, ``model.safetensors`` with
    ``model.json``, and ``channels.json``, the channels' names and positions. The same call resumes an interrupted one,
    see :func:`pyrovae.fit`.

    Args:
        project: the model, its training and its data.
        out: a folder that is new, or of the same project.
        checkpoint_seconds: seconds between two checkpoints.
        progress: whether to show progress bars (on a terminal).
        on_read: called with the data as soon as they are read.

    Returns:
        The metrics, in nats per datum of the original data; nothing in processes of ``torchrun`` after the first.

    Raises:
        InputError: data or settings are invalid, or the folder is in use or of another project.
    """
    folder = Path(out)
    processes.join()
    with callers_state_left_alone():
        data = project.read()
        if on_read is not None:
            on_read(data)
        warn_of_counts(data, {project.model.likelihood: LIKELIHOODS[project.model.likelihood]})
        split = project.split(data, project.training.seed)
        train, validation, test = (part.x for part in split.parts)
        model, guide, step = new_model(project.model, train, validation, seed=project.training.seed)
        trained = TrainedModel(VAE(model, guide), step)
        train_x, validation_x = trained.prepare(train), trained.prepare(validation)  # before anything is written
        is_first = processes.rank() == 0
        with locked_folder(folder) if is_first else nullcontext():
            training = _claim(folder, project)
            with Checkpoints(folder / "checkpoints", checkpoint_seconds) as checkpoints:
                trainer = Trainer(
                    [(model, guide)],
                    train_x,
                    ESTIMATORS[project.model.estimator](),
                    training,
                    validation=validation_x,
                    progress=progress,
                    checkpoints=checkpoints,
                )
                trainer.run()
            (history,) = trainer.histories
            gain: dict[str, object] = {}
            if project.model.refit_epochs:
                better = refit_encoder(
                    model,
                    guide,
                    train_x,
                    validation=validation_x,
                    checkpoint=folder / "checkpoints" / "encoder",
                    epochs=project.model.refit_epochs,
                    seed=project.training.seed,
                    engine=project.training.engine,
                    progress=progress,
                )
                guide.load_state_dict(better.guide.state_dict())
                gain = {"encoder_gain": better.gain.mean}
            if not is_first:
                return {}
            found = summary_of(trained.scores(test[: project.max_test], progress=progress))
            metrics = {
                "dataset": data.name,
                "posterior": project.model.posterior,
                "likelihood": project.model.likelihood,
                "latent_dim": model.latent_dim,
                "estimator": project.model.estimator,
                "seed": project.training.seed,
                "epochs": project.training.epochs,
                "num_train": len(train),
                "num_test": min(len(test), project.max_test),
                "test_neg_elbo": -found["elbo"],
                "test_kl": found["kl"],
                "test_log_marginal": found["log_prob"],
                "test_log_marginal_stderr": found["log_prob_stderr"],
                "notes": [note.to_dict() for note in notes_of_copies(split)],
                "best_epoch": history.best_epoch,
                **gain,
                "steps": history.steps,
                "seconds": history.seconds,
                "engine": history.engine,
            }
            write_table(folder / "history.csv", history.to_frame())
            ChannelAxis.of(data).write(folder)
            TrainingRows.of(train).write(folder)
            save(folder / "model.safetensors", model, guide, preprocessing=step)
            write_json(folder / "metrics.json", metrics)
    return metrics


def new_model(
    settings: ModelSettings, train: Tensor, validation: Tensor, *, seed: int
) -> tuple[GenerativeModel, AmortizedGuide, Preprocessing | None]:
    """A new model of training data (num, n) in their own units, its guide, and the preprocessing."""
    step = copy.deepcopy(settings.preprocessing_step)
    if step is not None:
        train, validation = step.fit(train).transform(train), step.transform(validation)
    return *make_pair(settings, train, validation, seed=seed), step


def make_pair(
    settings: ModelSettings, data: Tensor, validation: Tensor | None = None, *, seed: int = 0
) -> tuple[GenerativeModel, AmortizedGuide]:
    """A new model of preprocessed training data (num, n) and its guide, initialised with the seed."""
    n, posterior = data.shape[1], POSTERIORS[settings.posterior]
    likelihood = at_mean_of(at_scale_of_data(LIKELIHOODS[settings.likelihood]), data)
    d = best_latent_dim([likelihood], data, validation) if settings.latent_dim == "auto" else settings.latent_dim
    is_linear = settings.start == "linear"
    if settings.start == "auto":
        is_linear = d < n and can_start_as_linear([posterior], [likelihood], settings)
    linear = None
    if is_linear:
        models = linear_models(data, {settings.likelihood: likelihood}, [d], validation, progress=False)
        linear = models[settings.likelihood, d]
    return new_pair(n, d, posterior, likelihood, settings, seed=seed, linear=linear)


def _claim(folder: Path, project: Project) -> TrainingSettings:
    """Write the project into its folder, if that has no other; return how it is trained there.

    Where version 0.1 began, the ELBO of the validation data chooses the epoch to the end.
    """
    begun = begun_in(folder)
    judged = {"judged_by": RefinedELBO.__name__}
    if begun is None:
        if processes.rank() == 0:
            check_free(folder, *_RESULTS)
            write_json(folder / "config.json", {"project": project.to_dict(), **judged, "versions": versions()})
        return judged_by_model(project.training)
    check_same(folder, project, begun)
    return judged_by_model(project.training) if "judged_by" in begun.config else project.training
