"""What an estimator really computed, site by site, as its own code recorded it."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd
import torch
from pyro.distributions.util import scale_and_mask
from pyro.infer import ELBO, Trace_ELBO, TraceMeanField_ELBO, trace_mean_field_elbo
from torch import Tensor
from torch.distributions import kl_divergence

from pyrovae.elbo.base import BetaELBO, NoClosedFormError, Note, Program, describe, latent_sites
from pyrovae.errors import InputTypeError
from pyrovae.programs import cannot_run, check_data, mode, unregistered


@dataclass(frozen=True)
class SiteAudit:
    """One sample site: what stands on each side, how its part was computed, and what it adds to the bound.

    Attributes:
        site: name of the site.
        guide: distribution in the guide; empty for an observed site.
        model: distribution in the model; empty for a site of the guide alone.
        how: ``"closed form"``, or ``"sampled: …"`` with the reason.
        guide_scale: factor of the site's terms in the guide, β included.
        model_scale: the same in the model.
        reparameterized: whether draws are differentiable in the guide's parameters.
        event_dim: number of dimensions of one draw.
        batch_shape: shape of the plates, particles first where they are drawn in one pass.
        nats_per_datum: contribution to the bound (to −loss), one sample of it where it is sampled.
        fallback: whether the estimator departed from its usual way.
    """

    site: str
    guide: str
    model: str
    how: str
    guide_scale: float | None
    model_scale: float | None
    reparameterized: bool | None
    event_dim: int
    batch_shape: tuple[int, ...]
    nats_per_datum: float
    fallback: bool


@dataclass(frozen=True)
class Audit:
    """Table of an estimator's sample sites; print it, or take :meth:`to_frame`.

    Attributes:
        estimator: class name.
        sites: one entry a sample site.
        beta: weight of the latent sites' terms.
        loss: the loss in nats per datum.
    """

    estimator: str
    sites: tuple[SiteAudit, ...]
    beta: float
    loss: float

    @property
    def rest(self) -> float:
        """−loss without the sites' contributions: 0 but for importance weights, and there never above 0.

        A log-mean-exp is the weighted mean of log w less KL(weights ‖ uniform), and no site owns the latter.
        """
        return -self.loss - sum(site.nats_per_datum for site in self.sites)

    def to_frame(self) -> pd.DataFrame:
        """One row a sample site."""
        return pd.DataFrame([asdict(site) for site in self.sites])

    @property
    def line(self) -> str:
        """Everything in one line."""
        parts = []
        for site in self.sites:
            pair = f"{site.guide} ‖ {site.model}" if site.guide else site.model
            parts.append(f"{site.site} {pair} {site.how}" if site.guide else f"{site.site} {pair}")
        beta = "" if self.beta == 1 else f", β = {self.beta:g}"
        return f"{self.estimator}{beta}: {'; '.join(parts)}; loss {self.loss:.4g} nats/datum before training"

    def __str__(self) -> str:
        frame = self.to_frame().drop(columns="fallback")
        text = f"{self.estimator}, β = {self.beta:g}, loss {self.loss:.6g} nats per datum\n"
        text += frame.to_string(index=False, na_rep="")
        if any("weights" in site.how for site in self.sites):
            text += f"\nand {self.rest:.6g}: how far the weights are from even, −KL(weights ‖ uniform)"
        return text


def audit(model: Program, guide: Program, elbo: ELBO, x: Tensor, *, strict: bool = False) -> Audit:
    """Evaluate an estimator once and tell what it computed, read off what its own code recorded.

    Stock Pyro's ``Trace_ELBO`` and ``TraceMeanField_ELBO`` can be audited too: the latter samples without a
    word where a KL is missing.

    Args:
        model: Pyro program of the joint density.
        guide: Pyro program of q(z|x).
        elbo: the estimator.
        x: data (num, …), of the programs' dtype and device.
        strict: raise where the estimator departs from its usual way: samples a KL that it gives in closed
            form elsewhere, or uses score-function gradients.

    Raises:
        NoClosedFormError: the estimator refuses the programs, or with ``strict`` falls back.
        InputTypeError: an estimator whose code cannot be listened to.

    Example:
        >>> import pyrovae as pv
        >>> model = pv.GenerativeModel(pv.nn.MLP(2, 8), pv.GaussianLikelihood(8, 3), latent_dim=2)
        >>> guide = pv.AmortizedGuide(pv.nn.MLP(3, 8), pv.DiagonalPosterior(8, 2))
        >>> [(row.site, row.how) for row in audit(model, guide, pv.AnalyticELBO(), torch.zeros(4, 3)).sites]
        [('x', 'sampled: at draws of z'), ('z', 'closed form')]
    """
    if isinstance(elbo, type):
        raise InputTypeError(f"audit takes an estimator, {elbo.__name__}(), not its class")
    if not isinstance(elbo, BetaELBO) and type(elbo) not in (Trace_ELBO, TraceMeanField_ELBO):
        name = type(elbo).__name__
        raise InputTypeError(f"audit reads estimators of pyrovae, Trace_ELBO and TraceMeanField_ELBO, not {name}")
    check_data(x, model, guide)
    devices = [x.device] if x.is_cuda else []
    with torch.no_grad(), torch.random.fork_rng(devices=devices), unregistered(), mode(model, guide, training=False):
        try:
            if isinstance(elbo, BetaELBO):
                recorder, notes = elbo.recording()
                loss = recorder.differentiable_loss(model, guide, x).item()
            else:
                stock = copy.copy(elbo)
                with _listening(stock) as notes:
                    loss = stock.loss(model, guide, x)
        except NotImplementedError:
            raise  # the estimator's own refusal
        except KeyError as error:  # stock Pyro's, of a latent that the guide lacks
            raise NoClosedFormError(f"latent site {error} of the model is missing in the guide") from None
        except RuntimeError as error:
            raise cannot_run(x, error) from error
    sites: dict[str, list[Note]] = {}
    for note in notes:
        recorded_site = note.model_site or note.guide_site or {}
        if (recorded_site.get("infer") or {}).get("_deterministic"):
            continue
        sites.setdefault(note.site, []).append(note)
    latents = {name for name, recorded in sites.items() if recorded[0].guide_site is not None}
    order = sorted(sites, key=lambda name: name in latents)
    rows = tuple(_row(sites[name], elbo, len(x), sorted(latents)) for name in order)
    if strict:
        for row in rows:
            if row.fallback:
                raise NoClosedFormError(f"{type(elbo).__name__} falls back at site {row.site!r}: {row.how}")
    return Audit(type(elbo).__name__, rows, float(getattr(elbo, "beta", 1.0)), loss / len(x))


def _row(notes: list[Note], elbo: ELBO, num: int, latents: list[str]) -> SiteAudit:
    """A site's row from what was recorded of it, once a draw where they are made one by one."""
    note = notes[0]
    model_site, guide_site = note.model_site, note.guide_site
    site = guide_site if guide_site is not None else model_site
    assert site is not None
    sampled_by_choice = not isinstance(elbo, TraceMeanField_ELBO)
    how, fallback = note.how, False
    if guide_site is None and model_site is not None and not model_site["is_observed"]:
        how, fallback = "sampled: from the model itself, the guide has no such site", True
    elif guide_site is None:
        how = f"{how}: at draws of {', '.join(latents)}" if latents else how
    elif "weights" in how:
        pass  # of a log-mean-exp there is no closed form, whatever the pair
    elif how.startswith("closed form,"):
        fallback = True
    elif how.startswith("sampled"):
        p = None if model_site is None else model_site["fn"]
        if p is None:
            how = f"{how}: in the guide alone"
        elif not _has_kl(guide_site["fn"], p):
            how = f"{how}: no closed form for {describe(guide_site['fn'])} ‖ {describe(p)}"
            fallback = not sampled_by_choice
        else:
            how = f"{how}: by choice, a closed form exists"
        fallback = fallback or "score-function" in how
    beta = getattr(elbo, "beta", 1.0) if "weights" in note.how else 1.0  # inside the weights, not in the trace
    return SiteAudit(
        site=note.site,
        guide="" if guide_site is None else describe(guide_site["fn"]),
        model="" if model_site is None else describe(model_site["fn"]),
        how=how,
        guide_scale=None if guide_site is None else _number(guide_site["scale"], beta),
        model_scale=None if model_site is None else _number(model_site["scale"], 1.0 if guide_site is None else beta),
        reparameterized=None if guide_site is None else bool(guide_site["fn"].has_rsample),
        event_dim=site["fn"].event_dim,
        batch_shape=tuple(site["fn"].batch_shape),
        nats_per_datum=sum(n.nats.item() for n in notes) / elbo.num_particles / num,
        fallback=fallback,
    )


def _number(scale: float | Tensor, beta: float | Tensor) -> float:
    """A scale as a number; of one that varies over the plate, the mean."""
    return torch.as_tensor(scale * beta).double().mean().item()


def _has_kl(q: Any, p: Any) -> bool:
    try:
        kl_divergence(q, p)
    except NotImplementedError:
        return False
    return True


@contextmanager
def _listening(elbo: ELBO) -> Iterator[list[Note]]:
    """Record what a copy of a stock estimator of Pyro does: its traces, and each KL it asked for and got."""
    notes: list[Note] = []
    traces: list[tuple[Any, Any]] = []
    answers: list[Tensor | None] = []
    get_trace: Callable[..., tuple[Any, Any]] = elbo._get_trace

    def recorded_trace(*args: Any) -> tuple[Any, Any]:
        traces.append(get_trace(*args))
        return traces[-1]

    def recorded_kl(q: Any, p: Any) -> Tensor:
        answers.append(None)
        answers[-1] = answer = kl_divergence(q, p)
        return answer

    elbo._get_trace = recorded_trace
    trace_mean_field_elbo.kl_divergence = recorded_kl
    try:
        yield notes
    finally:
        trace_mean_field_elbo.kl_divergence = kl_divergence
    asked = iter(answers)
    for model_trace, guide_trace in traces:
        model_trace.compute_log_prob()
        guide_trace.compute_log_prob()
        for name, site in model_trace.nodes.items():
            if site["type"] == "sample" and name not in latent_sites(guide_trace):
                notes.append(Note(name, "sampled", site["log_prob_sum"], site, None))
        # a stock mean-field estimator asks for its KLs in the order of the model's sites
        closed = {
            name: next(asked)
            for name, site in model_trace.nodes.items()
            if isinstance(elbo, TraceMeanField_ELBO) and site["type"] == "sample" and not site["is_observed"]
        }
        in_order = [name for name in model_trace.nodes if name in closed] == list(latent_sites(guide_trace))
        closed_form = "closed form" if in_order else "closed form, but the guide draws in another order: no KL"
        for name, q in latent_sites(guide_trace).items():
            p, kl = model_trace.nodes.get(name), closed.get(name)
            if kl is not None:
                notes.append(Note(name, closed_form, -scale_and_mask(kl, q["scale"], q["mask"]).sum(), p, q))
            else:
                value = -q["log_prob_sum"] + (0 if p is None else p["log_prob_sum"])
                how = "sampled" if q["fn"].has_rsample else "sampled, score-function gradient"
                notes.append(Note(name, how, value, p, q))
