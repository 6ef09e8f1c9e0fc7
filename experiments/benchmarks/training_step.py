"""What a training step costs, here and elsewhere, in one interleaved run.

python -m experiments.benchmarks.training_step
"""

import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")

import pandas as pd
import pyro
import torch
from pyro.infer import ELBO, SVI, Trace_ELBO, TraceMeanField_ELBO
from torch import Tensor
from tqdm.auto import tqdm

import pyrovae as pv
from experiments import page
from experiments.benchmarks.estimators import make_pair
from experiments.benchmarks.peers import Loop, Work, by_hand, numpyro_loops
from experiments.benchmarks.timing import median_ratio, timed
from experiments.options import Options, choice
from experiments.pictures import log_log
from pyrovae.commands import console
from pyrovae.comparison.tables import markdown_table
from pyrovae.elbo import ESTIMATORS
from pyrovae.errors import InputError
from pyrovae.files import make_folder, write_table
from pyrovae.likelihoods import LIKELIHOODS
from pyrovae.plotting import write_figure
from pyrovae.training import Trainer, TrainingSettings
from pyrovae.training.replicas import make_replicas

T = TypeVar("T")
SMALL = Work("2-128-128-d", 2, (128, 128), 2, 32, "diagonal", "analytic")
IMAGES = Work("784-400-d", 784, (400,), 10, 128, "diagonal", "analytic")
REPLICAS = 10
HAND, SCAN, COMPILED = "PyTorch by hand", "NumPyro scan", "pyrovae compiled"
TOGETHER = f"{COMPILED}, {REPLICAS} replicas"


@dataclass(frozen=True)
class Settings(Options):
    """Time a training step of each implementation on one core, interleaved."""

    out: Path = Path("runs/benchmark-training-step")
    """Folder for the tables."""

    repeats: int = 9
    """Blocks of steps. The median time is reported, and the median ratio within a block."""
    seconds: float = 0.5
    """Approximate length of a block of the hand-written loop. It sets the number of steps."""
    images: bool = True
    """Whether to time the image network too."""
    compiled: bool = True
    """Whether to time implementations that are compiled first, pyrovae's and others'."""
    memory: bool = True
    """Whether to measure the peak memory, in a process for each implementation."""
    device: str = choice("cpu", ("cpu", "cuda"))
    """cpu, or cuda for what runs there: nothing compiled, no set-up and no memory."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.seconds > 0:
            raise InputError(f"--seconds must be positive, not {self.seconds}")


def programs(work: Work) -> tuple[pv.GenerativeModel, pv.AmortizedGuide]:
    """A fresh model and guide."""
    return make_pair(work.posterior, "bernoulli" if work.binary else "gaussian", work.hidden, work.d, work.n)


def with_fit(work: Work, x: Tensor, engine: str, replicas: int = 1) -> Loop:
    """``pv.fit``'s own loop, a long training taken in pieces."""
    pair = programs(work)
    pairs = [(r.model, r.guide) for r in make_replicas(*pair, 0, replicas)] if replicas > 1 else [pair]
    settings = TrainingSettings(10**6, work.batch, schedule="constant", engine=engine, device=x.device)
    trainer = Trainer(pairs, x, ESTIMATORS[work.estimator](), settings, progress=False)
    return lambda steps: trainer.run(max_steps=steps)


def with_svi(work: Work, x: Tensor) -> Loop:
    """Stock Pyro: its own SVI, estimators and Adam, validation on as by default."""
    model, guide = (program.to(x.device) for program in programs(work))
    elbo = TraceMeanField_ELBO() if work.estimator == "analytic" else Trace_ELBO()
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 1e-3}), loss=elbo)
    batches = x.split(work.batch)

    def loop(steps: int) -> None:
        for step in range(steps):
            svi.step(batches[step % len(batches)])

    return loop


def implementations(work: Work, x: Tensor, compiled: bool = True) -> dict[str, Callable[[], Loop]]:
    """What makes each loop, by name."""
    loops: dict[str, Callable[[], Loop]] = {
        HAND: lambda: by_hand(work, x),
        "stock Pyro SVI.step": lambda: with_svi(work, x),
        "pyrovae eager": lambda: with_fit(work, x, "eager"),
    }
    if not compiled or x.is_cuda:  # the compiled engine runs on the CPU alone
        return loops
    loops[COMPILED] = lambda: with_fit(work, x, "compiled")
    if not work.binary:
        loops[TOGETHER] = lambda: with_fit(work, x, "compiled", REPLICAS)
    if find_spec("numpyro") is not None:
        loops |= {name: partial(_numpyro, work, x, name) for name in ("NumPyro step", SCAN)}
    return loops


def _numpyro(work: Work, x: Tensor, name: str) -> Loop:
    return numpyro_loops(work, x)[name]


def measure(work: Work, settings: Settings) -> list[dict[str, object]]:
    """One row an implementation; a block of steps is an epoch."""
    hand = by_hand(work, work.data(20 * work.batch).to(settings.device))
    hand(20)  # the first steps are slow, and few steps a block would measure the calls of compiled loops
    start = time.process_time()
    hand(20)
    steps = max(2, min(500, round(20 * settings.seconds / (time.process_time() - start))))
    x = work.data(steps * work.batch).to(settings.device)
    loops = {name: make() for name, make in implementations(work, x, settings.compiled).items()}
    clocks = timed(loops, steps, settings.repeats)
    if TOGETHER in loops:
        clocks[TOGETHER] /= REPLICAS
    times = {name: values[:, int(x.is_cuda)] for name, values in clocks.items()}
    limit = None if x.is_cuda else work.limit
    return [
        {
            **{k: v for k, v in vars(work).items() if k not in ("n", "hidden")},
            "implementation": name,
            "seconds": statistics.median(values),
            "wall": statistics.median(clocks[name][:, 1]),
            "limit": limit,
            "ratio": median_ratio(values, times[HAND]),
            "to_scan": median_ratio(values, times[SCAN]) if SCAN in times else None,
        }
        for name, values in times.items()
    ]


def others() -> dict[str, tuple[pv.GenerativeModel, pv.AmortizedGuide, ELBO, Tensor]]:
    """Programs for which NumPyro has no counterpart here, and data in batches of 32."""
    small, channels = torch.randn(1600, 2), torch.randn(1600, 32)
    importance = ESTIMATORS["importance-weighted"](num_particles=50)
    encoder, decoder = pv.nn.ConvEncoder(16, 32, side=28), pv.nn.ConvDecoder(10, 32, 16, side=28)
    images = pv.GenerativeModel(decoder, pv.BernoulliLikelihood(decoder.out_features, 784), 10)
    noise = LIKELIHOODS["full-covariance-per-datum"](128, 32)
    return {
        "importance weighted, K = 50": (*programs(SMALL), importance, small),
        "flow": (*programs(replace(SMALL, posterior="flow")), pv.MonteCarloELBO(), small),
        "32 × 32 covariance for each datum": (
            pv.GenerativeModel(pv.nn.MLP(4, 128), noise, 4),
            pv.AmortizedGuide(pv.nn.MLP(32, 128), pv.DiagonalPosterior(128, 4)),
            pv.AnalyticELBO(),
            channels,
        ),
        "convolutions, 28 × 28": (
            images,
            pv.AmortizedGuide(encoder, pv.DiagonalPosterior(encoder.out_features, 10)),
            pv.AnalyticELBO(),
            (torch.randn(1600, 784) > 1).float(),
        ),
    }


def beside_eager(settings: Settings) -> pd.DataFrame:
    """A row for each of the other programs: a step of the eager engine, and of the one that ``auto`` takes."""
    rows = []
    for name, (model, guide, elbo, x) in _shown(others().items(), "beside eager"):
        how = partial(TrainingSettings, 10**6, 32, schedule="constant")
        trainers = {e: Trainer([(model, guide)], x, elbo, how(engine=e), progress=False) for e in ("eager", "auto")}
        loops: dict[str, Loop] = {engine: trainer.run for engine, trainer in trainers.items()}
        clocks = timed(loops, max(2, round(100 * settings.seconds)), settings.repeats)
        times = {engine: values[:, 0] for engine, values in clocks.items()}
        rows.append(
            {
                "program": name,
                "eager, ms": 1e3 * statistics.median(times["eager"]),
                "auto, ms": 1e3 * statistics.median(times["auto"]),
                "auto / eager": median_ratio(times["auto"], times["eager"]),
                "auto takes": str(trainers["auto"].engine.name),
            }
        )
    return pd.DataFrame(rows)


def peak_memory(work: Work, name: str, steps: int = 50) -> float:
    """Largest resident memory in MiB of a process that does nothing else, libraries included."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_run_alone, (work, name, steps))


def _run_alone(work: Work, name: str, steps: int) -> float:
    torch.set_num_threads(1)
    implementations(work, work.data(100 * work.batch))[name]()(steps)
    # getrusage's peak is the parent's, if that is larger
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024


def setup_seconds(work: Work, name: str) -> tuple[float, float]:
    """Seconds, of the clock and of the processor, to the second step in a process that has imported pyrovae."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_set_up_alone, (work, name))


def _set_up_alone(work: Work, name: str) -> tuple[float, float]:
    torch.set_num_threads(1)
    x = work.data(100 * work.batch)
    wall, cpu = time.perf_counter(), time.process_time()
    implementations(work, x)[name]()(2)
    return time.perf_counter() - wall, time.process_time() - cpu


def setups() -> pd.DataFrame:
    """A row an implementation that is compiled first: how long until it is ready to train."""
    cases = [
        (SMALL, COMPILED),
        (SMALL, TOGETHER),
        (replace(SMALL, posterior="flow", estimator="monte-carlo"), COMPILED),
    ]
    rows = []
    for work, name in _shown([*cases, (replace(IMAGES, d=50), COMPILED)], "set-up"):
        wall, cpu = setup_seconds(work, name)
        rows.append({"net": work.net, "posterior": work.posterior, "implementation": name, "s": wall, "CPU s": cpu})
    return pd.DataFrame(rows)


def memory(settings: Settings) -> pd.DataFrame:
    """A row a network: the peak memory of each implementation."""
    cases = [SMALL, replace(IMAGES, d=50)] if settings.images else [SMALL]
    rows = []
    for work in _shown(cases, "memory"):
        names = implementations(work, work.data(work.batch))
        rows.append({"net": work.net, "d": work.d} | {name: round(peak_memory(work, name)) for name in names})
    return pd.DataFrame(rows)


def pivot(table: pd.DataFrame) -> pd.DataFrame:
    """Ratios to the hand-written loop, a row a work and a column an implementation."""
    works = ["net", "d", "batch", "posterior", "estimator"]
    wide = table.pivot(index=works, columns="implementation", values="ratio")
    wide = wide.loc[list(dict.fromkeys(map(tuple, table[works].to_numpy()))), list(table["implementation"].unique())]
    by_name = {name: rows.set_index(works) for name, rows in table.groupby("implementation")}
    wide.insert(0, "by hand, ms", 1e3 * by_name[HAND]["seconds"])
    if COMPILED in by_name:
        wide.insert(1, "limit, ms", 1e3 * by_name[HAND]["limit"])
        wide[f"{COMPILED}, ms"] = 1e3 * by_name[COMPILED]["seconds"]
        wide[f"{COMPILED}, ms by the clock"] = 1e3 * by_name[COMPILED]["wall"]
    for name in (COMPILED, TOGETHER) if SCAN in by_name else ():
        wide[f"{name.removeprefix('pyrovae ')} / scan"] = by_name[name]["to_scan"]
    return wide.drop(columns=HAND).reset_index()


def draw(table: pd.DataFrame, path: Path) -> None:
    """Milliseconds a step against the hand-written loop's, a curve an implementation."""
    hand = table[table["implementation"] == HAND].set_index(["net", "d", "batch", "posterior", "estimator"])
    curves = {}
    for name, rows in table.groupby("implementation", sort=False):
        cost = [hand.loc[tuple(key), "seconds"] for key in rows[list(hand.index.names)].to_numpy()]
        pairs = sorted(zip(cost, rows["seconds"], strict=True))
        curves[str(name)] = ([1e3 * c for c, _ in pairs], [1e3 * s for _, s in pairs])
    write_figure(path, log_log(curves, "a step written by hand, ms", "a step, ms"))


def main(settings: Settings) -> None:
    """Measure, print and write the tables."""
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):  # JAX takes every core it can get, whatever limit of threads it is given
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    out = make_folder(settings.out)
    parts = [(p, e) for p in ("diagonal", "full-covariance") for e in ("analytic", "monte-carlo")]
    works = [replace(SMALL, posterior=p, estimator=e) for p, e in parts]
    if settings.images:
        works += [replace(IMAGES, d=d, posterior=p) for d in (10, 50) for p in ("diagonal", "full-covariance")]
    on_gpu = settings.device == "cuda"
    device = f"one {torch.cuda.get_device_name()}, by the clock" if on_gpu else "one core, CPU time"
    machine = f"{platform.machine()}, torch {torch.__version__}, {device}, float32"
    table = pd.DataFrame([row for work in _shown(works, "implementations") for row in measure(work, settings)])
    write_table(out / "training_step.csv", table)
    draw(table, out / "training_step.png")
    note = (
        f"medians over {settings.repeats} interleaved blocks. The limit is the products at the best rate measured, and "
    )
    note += f"the bytes of Adam. {machine}.\n\n{markdown_table(pivot(table))}"
    pictures = {"cost of a step": out / "training_step.png"}
    show = partial(page.show, "benchmarks.training_step", to_page=settings.publish)
    show("Ratios on a GPU" if on_gpu else "Ratios", f"A step's time over the hand-written loop's: {note}", pictures)
    if settings.compiled and not on_gpu:
        table = beside_eager(settings)
        show("Beside eager", f"A step of the eager engine and of `auto`. {machine}.\n\n{markdown_table(table)}", {})
        note = "Seconds from programs and data to the second step, in a fresh process; the import of JAX counts."
        show("Set-up", f"{note}\n\n{markdown_table(setups())}", {})
    if settings.memory and not on_gpu and Path("/proc/self/status").exists():
        note = "Peak resident memory in MiB, interpreter and libraries included."
        show("Memory", f"{note}\n\n{markdown_table(memory(settings))}", {})
    print(f"results: {out}")


def _shown(cases: Collection[T], what: str) -> Iterable[T]:
    return tqdm(cases, desc=what, disable=None)


if __name__ == "__main__":
    console.run(main, Settings)
