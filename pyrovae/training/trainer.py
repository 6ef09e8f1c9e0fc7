"""A training run: mini-batch stochastic variational inference, read top to bottom."""

import dataclasses
import itertools
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from typing import NoReturn

import numpy as np
import pyro
import torch
from numpy.typing import NDArray
from pyro.infer import ELBO
from torch import Tensor, nn
from tqdm.auto import tqdm

from pyrovae.elbo import audit
from pyrovae.errors import InputError
from pyrovae.programs import (
    Pair,
    as_data,
    check_programs,
    check_support,
    kept_parameter_store,
    mode,
    own_parameter_store,
    with_gradients,
)
from pyrovae.progress import progress_bar
from pyrovae.randomness import kept_random_state
from pyrovae.training import processes
from pyrovae.training._batches import Batches, Order
from pyrovae.training._identity import check_same_run, identity
from pyrovae.training._losses import ADVICE, NonFiniteLossError
from pyrovae.training._process import agree_to_stop, deferred_signals, num_threads, one_training_thread
from pyrovae.training._validation import Validation
from pyrovae.training.checkpoint import Checkpoints, as_run, resuming_from
from pyrovae.training.engines.choice import LEAST_STEPS, choose_engine
from pyrovae.training.history import ChunkRecord, EpochRecord, History, SavedState, mean_loss
from pyrovae.training.replicas import CannotVectorizeError, check_can_be_replicas
from pyrovae.training.settings import TrainingSettings


class Trainer:
    """A training run that can be stopped after any step, saved and resumed; :func:`fit` runs it to the end.

    Args:
        pairs: (model, guide) of each replica; they differ only in their parameters.
        data: (num, …).
        elbo: the estimator.
        settings: how to train.
        validation: data (num, …) on which the loss, or the settings' measure, is evaluated at the start and after each
            epoch.
        progress: whether to print two lines about the run and to show a progress bar (on a terminal).
        on_epoch: called with each epoch's record; of several processes, in the first one.
        on_chunk: called after each chunk of steps, likewise.
        checkpoints: where the run's states are written. If there is one already, the run resumes from it, with its
            engine and number of threads, and ends with the same bits.
        least_steps: number of steps, over all replicas, above which the engine ``"auto"`` compiles.

    Attributes:
        histories: the losses of each replica.
        errors: why replicas stopped before the end.
        total_steps: number of steps of the whole run.

    Example:
        >>> import pyrovae as pv
        >>> from pyrovae.training import TrainingSettings, Trainer
        >>> model = pv.GenerativeModel(pv.nn.MLP(2, 8), pv.GaussianLikelihood(8, 3), latent_dim=2)
        >>> guide = pv.AmortizedGuide(pv.nn.MLP(3, 8), pv.DiagonalPosterior(8, 2))
        >>> data, settings = torch.randn(64, 3), TrainingSettings(epochs=3)
        >>> trainer = Trainer([(model, guide)], data, pv.AnalyticELBO(), settings, progress=False)
        >>> trainer.run(max_steps=4)
        >>> saved = trainer.state_dict()  # for torch.save
        >>> trainer.load_state_dict(saved)
        >>> trainer.run()
        >>> trainer.histories[0]  # doctest: +ELLIPSIS
        History(3 epochs, 6 steps, loss ... nats per datum, engine='eager')

    Raises:
        InputError: data, programs or settings are invalid, the checkpoint is of another run, or another thread is
            training.
        CannotVectorizeError: several pairs cannot run as one program; train them one by one.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        data: Tensor | NDArray[np.generic],
        elbo: ELBO,
        settings: TrainingSettings,
        *,
        validation: Tensor | NDArray[np.generic] | None = None,
        progress: bool = True,
        on_epoch: Callable[[EpochRecord], None] | None = None,
        on_chunk: Callable[[ChunkRecord], None] | None = None,
        checkpoints: Checkpoints | None = None,
        least_steps: int = LEAST_STEPS,
    ) -> None:
        self.elbo = settings.estimator(elbo)
        if settings.measure is not None and validation is None:
            raise InputError("a measure chooses the best epoch by validation data; give validation=")
        self._threads, state = torch.get_num_threads(), None
        if checkpoints is not None and (saved := checkpoints.load()) is not None:
            engine, self._threads, state = as_run(saved, settings.engine, checkpoints.folder)
            settings = dataclasses.replace(settings, engine=engine)
        self.pairs, self.settings, self.checkpoints = list(pairs), settings, checkpoints
        if processes.rank() > 0:
            progress, on_epoch, on_chunk = False, None, None
        self.progress, self.on_epoch, self.on_chunk = progress, on_epoch, on_chunk
        self.histories = [History() for _ in pairs]
        self.errors: dict[int, NonFiniteLossError] = {}
        self._seconds = 0.0
        with one_training_thread():
            device = settings.device
            for program in itertools.chain(*pairs):
                if device is not None and isinstance(program, nn.Module):
                    program.to(device)
            self.x = as_data("data", data, *pairs[0], device)
            self.x_validation = None if validation is None else as_data("validation", validation, *pairs[0], device)
            self._validation = Validation(self.x_validation, self.elbo, settings, lambda r: self.engine.tensors(r))
            seeds = [settings.seed + r for r in range(len(pairs))]
            self.batches = Batches(self.x, settings.batch_size, seeds, settings.transform)
            self.steps_per_epoch = self.batches.steps_per_epoch
            self.total_steps = settings.epochs * self.steps_per_epoch
            with self._scope(), kept_parameter_store(after_error=True):
                self._set_up(least_steps)
        if state is not None and checkpoints is not None:
            with resuming_from(checkpoints.folder):
                self.load_state_dict(state)
            self._say(f"resuming from step {self.steps} of {self.total_steps}")
        processes.check_equal("the steps done", self.steps)

    def _set_up(self, least_steps: int) -> None:
        """Check the data and the programs, and choose the engine."""
        pairs, settings, batch_size = self.pairs, self.settings, self.settings.batch_size
        torch.manual_seed(settings.seed)  # what the checks draw, and the loss that is shown, are the run's own
        x = self.batches.epoch()[0][: len(self.x)]  # as a step sees them
        check_support("data", x, pairs[0][0])
        if self.x_validation is not None:
            check_support("validation", self.x_validation, pairs[0][0])
        check_can_be_replicas(pairs)
        checked = [check_programs(*pair, x, self.x_validation, batch_size, self.elbo) for pair in pairs]
        parameters = [of_pair for of_pair, _, _ in checked]
        self._full_size = checked[0][1]
        self.batches.in_order = any(in_order for _, _, in_order in checked)
        if self.batches.in_order and processes.size() > 1:
            raise InputError("the programs take the data in their order, which several processes share; use one")
        self._identity = identity(
            settings, pairs[0], self.elbo, self.x, self.x_validation, x, parameters, self.total_steps
        )
        processes.check_equal("the programs, data or settings", self._identity)
        if settings.strict or self.progress:
            with nullcontext() if settings.strict else suppress(TypeError):  # another package's estimator
                computed = audit(*pairs[0], self.elbo, x[:batch_size], strict=settings.strict)
                self._say(f"{computed.line} before training")
        with pyro.validation_enabled(False):
            engine, why = choose_engine(pairs, self.elbo, parameters, settings, x, self.total_steps, least_steps)
        if engine is None:
            raise CannotVectorizeError(why)
        self.engine = engine
        for history in self.histories:
            history.engine = str(engine.name)
        self._say(f"{engine.name} engine: {why}")

    @contextmanager
    def _scope(self) -> Iterator[None]:
        """Keep the caller's random state and parameter store, and put the programs into training mode."""
        with (
            one_training_thread(),
            num_threads(self._threads),
            with_gradients(),
            kept_random_state(self.x),
            own_parameter_store(),
            mode(*itertools.chain(*self.pairs), training=True),
        ):
            yield

    @property
    def steps(self) -> int:
        """Number of steps made."""
        return self.engine.steps

    def run(self, max_steps: int | None = None) -> None:
        """Train to the end, or for ``max_steps`` steps.

        With checkpoints, Ctrl-C and SIGTERM end the step, write one, and then act as usual. A second signal acts at
        once.

        Raises:
            NonFiniteLossError: the loss, or a parameter, became NaN or infinite: in every replica.
        """
        last = self.total_steps if max_steps is None else min(self.total_steps, self.steps + max_steps)
        start = time.perf_counter() - self._seconds
        bar = progress_bar(total=self.total_steps, initial=self.steps, unit="step", show=self.progress)
        deferred = deferred_signals(self.checkpoints is not None)
        with deferred as signals, processes.ending_in_one_line(), self._scope(), pyro.validation_enabled(False), bar:
            if self.steps == 0:
                for r in range(len(self.pairs)):
                    self._validate(r, epoch=0)
            while self.steps < last and not agree_to_stop(signals):
                self._run_epoch(last, start, bar, signals)
                self._save_if_due(now=bool(signals) or self.steps == last)
            if self.steps == self.total_steps:
                self._validation.restore_best()

    def _run_epoch(self, last: int, start: float, bar: "tqdm[NoReturn]", signals: list[int]) -> None:
        """Train to the end of the epoch, or to step ``last``, or until there is a checkpoint to write."""
        epoch, done = divmod(self.steps, self.steps_per_epoch)
        x, batches = self.batches.epoch()
        batches = batches[done : done + last - self.steps]
        first, stop = self.steps, self.steps + len(batches)
        rates = self.settings.rates(first, stop, self.total_steps)
        betas = self.settings.betas(first, stop, self.total_steps)
        with closing(self.engine.run(x, batches, rates, betas)) as chunks:
            done = 0
            for losses in chunks:
                self._record(losses, batches[done : done + len(losses)])
                done += len(losses)
                bar.update(len(losses))
                if processes.any_of(bool(signals) or (self.checkpoints is not None and self.checkpoints.due)):
                    break
        self._seconds = time.perf_counter() - start
        self._raise_if_all_failed(epoch + 1)
        if self.steps % self.steps_per_epoch == 0:
            self.batches.end_epoch()
            beta = getattr(self.elbo, "beta", 1.0) if betas is None else betas[-1]
            self._end_epoch(epoch + 1, float(rates[-1]), float(beta))
            last_losses = [history.epochs[-1].loss for _, history in self._remaining()]
            state = f"epoch {epoch + 1}/{self.settings.epochs}, loss {np.mean(last_losses):.4f} nats per datum"
            bar.set_postfix_str(state, refresh=False)

    def _end_epoch(self, epoch: int, rate: float, beta: float) -> None:
        """Record the epoch that has just ended, replica by replica."""
        for r, history in self._remaining():
            if not self.engine.is_finite(r):
                self.errors[r] = NonFiniteLossError(
                    f"a parameter is not finite after step {self.steps} (epoch {epoch}), though the loss was: "
                    f"a gradient was not; {ADVICE}"
                )
                continue
            loss = mean_loss(history.batch_loss[-self.steps_per_epoch :], len(self.x), self.settings.batch_size)
            is_due = epoch % self.settings.validate_every == 0 or epoch == self.settings.epochs
            validation_loss, seed = self._validate(r, epoch) if is_due else math.nan, self.settings.seed + r
            record = EpochRecord(epoch, loss, validation_loss, rate, beta, self._seconds, seed)
            history.epochs.append(record)
            if self.on_epoch is not None:
                self.on_epoch(record)
        self._raise_if_all_failed(epoch)

    def _record(self, losses: NDArray[np.float64], batches: Order) -> None:
        if self._full_size is not None:  # a subsampled plate makes a batch's loss that of all data
            sizes = np.array([len(batch[0]) for batch in batches])
            losses = losses * (sizes / self._full_size)[:, None]
        for r, history in self._remaining():
            failed = self.engine.errors.get(r)
            values = losses[:, r] if failed is None else losses[: max(0, failed.step - 1 - len(history.batch_loss)), r]
            history.batch_loss += values.tolist()
            if self.on_chunk is not None and len(values):
                with kept_random_state(self.x):  # an epoch's noise goes on after it
                    self.on_chunk(ChunkRecord(history.steps, tuple(values.tolist()), self.settings.seed + r))

    def _raise_if_all_failed(self, epoch: int) -> None:
        for r, error in self.engine.errors.items():
            self.errors.setdefault(r, error.in_epoch(epoch))
        if len(self.errors) == len(self.pairs):
            raise self.errors[0]

    def _save_if_due(self, now: bool) -> None:
        """Write a checkpoint if the last one is old, or ``now``, unless parameters are not finite."""
        if self.checkpoints is None or not (now or self.checkpoints.due):
            return
        if all(self.engine.is_finite(r) for r, _ in self._remaining()):
            state = {"engine": str(self.engine.name), "threads": self._threads, "state": self.state_dict()}
            self.checkpoints.save(self.steps, state)

    def _remaining(self) -> Iterator[tuple[int, History]]:
        """The replicas that are still trained, and their histories."""
        return ((r, history) for r, history in enumerate(self.histories) if r not in self.errors)

    def _say(self, line: str) -> None:
        if self.progress:
            tqdm.write(line, file=sys.stderr)

    def _validate(self, r: int, epoch: int) -> float:
        """Loss of the validation data, NaN without any. Keeps the best state so far."""
        return self._validation(r, self.pairs[r], self.histories[r], epoch, self._full_size)

    def state_dict(self) -> SavedState:
        """Everything that the rest of the run depends on, copied: tensors, numbers, and lists and dicts of these."""
        return {
            "of": self._identity,
            "engine": self.engine.state_dict(),
            "epoch_start": [state.clone() for state in self.batches.states],
            "errors": {r: str(error) for r, error in self.errors.items()},
            "histories": [history.state_dict() for history in self.histories],
            "best": self._validation.state_dict(),
            "seconds": self._seconds,
        }

    def load_state_dict(self, state: SavedState) -> None:
        """Load a state of a run of these programs, data and settings, from either engine.

        Raises:
            InputError: it is of another run; names the difference and changes nothing.
        """
        if not isinstance(state, dict) or "of" not in state:
            raise InputError("this is not a state from Trainer.state_dict")
        check_same_run(state["of"], self._identity, self.settings, self.elbo)
        self.engine.load_state_dict(state["engine"])
        self.batches.states = [generator_state.clone() for generator_state in state["epoch_start"]]
        self.errors = {r: NonFiniteLossError(message) for r, message in state["errors"].items()}
        for history, saved in zip(self.histories, state["histories"], strict=True):
            history.load_state_dict(saved)
        self._validation.load_state_dict(state["best"])
        self._seconds = state["seconds"]
