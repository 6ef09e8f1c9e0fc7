"""Compare posteriors and likelihoods on a file of data within a time budget, and recommend one."""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import TypeVar

from torch import Tensor

from pyrovae.blocks import in_blocks
from pyrovae.comparison._budget import GAP_DATA, Counts, counts_within, measure
from pyrovae.comparison._conclusion import conclude
from pyrovae.comparison._data import check_can_be_sent, prepare, warn_of_counts
from pyrovae.comparison._linear import (
    may_be_linear,
    models_to_start_as,
    other_baselines,
    simple_baselines,
    with_latent_dims,
    write_linear,
)
from pyrovae.comparison._pairs import at_mean_of
from pyrovae.comparison._plan import Plan
from pyrovae.comparison._result import Failure, Results
from pyrovae.comparison._runs import callers_state_left_alone, left_to_run, run_pieces
from pyrovae.comparison.compare import check_likelihoods, with_folder
from pyrovae.comparison.recommendation import recommend
from pyrovae.comparison.settings import ComparisonSettings, Execution
from pyrovae.comparison.study import Begun, Study, at_scale_of_data, begun_in, check_same
from pyrovae.comparison.study_result import MAX_VALIDATION, StudyResult, as_text, said
from pyrovae.comparison.tables import markdown_table
from pyrovae.datasets import PIXEL, ChannelAxis, Spectra, SpectraSplit, TrainingRows
from pyrovae.errors import InputError
from pyrovae.evaluation import LogMarginal
from pyrovae.files import check_free, locked_folder, versions, write_json, write_table, write_text
from pyrovae.linear_gaussian.baselines import Baseline, check_varying, varying
from pyrovae.linear_gaussian.keys import LinearKey
from pyrovae.posteriors.lbfgs import OutOfTimeError, ending_by
from pyrovae.training import processes
from pyrovae.training.settings import sha256

T = TypeVar("T")

_RESULTS = "runs.csv", "comparison.csv", "comparison.md", "recommendation.json", "report.html"
_SHARE_FOR_LINEAR = 0.4
"""Share of the budget after which no linear model is fitted."""
_SHARE_TO_FINISH = 0.08
"""Share of the budget for tables and the report."""
IN_THIS_PROCESS = Execution()
"""Where the runs are made by default."""


def compare_file(
    study: Study,
    out: str | Path,
    *,
    execution: Execution = IN_THIS_PROCESS,
    progress: bool = True,
    on_read: Callable[[Spectra], object] | None = None,
) -> StudyResult:
    """Fit the linear models and train every posterior × likelihood × estimator on 70 % of the data, and recommend one.

    The linear models come first, and are written to ``linear/`` with a first recommendation among them. Then some steps
    of each VAE are timed, and the rest of the budget is turned into counts: of epochs, of test data, and of draws for
    their scores. They are written to ``config.json``, so that the same call resumes an interrupted study; finished runs
    are kept. The validation data, 15 %, choose each run's best epoch. Models are compared by log p(x) of the other 15
    %, in the original units. Also writes ``runs/``, ``runs.csv``, ``comparison.csv``, ``comparison.md`` and
    ``recommendation.json``.

    Args:
        study: what to compare.
        out: folder for the results.
        execution: where the VAEs are trained and scored. The budget counts on every worker of this machine; of a
            cluster it counts on one.
        progress: whether to show progress bars (on a terminal).
        on_read: called with the data as soon as they are read.

    Raises:
        InputError: data or settings are invalid, or the folder is in use or of another study.
    """
    begin, folder = time.perf_counter(), Path(out)
    processes.check_alone("a comparison")
    with callers_state_left_alone():
        data, split, parts = _read(study, on_read)
        with locked_folder(folder):
            begun = begun_in(folder)
            digest = sha256(data.x)
            if begun is None:
                check_free(folder, *_RESULTS)
            else:
                check_same(folder, study, begun)
                if begun.config.get("data_sha256", digest) != digest:
                    raise InputError(
                        f"{folder} holds a study of other data: {study.data} has changed; give another folder"
                    )
            left_out = study.linear_left_out if begun is None else _names_in(begun.config, "linear_left_out", folder)
            limited = begun is None and study.epochs is None
            fits = _LinearFits(begin + _SHARE_FOR_LINEAR * study.budget if limited else math.inf, left_out)
            plan = _plan(study, split, *parts, progress)
            check_can_be_sent(plan.data, execution)
            plan, baselines = _with_linear(plan, folder, fits, progress)
            study, plan = _with_counts(study, plan, begun, folder, begin, fits, baselines, execution, digest)
            baselines = [
                replace(b, log_prob=b.log_prob[: len(plan.data.test)]) for b in baselines if b.log_prob is not None
            ]
            results: Results = {}
            pieces = left_to_run(plan, plan.cells, results, execution, resume=True)
            run_pieces(plan, pieces, results, execution, progress=progress)
            comparison = conclude(plan, plan.cells, results, baselines)
            if comparison.recommendation is None:
                raise _every_run_failed(next(r.failure for r in results.values() if r.failure), folder)
            seconds, test = time.perf_counter() - begin, parts[2][: len(plan.data.test)]
            found = StudyResult(
                study,
                data,
                split,
                test,
                plan,
                comparison,
                comparison.recommendation,
                baselines,
                seconds,
            )
            _write(found, folder, parts[0])
    return found


class _LinearFits:
    """Fits linear models that end in time; none is begun where the longest so far would not.

    Args:
        end: when they must end.
        left_out: those that are not to be fitted, by name; more are added here.
    """

    def __init__(self, end: float, left_out: Sequence[str]) -> None:
        self._end, self._longest = end, 0.0
        self.left_out = list(left_out)

    def __call__(self, key: LinearKey, fit: Callable[[], T]) -> T | None:
        """The fitted model; None of one that is left out."""
        if str(key) in self.left_out:
            return None
        begin = time.perf_counter()
        if begin + self._longest <= self._end:
            with suppress(OutOfTimeError), ending_by(self._end):
                found = fit()
                self._longest = max(self._longest, time.perf_counter() - begin)
                return found
        self.left_out.append(str(key))
        return None


def _every_run_failed(first: Failure, folder: Path) -> Exception:
    """The error if no run finished: bad input in one line, or a bug with its traceback."""
    said = f"every run failed, so there is nothing to recommend; the first: {first.message}"
    if first.can_be_mended:
        return InputError(said)
    return RuntimeError(f"{said} ({first.kind}); tracebacks are in {folder / 'runs'}\n{first.traceback}")


def _read(
    study: Study, on_read: Callable[[Spectra], object] | None
) -> tuple[Spectra, SpectraSplit, tuple[Tensor, Tensor, Tensor]]:
    """All data, their split, and the three parts; constant pixels, or channels on request, are left out."""
    data = study.read()
    if on_read is not None:
        on_read(data)
    warn_of_counts(data, study.settings.named_likelihoods)
    split = study.split(data)
    train, validation, test = (part.x for part in split.parts)
    if min(len(validation), len(test)) < 2:
        sizes = ", ".join(str(len(part)) for part in (train, validation, test))
        raise InputError(f"{len(data.x)} data are too few to compare models: the parts have {sizes}; give more data")
    validation, test = validation[:MAX_VALIDATION], test[: study.max_test]
    if data.unit == PIXEL or study.reading.drop_constant:  # noise alone would tell the models of such a channel apart
        kept = varying(train)
        data = data.of_channels(kept)
        train, validation, test = (in_blocks(lambda rows: rows[:, kept], part) for part in (train, validation, test))
    return data, split, (train, validation, test)


def _plan(study: Study, split: SpectraSplit, train: Tensor, validation: Tensor, test: Tensor, progress: bool) -> Plan:
    """The plan without a budget, after all checks."""
    scaled = {name: at_scale_of_data(make) for name, make in study.settings.named_likelihoods.items()}
    settings = replace(study.settings, likelihoods=scaled)
    data = replace(prepare(train, test, validation, settings), test_groups=split.test_groups).first(len(test))
    settings = replace(settings, likelihoods={name: at_mean_of(make, data.train) for name, make in scaled.items()})
    if may_be_linear(settings, data):
        check_varying(data.train, split.parts[0].channel_names)
    check_likelihoods(settings, data)
    return Plan(with_latent_dims(settings, data, progress), data, pictures=False)


def _with_linear(plan: Plan, folder: Path, fits: _LinearFits, progress: bool) -> tuple[Plan, list[Baseline]]:
    """The plan with the linear models that training starts from, and the saved linear candidates."""
    settings, data, baselines = plan.settings, plan.data, []
    is_linear = may_be_linear(settings, data)
    if is_linear:
        baselines = simple_baselines(settings, data)
        _write_first(plan, baselines, folder)
    plan = replace(plan, linear=models_to_start_as(settings, data, progress, fits))
    if is_linear:
        baselines += other_baselines(settings, data, plan.linear, progress, fits)
        _write_first(plan, baselines, folder)
    return plan, baselines


def _write_first(plan: Plan, baselines: list[Baseline], folder: Path) -> None:
    """The linear models, and which of them to take, before a VAE is trained."""
    write_linear(folder, baselines, plan.data.preprocessing)
    ordered = sorted(baselines, key=lambda b: 0 if b.model is None else b.model.num_parameters)
    known = {b.name: b.log_prob for b in ordered if b.log_prob is not None and b.log_prob.isfinite().all()}
    if known:
        scores = {name: [LogMarginal.exact(value)] * len(plan.settings.seeds) for name, value in known.items()}
        advice = recommend(scores, groups=plan.data.test_groups, threshold=plan.settings.threshold)
        write_json(folder / "linear" / "recommendation.json", advice.to_dict())
        write_table(folder / "linear" / "comparison.csv", advice.gains)


def _with_counts(
    study: Study,
    plan: Plan,
    begun: Begun | None,
    folder: Path,
    begin: float,
    fits: _LinearFits,
    baselines: list[Baseline],
    execution: Execution,
    digest: str,
) -> tuple[Study, Plan]:
    """The study and its plan, with counts from the rest of the budget or from the folder."""
    settings, linear_only = plan.settings, study.linear_only
    if plan.linear is not None:
        no_start = set(settings.named_likelihoods) - {name for name, _ in plan.linear}
        linear_only = tuple(name for name in settings.named_likelihoods if name in {*linear_only, *no_start})
    counts = Counts(
        epochs=settings.training.epochs if study.epochs is None else study.epochs,
        gap_data=GAP_DATA if study.gap_data is None else study.gap_data,
        log_marginal_samples=settings.log_marginal_samples,
        max_test=len(plan.data.test),
        refit_epochs=settings.refit_epochs,
        validate_every=settings.training.validate_every,
        linear_only=linear_only,
        linear_left_out=tuple(fits.left_out),
    )
    plan = _counted(plan, counts)
    if begun is not None:
        counts = _counts_of(begun.config, counts, folder)
    elif study.epochs is None:
        cells = [cell for cell in plan.cells if cell.seed == settings.seeds[0]]
        needed = measure(plan, cells, study.budget)
        left = (1 - _SHARE_TO_FINISH) * study.budget - (time.perf_counter() - begin)
        left *= min(execution.workers, max(1, len(plan.cells)))
        counts = counts_within(needed, len(settings.seeds), left, counts, without_vaes=bool(baselines))
    plan = with_folder(_counted(plan, counts), folder / "runs")
    if not plan.cells and not baselines:
        raise InputError("linear_only names every likelihood, which leaves no model to compare")
    if begun is None:
        config = {"study": study.to_dict(), **vars(counts), "data_sha256": digest, "versions": versions()}
        write_json(folder / "config.json", config)
    study = replace(
        study,
        settings=replace(_with(counts, study.settings), latent_dims=settings.latent_dims),
        epochs=counts.epochs,
        gap_data=counts.gap_data,
        max_test=min(study.max_test, counts.max_test),
        linear_only=counts.linear_only,
        linear_left_out=counts.linear_left_out,
    )
    return study, plan


def _counted(plan: Plan, counts: Counts) -> Plan:
    """The plan with these counts."""
    settings, data = _with(counts, plan.settings), plan.data.first(counts.max_test)
    return replace(plan, settings=settings, data=data, linear_only=counts.linear_only)


def _with(counts: Counts, settings: ComparisonSettings) -> ComparisonSettings:
    return replace(
        settings,
        training=replace(settings.training, epochs=counts.epochs, validate_every=counts.validate_every),
        gap_data=counts.gap_data,
        log_marginal_samples=counts.log_marginal_samples,
        refit_epochs=counts.refit_epochs,
    )


def _counts_of(config: dict[str, object], most: Counts, folder: Path) -> Counts:
    """The counts stored in a study's folder; version 0.1 had two of them."""
    whole = {}
    for name in (field.name for field in fields(Counts) if not field.name.startswith("linear")):
        least = 0 if name in ("gap_data", "refit_epochs") else 1
        value = config.get(name, None if name in ("epochs", "gap_data") else vars(most)[name])
        if not isinstance(value, int) or value < least:
            raise InputError(f"cannot read {folder / 'config.json'} as a study: its {name} is {value!r}")
        whole[name] = value
    return Counts(**whole, linear_only=_names_in(config, "linear_only", folder), linear_left_out=most.linear_left_out)


def _names_in(config: dict[str, object], key: str, folder: Path) -> tuple[str, ...]:
    """The names that a config.json holds under a key, which versions before may lack."""
    names = config.get(key, [])
    if not isinstance(names, list):
        raise InputError(f"cannot read {folder / 'config.json'} as a study: its {key} is {names!r}")
    return tuple(map(str, names))


def _write(found: StudyResult, folder: Path, train: Tensor) -> None:
    table = found.table
    write_table(folder / "runs.csv", found.runs)
    write_table(folder / "comparison.csv", table)
    write_text(folder / "comparison.md", f"{markdown_table(as_text(found))}\n\n{said(found)}\n")
    advice = found.recommendation.to_dict() | {"notes": [note.to_dict() for note in found.notes]}
    write_json(folder / "recommendation.json", advice)
    axis, rows = ChannelAxis.of(found.data), TrainingRows.of(train)
    for model in folder.glob("*/*/model.safetensors"):
        axis.write(model.parent)
        rows.write(model.parent)
