"""What a training step costs, here and elsewhere, in one interleaved run.

python -m experiments.benchmarks.training_step
"""

import multiprocessing
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")

import pandas as pd
import pyro
import torch
from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO
from torch import Tensor
from tqdm.auto import tqdm

import pyrovae as pv
from experiments import page
from experiments.benchmarks.estimators import make_pair
from experiments.benchmarks.peers import Loop, Work, by_hand, numpyro_loops
from experiments.benchmarks.timing import median_ratio
from experiments.options import Options, check_integers, check_names
from pyrovae import plotting
from pyrovae.commands import console
from pyrovae.comparison.tables import markdown_table
from pyrovae.elbo import ESTIMATORS
from pyrovae.errors import InputError
from pyrovae.files import make_folder, write_table
from pyrovae.plotting import write_figure
from pyrovae.training import Trainer, TrainingSettings
from pyrovae.training.replicas import make_replicas

SMALL = Work("2-128-128-d", 2, (128, 128), 2, 32, "diagonal", "analytic")
IMAGES = Work("784-400-d", 784, (400,), 10, 128, "diagonal", "analytic")
REPLICAS = 10
HAND = "PyTorch by hand"


@dataclass(frozen=True)
class Settings(Options):
    """Time a training step of every implementation, on one core, interleaved."""

    out: Path = Path("runs/benchmark-training-step")
    """Folder for the tables."""

    repeats: int = 9
    """Blocks of steps; the median is reported, and the median of ratios within a block."""
    seconds: float = 0.5
    """About how long a block of the hand-written loop takes; this sets the number of steps."""
    steps: bool = True
    """Whether to time a step of all implementations."""
    images: bool = True
    """Whether to time the image network too."""
    growth: bool = True
    """Whether to measure the growth with latent dimension, width and batch."""
    compiled: bool = True
    """Whether to time implementations that are compiled first, here and elsewhere."""
    memory: bool = True
    """Whether to measure the peak memory, in a process for each implementation."""
    device: str = "cpu"
    """cpu, or cuda for what runs there: no native code, no set-up and no memory."""

    def __post_init__(self) -> None:
        check_integers(self, "repeats")
        check_names(self, "device", ("cpu", "cuda"))
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

    def loop(steps: int) -> float:
        start = time.perf_counter()
        trainer.run(max_steps=steps)
        return (time.perf_counter() - start) / replicas

    return loop


def with_svi(work: Work, x: Tensor) -> Loop:
    """Stock Pyro: its own SVI, estimators and Adam, validation on as by default."""
    model, guide = (program.to(x.device) for program in programs(work))
    elbo = TraceMeanField_ELBO() if work.estimator == "analytic" else Trace_ELBO()
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 1e-3}), loss=elbo)
    batches = x.split(work.batch)

    def loop(steps: int) -> float:
        start = time.perf_counter()
        for step in range(steps):
            svi.step(batches[step % len(batches)])
        return time.perf_counter() - start

    return loop


def implementations(work: Work, x: Tensor, peers: bool = True, compiled: bool = True) -> dict[str, Callable[[], Loop]]:
    """What makes each loop, by name."""
    loops: dict[str, Callable[[], Loop]] = {
        HAND: lambda: by_hand(work, x),
        "pyrovae eager": lambda: with_fit(work, x, "eager"),
    }
    if peers:
        loops["stock Pyro SVI.step"] = lambda: with_svi(work, x)
    if not compiled or x.is_cuda:  # native code is made for the CPU alone
        return loops
    loops["pyrovae compiled"] = lambda: with_fit(work, x, "compiled")
    if not peers:
        return loops
    loops["PyTorch by hand, torch.compile"] = lambda: by_hand(work, x, compiled=True)
    if not work.binary:
        loops[f"pyrovae compiled, {REPLICAS} replicas"] = lambda: with_fit(work, x, "compiled", REPLICAS)
    if find_spec("numpyro") is not None:
        loops |= {name: partial(_numpyro, work, x, name) for name in ("NumPyro step", "NumPyro scan")}
    return loops


def _numpyro(work: Work, x: Tensor, name: str) -> Loop:
    return numpyro_loops(work, x)[name]


def measure(work: Work, settings: Settings, peers: bool = True) -> list[dict[str, object]]:
    """One row an implementation."""
    x = work.data((100 if work.binary else 500) * work.batch).to(settings.device)
    loops = {name: make() for name, make in implementations(work, x, peers, settings.compiled).items()}
    steps = max(2, min(500, round(settings.seconds / (loops[HAND](20) / 20))))
    times: dict[str, list[float]] = {name: [] for name in loops}
    for repeat in range(settings.repeats + 1):
        for name, loop in loops.items():
            elapsed = loop(steps)
            if repeat > 0:
                times[name].append(elapsed / steps)
    return [
        {
            **{k: v for k, v in vars(work).items() if k not in ("n", "hidden")},
            "width": work.hidden[0],
            "implementation": name,
            "seconds": statistics.median(values),
            "ratio": median_ratio(values, times[HAND]),
        }
        for name, values in times.items()
    ]


def peak_memory(work: Work, name: str, steps: int = 50) -> float:
    """Largest resident memory in MiB of a process that does nothing else, libraries included."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_run_alone, (work, name, steps))


def _run_alone(work: Work, name: str, steps: int) -> float:
    torch.set_num_threads(1)
    implementations(work, work.data(100 * work.batch))[name]()(steps)
    status = Path("/proc/self/status").read_text(
        encoding="utf-8"
    )  # getrusage's peak is the parent's, if that is larger
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024


def setup_seconds(work: Work, name: str, cache: str) -> float:
    """Seconds in a fresh process from the libraries' import to the second step, native code kept in a folder."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_set_up_alone, (work, name, cache))


def _set_up_alone(work: Work, name: str, cache: str) -> float:
    torch.set_num_threads(1)
    os.environ |= {"PYROVAE_CACHE": cache, "TORCHINDUCTOR_CACHE_DIR": cache}
    x = work.data(100 * work.batch)
    start = time.perf_counter()
    implementations(work, x)[name]()(2)
    return time.perf_counter() - start


def pivot(table: pd.DataFrame) -> pd.DataFrame:
    """Ratios to the hand-written loop, a row a work and a column an implementation."""
    works = ["net", "d", "batch", "posterior", "estimator"]
    wide = table.pivot(index=works, columns="implementation", values="ratio")
    wide = wide.loc[list(dict.fromkeys(map(tuple, table[works].to_numpy()))), list(table["implementation"].unique())]
    milliseconds = 1e3 * table[table["implementation"] == HAND].set_index(works)["seconds"]
    wide.insert(0, "by hand, ms", milliseconds)
    return wide.drop(columns=HAND).reset_index()


def growth_works() -> dict[str, list[Work]]:
    """Works along one axis each, by what grows."""
    return {
        "d": [replace(SMALL, d=d, posterior="full-covariance") for d in (2, 8, 32)],
        "width": [replace(SMALL, hidden=(width, width)) for width in (64, 128, 256, 512)],
        "batch": [replace(SMALL, batch=batch) for batch in (32, 128, 512)],
    }


def draw(table: pd.DataFrame, path: Path) -> None:
    """Milliseconds a step against the hand-written loop's, a curve an implementation."""
    hand = table[table["implementation"] == HAND].set_index(["net", "d", "batch", "width", "posterior", "estimator"])
    curves = {}
    for name, rows in table.groupby("implementation", sort=False):
        cost = [hand.loc[tuple(key), "seconds"] for key in rows[list(hand.index.names)].to_numpy()]
        pairs = sorted(zip(cost, rows["seconds"], strict=True))
        curves[str(name)] = ([1e3 * c for c, _ in pairs], [1e3 * s for _, s in pairs])
    write_figure(path, plotting.log_log(curves, "a step written by hand, ms", "a step, ms"))


def main(settings: Settings) -> None:
    """Measure, print and write the tables."""
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):  # JAX takes every core it can get, whatever limit of threads it is given
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    out = make_folder(settings.out)
    parts = [(p, e) for p in ("diagonal", "full-covariance") for e in ("analytic", "monte-carlo")]
    works = [replace(SMALL, posterior=p, estimator=e) for p, e in parts]
    if settings.images:
        works += [replace(IMAGES, d=d, posterior=p, estimator=e) for d in (10, 50) for p, e in parts]
    on_gpu = settings.device == "cuda"
    device = f"one {torch.cuda.get_device_name()}" if on_gpu else "one core"
    machine = f"{platform.machine()}, torch {torch.__version__}, {device}, float32"
    sections = {}
    if settings.steps:
        table = pd.DataFrame([row for work in _shown(works, "implementations") for row in measure(work, settings)])
        write_table(out / "training_step.csv", table)
        draw(table, out / "training_step.png")
        sections["Ratios"] = (
            f"A step's time over the hand-written loop's: medians over {settings.repeats} interleaved blocks. "
            f"{machine}.\n\n{markdown_table(pivot(table))}"
        )
    if settings.compiled and not on_gpu:
        setups = []
        for name in ("pyrovae compiled", f"pyrovae compiled, {REPLICAS} replicas", "PyTorch by hand, torch.compile"):
            with tempfile.TemporaryDirectory() as cache:
                seconds = [setup_seconds(SMALL, name, cache) for _ in range(2)]
            setups.append({"implementation": name, "cold, s": seconds[0], "from its cache, s": seconds[1]})
        sections["Set-up"] = (
            "Seconds in a fresh process from the libraries' import to the second step, the small network.\n\n"
            + markdown_table(pd.DataFrame(setups))
        )
    if settings.growth:
        grown = []
        for axis, along in growth_works().items():
            grown += [{"grows": axis} | row for work in _shown(along, axis) for row in measure(work, settings, False)]
        growth = pd.DataFrame(grown)
        write_table(out / "growth.csv", growth)
        growth["milliseconds"] = 1e3 * growth["seconds"]
        wide = growth.pivot(
            index=["grows", "d", "width", "batch"], columns="implementation", values="milliseconds"
        ).reset_index()
        sections["Growth"] = f"Milliseconds a step; d grows with a full covariance.\n\n{markdown_table(wide)}"
    if settings.memory and not on_gpu and Path("/proc/self/status").exists():
        cases = [SMALL, replace(IMAGES, d=50)] if settings.images else [SMALL]
        peaks = []
        for work in _shown(cases, "memory"):
            names = implementations(work, work.data(work.batch))
            peaks.append({"net": work.net, "d": work.d} | {name: round(peak_memory(work, name)) for name in names})
        sections["Memory"] = "Peak resident memory in MiB, interpreter and libraries included.\n\n" + markdown_table(
            pd.DataFrame(peaks)
        )
    for heading, text in sections.items():
        pictures = {"cost of a step": out / "training_step.png"} if heading == "Ratios" else {}
        heading = f"{heading} on a GPU" if on_gpu else heading
        page.show("benchmarks.training_step", heading, text, pictures, settings.publish)
    print(f"results: {out}")


def _shown(works: list[Work], what: str) -> Iterable[Work]:
    return tqdm(works, desc=what, disable=None)


if __name__ == "__main__":
    console.run(main, Settings)
