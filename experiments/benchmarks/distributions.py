"""What a covariance costs: one forward and backward of rsample + log_prob + KL to N(0, I), by family and dimension.

python -m experiments.benchmarks.distributions
"""

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # otherwise torch's profiler prints a line at each start and stop

import numpy as np
import pandas as pd
import pyro
import torch
from pyro.distributions import LowRankMultivariateNormal, MultivariateNormal, Normal, TorchDistribution
from torch import Tensor
from torch.distributions import kl_divergence
from tqdm.auto import tqdm

from experiments import page
from experiments.benchmarks.timing import median_ratio
from experiments.options import Options, at_least, check_device, choice
from experiments.pictures import log_log
from pyrovae.commands import console
from pyrovae.comparison.tables import markdown_table
from pyrovae.distributions import AR1Normal
from pyrovae.files import make_folder, write_table
from pyrovae.plotting import write_figure

BATCH = 128
RANK = 4


@dataclass(frozen=True)
class Settings(Options):
    """Time rsample + log_prob + KL, forward and backward, for each covariance and dimension."""

    out: Path = Path("runs/benchmark-distributions")
    """Folder for the table and the picture."""

    dims: tuple[int, ...] = at_least(2, (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096))
    """Dimensions d."""
    max_dense: int = 1024
    """Largest d for the dense family, whose factor takes 128 d² numbers."""
    repeats: int = at_least(3, 15)
    """Interleaved repetitions. The median is reported."""
    device: str = choice("cpu", ("cpu", "cuda"))
    """cpu (one thread) or cuda."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_device(self.device)


def families(d: int, device: str, max_dense: int) -> dict[str, tuple[list[Tensor], Callable[..., TorchDistribution]]]:
    """Leaf tensors and the distribution made of them, by name."""

    def leaf(*shape: int) -> Tensor:
        return (0.1 * torch.randn(BATCH, *shape, device=device)).requires_grad_()

    def full(loc: Tensor, log_scale: Tensor, below: Tensor) -> TorchDistribution:
        return MultivariateNormal(loc, scale_tril=below.tril(-1) + log_scale.exp().diag_embed())

    def low_rank(loc: Tensor, log_scale: Tensor, factor: Tensor) -> TorchDistribution:
        return LowRankMultivariateNormal(loc, factor, log_scale.exp())

    made: dict[str, tuple[list[Tensor], Callable[..., TorchDistribution]]] = {
        "diagonal": ([leaf(d), leaf(d)], lambda loc, s: Normal(loc, s.exp()).to_event(1)),
        "ar1": ([leaf(d), leaf(1), leaf(1)], lambda loc, s, z: AR1Normal(loc, s.exp(), fisher_z=z)),
        "ar1-per-step": ([leaf(d), leaf(d), leaf(d - 1)], lambda loc, s, z: AR1Normal(loc, s.exp(), fisher_z=z)),
        "low-rank": ([leaf(d), leaf(d), leaf(d, RANK)], low_rank),
    }
    if d <= max_dense:
        made["full-covariance"] = ([leaf(d), leaf(d), leaf(d, d)], full)
    return made


def step(leaves: list[Tensor], make: Callable[..., TorchDistribution], standard: TorchDistribution) -> None:
    """One forward and backward."""
    q = make(*leaves)
    z = q.rsample()
    (q.log_prob(z).sum() + kl_divergence(q, standard).sum()).backward()
    for leaf in leaves:
        leaf.grad = None


def seconds(function: Callable[[], object], device: str) -> float:
    """Wall-clock seconds of one call."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    function()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def peak_bytes(function: Callable[[], object], device: str) -> int:
    """Most memory that the tensors of one call take at once."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        function()
    kineto = profile.profiler.kineto_results
    changes = [(event.start_ns(), event.nbytes()) for event in kineto.events() if event.name() == "[memory]"]
    return int(np.cumsum([change for _, change in sorted(changes)]).max())


def measure(settings: Settings) -> pd.DataFrame:
    """One row a dimension and family."""
    rows = []
    for d in tqdm(settings.dims, unit="dimension", disable=None):
        standard = Normal(torch.zeros(d, device=settings.device), torch.ones(d, device=settings.device)).to_event(1)
        candidates = families(d, settings.device, settings.max_dense)
        times: dict[str, list[float]] = {name: [] for name in candidates}
        for repeat in range(settings.repeats + 2):
            for name, (leaves, make) in candidates.items():
                if name == "full-covariance" and d > 256 and repeat > 4:
                    continue  # seconds each: three counted repetitions are enough
                elapsed = seconds(lambda: step(leaves, make, standard), settings.device)  # noqa: B023
                if repeat > 1:
                    times[name].append(elapsed)
        for name, (leaves, make) in candidates.items():
            rows.append(
                {
                    "d": d,
                    "family": name,
                    "milliseconds": 1e3 * statistics.median(times[name]),
                    "ratio_to_diagonal": median_ratio(times[name], times["diagonal"]),
                    "full_covariance_over_this": statistics.median(times["full-covariance"])
                    / statistics.median(times[name])
                    if "full-covariance" in times
                    else np.nan,
                    "peak_mib": peak_bytes(lambda: step(leaves, make, standard), settings.device) / 2**20,  # noqa: B023
                }
            )
    return pd.DataFrame(rows)


def growth(table: pd.DataFrame, column: str, low: int = 256, high: int = 4096) -> dict[str, float]:
    """Exponent of d in a least-squares fit of log cost between two dimensions, by family."""
    exponents = {}
    for family, rows in table[table["d"].between(low, high)].groupby("family"):
        if len(rows) > 1:
            exponents[str(family)] = float(np.polyfit(np.log(rows["d"]), np.log(rows[column]), 1)[0])
    return exponents


def _with_factor(loc: Tensor, scale_tril: Tensor) -> TorchDistribution:
    return MultivariateNormal(loc, scale_tril=scale_tril)


def closed_forms(settings: Settings) -> pd.DataFrame:
    """KL to N(0, I), forward and backward: the library's closed forms against torch's dense ones."""
    rows = []
    for family, d in (("full-covariance", 64), ("low-rank", 256)):
        leaves, make = families(d, settings.device, d)[family]
        if family == "full-covariance":  # the divergence alone, from the factor
            leaves = [leaves[0], (leaves[2].tril(-1) + torch.eye(d, device=settings.device)).detach().requires_grad_()]
            make = _with_factor
        eye = torch.eye(d, device=settings.device).expand(BATCH, d, d)
        standard = Normal(torch.zeros(d, device=settings.device), torch.ones(d, device=settings.device)).to_event(1)
        dense = MultivariateNormal(torch.zeros(BATCH, d, device=settings.device), scale_tril=eye)
        ratios = []
        for repeat in range(settings.repeats + 2):
            times = []
            for p in (dense, standard):

                def kl() -> None:
                    kl_divergence(make(*leaves), p).sum().backward()  # noqa: B023

                times.append(seconds(kl, settings.device))
            if repeat > 1:
                ratios.append(times[0] / times[1])
        rows.append({"family": family, "d": d, "torch's dense KL over ours": statistics.median(ratios)})
    return pd.DataFrame(rows)


def main(settings: Settings) -> None:
    """Measure, print, and write the table and the picture."""
    torch.set_num_threads(1)
    make_folder(settings.out)
    with pyro.validation_enabled(False):
        table = measure(settings)
        closed = closed_forms(settings)
    write_table(settings.out / "distributions.csv", table)
    picture = settings.out / "cost.png"
    series = {str(f): (list(rows["d"]), list(rows["milliseconds"])) for f, rows in table.groupby("family", sort=False)}
    write_figure(picture, log_log(series, "dimension d", "ms, forward and backward, batch 128"))
    time_growth, memory_growth = growth(table, "milliseconds"), growth(table, "peak_mib")
    exponents = pd.DataFrame(
        [{"family": f, "time ~ d^": time_growth[f], "memory ~ d^": memory_growth[f]} for f in time_growth]
    )
    device = torch.cuda.get_device_name() if settings.device == "cuda" else "the CPU, one thread"
    text = "\n\n".join(
        [
            f"On {device}, float32, batch {BATCH}, rank {RANK}; medians of interleaved runs.",
            markdown_table(table),
            "Growth between the smallest and largest d ≥ 256 measured:",
            markdown_table(exponents),
            "KL to N(0, I), forward and backward:",
            markdown_table(closed),
        ]
    )
    page.show("benchmarks.distributions", settings.device, text, {"cost against dimension": picture}, settings.publish)
    print(f"results: {settings.out}")


if __name__ == "__main__":
    console.run(main, Settings)
