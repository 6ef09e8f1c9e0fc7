"""Training in one call."""

import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Unpack, overload

import numpy as np
import pyro
from pyro.infer import ELBO
from torch import Tensor

from pyrovae.errors import check_integer
from pyrovae.keywords import accepts
from pyrovae.programs import Program
from pyrovae.training import processes
from pyrovae.training._losses import NonFiniteLossError
from pyrovae.training._process import one_training_thread
from pyrovae.training._refitting import RefitsEncoder, check_can_refit, refit_guide
from pyrovae.training.checkpoint import Checkpoints
from pyrovae.training.history import ChunkRecord, EpochRecord, History
from pyrovae.training.replicas import CannotVectorizeError, Replica, make_replicas
from pyrovae.training.settings import TrainingKeywords, TrainingSettings
from pyrovae.training.trainer import Trainer

Data = Tensor | np.ndarray


class _Keywords(TrainingKeywords, total=False):
    """The keywords that do not change what :func:`fit` returns, as a type checker sees them."""

    validation: Data | None
    refit_encoder: RefitsEncoder | None
    progress: bool
    on_epoch: Callable[[EpochRecord], None] | None
    on_chunk: Callable[[ChunkRecord], None] | None
    checkpoint: str | Path | None
    checkpoint_seconds: float


@overload
def fit(
    model: Program, guide: Program, data: Data, elbo: ELBO, *, num_replicas: None = None, **keywords: Unpack[_Keywords]
) -> History: ...


@overload
def fit(
    model: Program, guide: Program, data: Data, elbo: ELBO, *, num_replicas: int, **keywords: Unpack[_Keywords]
) -> list[Replica]: ...


@accepts(TrainingSettings)
def fit(
    model: Program,
    guide: Program,
    data: Data,
    elbo: ELBO,
    *,
    validation: Data | None = None,
    refit_encoder: RefitsEncoder | None = None,
    num_replicas: int | None = None,
    progress: bool = True,
    on_epoch: Callable[[EpochRecord], None] | None = None,
    on_chunk: Callable[[ChunkRecord], None] | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_seconds: float = 60.0,
    **settings: Unpack[TrainingKeywords],
) -> History | list[Replica]:
    """Maximise the ELBO over the parameters of a model and a guide with Adam.

    The programs may be :class:`~pyrovae.GenerativeModel` and :class:`~pyrovae.AmortizedGuide`, other modules, or Pyro
    functions written by hand. Both are called with a batch of data. Losses are summed over the batch as in
    ``pyro.infer.SVI``, and the same seed and batches give the same trajectory; reports are in nats per datum. Modules
    do not use Pyro's global parameter store; the ``pyro.param``s of functions are written back to it. Only one thread
    of a process trains at a time.

    Args:
        model: Pyro program of the joint density.
        guide: Pyro program of the variational posterior.
        data: (num, …), floating point; converted once to the parameters' dtype and device. A memory-mapped array of
            more than 256 MiB stays in its file. A ``Dataset`` or ``DataLoader``, whose items are x or begin with x, is
            read once, in the dataset's order; more than 256 MiB of it go to a temporary file. A
            ``transform`` sees some rows of a mapped file at a time.
        elbo: the estimator, such as ``AnalyticELBO()``.
        validation: data (num, …). The loss, or ``measure``, is evaluated on them at the start and after each epoch,
            with the same noise each time, and the best state is kept.
        refit_encoder: :func:`pyrovae.refit_encoder`, to train the encoder again at the trained model. The best encoder
            on the validation data is kept, and ``history.refit`` has the result.
        num_replicas: train this many copies of the two modules in one program. Replica r is initialised again (by every
            ``reset_parameters``) and seeded with seed + r; the given modules do not change. If ``"auto"`` does not
            compile them, it runs their common graph (``history.engine`` is then ``"graph"``). Replicas that cannot be
            one program, or with fewer than 200 steps together, are trained one by one.
        progress: whether to print what the estimator computes and which engine runs, one line each, and to show a
            progress bar (on a terminal).
        on_epoch: called with each epoch's record, replica by replica; under ``torchrun``, in the first process alone.
        on_chunk: called after each chunk of steps with its losses (:class:`~pyrovae.training.ChunkRecord`), replica by
            replica. A chunk is one step of the eager engine, and up to an epoch of the others; inside an epoch, these
            leave the modules' parameters as they were at its start.
        checkpoint: a folder for the state of the run, written every ``checkpoint_seconds``, at Ctrl-C, at SIGTERM and
            at the end. The same call resumes from it, with the original engine and number of threads, and ends with the
            same bits as an uninterrupted run on the same machine.
        checkpoint_seconds: seconds between two states.
        **settings: the fields of :class:`~pyrovae.TrainingSettings`, ``epochs`` at least. The engine ``"eager"`` runs
            the programs at each step. ``"compiled"`` runs them once and compiles their operations with XLA, in memory;
            these must not depend on the data's values or on the step. That takes a few seconds and needs the extra
            ``xla`` (JAX). ``"graph"`` runs the traced operations one by one. ``"auto"`` compiles a run of at least
            2,000 steps, counted over all replicas, if it can. All engines draw the same noise and differ only by
            rounding.

    Returns:
        The losses by epoch and by batch; with ``num_replicas``, a list of replicas.

    Raises:
        InputError: data or settings are invalid; the ``checkpoint`` is damaged, in use or of another run; another
            thread of this process is training.
        CannotTraceError: the compiled engine was requested and cannot run these programs.
        CannotCompileError: the compiled engine was requested and JAX cannot be used here.
        NonFiniteLossError: the loss, or a parameter at an epoch's end, became NaN or infinite. Names the step and the
            site; the parameters are those of the previous step. With replicas, the error is stored in the replica and
            raised only if all fail.

    Example:
        >>> import torch
        >>> import pyrovae as pv
        >>> model = pv.GenerativeModel(pv.nn.MLP(2, 8), pv.GaussianLikelihood(8, 3), latent_dim=2)
        >>> guide = pv.AmortizedGuide(pv.nn.MLP(3, 8), pv.DiagonalPosterior(8, 2))
        >>> history = fit(model, guide, torch.randn(64, 3), pv.AnalyticELBO(), epochs=2, progress=False)
        >>> history.steps
        4
    """
    how = TrainingSettings(**settings)
    processes.join()
    if refit_encoder is not None:
        check_can_refit(refit_encoder, guide, validation)

    def finish(model: Program, guide: Program, history: History, seed: int, name: str) -> None:
        """Train the encoder again, if requested."""
        if refit_encoder is not None:
            folder = None if checkpoint is None else Path(checkpoint) / name
            refit_guide(
                refit_encoder, model, guide, data, validation, history, seed=seed, checkpoint=folder, progress=progress
            )

    if num_replicas is None:
        trainer_of = partial(Trainer, validation=validation, progress=progress, on_epoch=on_epoch, on_chunk=on_chunk)
        with _checkpoints_in(checkpoint, checkpoint_seconds) as checkpoints:
            trainer = trainer_of([(model, guide)], data, elbo, how, checkpoints=checkpoints)
            trainer.run()
        finish(model, guide, trainer.histories[0], how.seed, "encoder")
        return trainer.histories[0]
    check_integer("num_replicas", num_replicas)
    with one_training_thread():
        replicas = make_replicas(model, guide, how.seed, num_replicas)
        train_replicas(
            replicas,
            data,
            elbo,
            how,
            validation=validation,
            progress=progress,
            on_epoch=on_epoch,
            on_chunk=on_chunk,
            checkpoint=checkpoint,
            checkpoint_seconds=checkpoint_seconds,
        )
    for replica in replicas:
        if replica.error is None:
            finish(replica.model, replica.guide, replica.history, replica.seed, f"encoder-seed{replica.seed}")
    return replicas


def train_replicas(
    replicas: list[Replica],
    data: Data,
    elbo: ELBO,
    settings: TrainingSettings,
    *,
    validation: Data | None = None,
    progress: bool = True,
    on_epoch: Callable[[EpochRecord], None] | None = None,
    on_chunk: Callable[[ChunkRecord], None] | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_seconds: float = 60.0,
) -> None:
    """Train replicas with consecutive seeds in one program, or one by one if they cannot be one.

    Raises:
        InputError: as :func:`fit`.
        NonFiniteLossError: every replica failed.
    """
    trainer_of = partial(
        Trainer, data=data, elbo=elbo, validation=validation, progress=progress, on_epoch=on_epoch, on_chunk=on_chunk
    )
    folders = {replica.seed: checkpoint and Path(checkpoint) / f"seed{replica.seed}" for replica in replicas}
    if not any(folder and folder.exists() for folder in folders.values()):  # those of a run one by one
        pairs = [(replica.model, replica.guide) for replica in replicas]
        with _checkpoints_in(checkpoint, checkpoint_seconds) as checkpoints, suppress(CannotVectorizeError):
            trainer = trainer_of(pairs, settings=settings, checkpoints=checkpoints)
            trainer.run()
            for r, replica in enumerate(replicas):
                replica.history, replica.error = trainer.histories[r], trainer.errors.get(r)
            return
    for replica in replicas:
        with (
            one_training_thread(),
            _checkpoints_in(folders[replica.seed], checkpoint_seconds) as checkpoints,
            pyro.get_param_store().scope(),  # copies of a PyroModule go by the same names in it
        ):
            pair, of_seed = (replica.model, replica.guide), dataclasses.replace(settings, seed=replica.seed)
            trainer = trainer_of([pair], settings=of_seed, checkpoints=checkpoints)
            try:
                trainer.run()
            except NonFiniteLossError as error:
                replica.error = error
        replica.history = trainer.histories[0]
    if all(replica.error is not None for replica in replicas):
        raise replicas[0].error or AssertionError


def _checkpoints_in(folder: str | Path | None, seconds: float) -> AbstractContextManager[Checkpoints | None]:
    """Checkpoints in a folder, or none."""
    return nullcontext() if folder is None else Checkpoints(folder, seconds)
