"""What an estimator computed, site by site, as its own code recorded it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch
from pyro.distributions import TorchDistribution
from pyro.distributions.util import scale_and_mask
from pyro.infer import ELBO, Trace_ELBO, TraceMeanField_ELBO
from torch import Tensor
from torch.distributions import Distribution, kl_divergence

from pyrovae.elbo._computation import Computation, Note, Reason
from pyrovae.elbo.base import BetaELBO, NoClosedFormError
from pyrovae.errors import InputTypeError
from pyrovae.frames import Data
from pyrovae.programs import (
    Program,
    Role,
    TracedPair,
    check_data,
    describe,
    log_prob_of,
    running_on,
    trace_pair,
    undisturbed,
)

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class SiteAudit:
    """One sample site: the distribution on each side, how its part was computed, and what it adds to the bound.

    Attributes:
        site: name of the site.
        guide: distribution in the guide; empty for an observed site.
        model: distribution in the model; empty for a site of the guide alone.
        computation: how the site's part was computed.
        reason: why it is sampled or not as expected; None for a closed form.
        num_particles: draws from the guide.
        at_draws_of: the latent sites at whose draws an observed site was scored.
        guide_scale: factor of the site's terms in the guide, β included.
        model_scale: the same in the model.
        reparameterized: whether draws can be differentiated with respect to the guide's parameters.
        event_dim: number of dimensions of one draw.
        batch_shape: shape of the plates, particles first where they are drawn in one pass.
        nats_per_datum: contribution to the bound (to −loss); one sample of it if it is sampled.
        fallback: whether the estimator deviated from its usual computation.
    """

    site: str
    guide: str
    model: str
    computation: Computation
    reason: Reason | None
    num_particles: int
    at_draws_of: tuple[str, ...]
    guide_scale: float | None
    model_scale: float | None
    reparameterized: bool | None
    event_dim: int
    batch_shape: tuple[int, ...]
    nats_per_datum: float
    fallback: bool

    @property
    def how(self) -> str:
        """The computation in words: ``"closed form"``, or ``"sampled: …"`` with the reason."""
        words = _COMPUTATIONS[self.computation].format(self.num_particles)
        if self.reason is None or (self.reason is Reason.OBSERVED and not self.at_draws_of):
            return words
        draws = ", ".join(self.at_draws_of)
        return words + _REASONS[self.reason].format(draws=draws, guide=self.guide, model=self.model)


_COMPUTATIONS = {
    Computation.CLOSED_FORM: "closed form",
    Computation.SAMPLED: "sampled",
    Computation.ENTROPY: "log p sampled, entropy in closed form",
    Computation.PATH_DERIVATIVE: "sampled, path derivative",
    Computation.SCORE_FUNCTION: "sampled, score-function gradient",
    Computation.WEIGHTS: "sampled, weights of {}",
    Computation.DOUBLY_REPARAMETERIZED_WEIGHTS: "sampled, doubly reparameterised weights of {}",
}

_REASONS = {
    Reason.OBSERVED: ": at draws of {draws}",
    Reason.NO_CLOSED_FORM: ": no closed form for {guide} ‖ {model}",
    Reason.BY_CHOICE: ": by choice (a closed form exists)",
    Reason.GUIDE_ALONE: ": in the guide alone",
    Reason.MODEL_ALONE: ": from the model; the guide has no such site",
    Reason.ANOTHER_ORDER: ": guide and model draw in different orders",
    Reason.ANOTHER_SCALE: ": scale or mask differ between model and guide",
}


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
        """−loss without the sites' contributions: 0 except with importance weights, where it is never positive.

        A log-mean-exp is the weighted mean of log w minus KL(weights ‖ uniform). The latter belongs to no site.
        """
        return -self.loss - sum(site.nats_per_datum for site in self.sites)

    def to_frame(self) -> pd.DataFrame:
        """One row a sample site."""
        import pandas as pd

        frame = pd.DataFrame([vars(site) for site in self.sites], columns=[field.name for field in fields(SiteAudit)])
        frame.insert(3, "how", [site.how for site in self.sites])
        return frame.drop(columns=["computation", "reason", "num_particles", "at_draws_of"])

    @property
    def line(self) -> str:
        """Everything in one line."""
        parts = []
        for site in self.sites:
            pair = f"{site.guide} ‖ {site.model}" if site.guide else site.model
            parts.append(f"{site.site} {pair} {site.how}" if site.guide else f"{site.site} {pair}")
        beta = "" if self.beta == 1 else f", β = {self.beta:g}"
        return f"{self.estimator}{beta}: {'; '.join(parts)}; loss {self.loss:.4g} nats per datum"

    def __str__(self) -> str:
        frame = self.to_frame().drop(columns="fallback")
        text = f"{self.estimator}, β = {self.beta:g}, loss {self.loss:.6g} nats per datum\n"
        text += frame.to_string(index=False, na_rep="")
        if any(site.computation.is_weighted for site in self.sites):
            text += f"\nand {self.rest:.6g}: how unequal the weights are, −KL(weights ‖ uniform)"
        return text


def audit(model: Program, guide: Program, elbo: ELBO, x: Data, *, strict: bool = False) -> Audit:
    """Evaluate an estimator once and report what it computed, site by site, as its own code recorded it.

    Pyro's ``Trace_ELBO`` and ``TraceMeanField_ELBO`` can be audited too. The latter samples without a warning where a
    KL is missing.

    Args:
        model: Pyro program of the joint density.
        guide: Pyro program of q(z|x).
        elbo: the estimator.
        x: data (num, …), of the programs' dtype and device.
        strict: raise an error if the estimator samples a KL that it usually computes in closed form, or uses
            score-function gradients.

    Raises:
        NoClosedFormError: the estimator refuses the programs, or falls back with ``strict``.
        InputTypeError: the estimator cannot be audited.

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
    x = check_data(x, model, guide)
    with torch.no_grad(), undisturbed(x, model, guide), running_on(x):
        with undisturbed(x):
            is_stock = not isinstance(elbo, BetaELBO)
            num = trace_pair(model, guide, x, check=not is_stock).full_size or len(x)
        loss, notes = _record(elbo, model, guide, x)
    sites: dict[str, list[Note]] = {}
    for note in notes:
        sites.setdefault(note.site, []).append(note)
    latents = sorted(
        name for name, (note, *_) in sites.items() if note.guide_site is not None and not note.guide_site["is_observed"]
    )
    order = sorted(sites, key=lambda name: name in latents)
    rows = tuple(_audit_site(sites[name], elbo, num, tuple(latents)) for name in order)
    if strict:
        for row in rows:
            if row.fallback:
                raise NoClosedFormError(f"{type(elbo).__name__} falls back at site {row.site!r}: {row.how}")
    return Audit(type(elbo).__name__, rows, float(getattr(elbo, "beta", 1.0)), loss / num)


def _audit_site(notes: list[Note], elbo: ELBO, num: int, latents: tuple[str, ...]) -> SiteAudit:
    """The audit of a site from its records: one, or one per draw if draws are made one by one."""
    note = notes[0]
    q = None if note.guide_site is None else note.guide_site["fn"]
    p = None if note.model_site is None else note.model_site["fn"]
    drawn: TorchDistribution = p if q is None else q
    reason, fallback = _reason(note, elbo)
    beta = elbo.beta if note.computation.is_weighted else 1.0  # inside the weights, not in the trace
    return SiteAudit(
        site=note.site,
        guide="" if q is None else describe(q),
        model="" if p is None else describe(p),
        computation=note.computation,
        reason=reason,
        num_particles=elbo.num_particles,
        at_draws_of=latents if reason is Reason.OBSERVED else (),
        guide_scale=None if note.guide_site is None else _number(note.guide_site["scale"], beta),
        model_scale=None if note.model_site is None else _number(note.model_site["scale"], 1.0 if q is None else beta),
        reparameterized=None if q is None else bool(q.has_rsample),
        event_dim=drawn.event_dim,
        batch_shape=tuple(drawn.batch_shape),
        nats_per_datum=sum(n.nats.item() for n in notes) / elbo.num_particles / num,
        fallback=fallback,
    )


def _reason(note: Note, elbo: ELBO) -> tuple[Reason | None, bool]:
    """Why a site's part was computed in this way, and whether the estimator deviated from its usual computation."""
    if note.guide_site is None:
        is_observed = note.model_site is not None and note.model_site["is_observed"]
        return (Reason.OBSERVED, False) if is_observed else (Reason.MODEL_ALONE, True)
    if note.reason is not None:
        return note.reason, True
    if not note.computation.is_sampled:
        return None, False  # a log-mean-exp has no closed form for any pair
    is_score_function = note.computation is Computation.SCORE_FUNCTION
    if note.model_site is None:
        return Reason.GUIDE_ALONE, is_score_function
    if _kl(note.guide_site["fn"], note.model_site["fn"]) is None:
        return Reason.NO_CLOSED_FORM, is_score_function or isinstance(elbo, TraceMeanField_ELBO)
    return Reason.BY_CHOICE, is_score_function


def _number(scale: float | Tensor, beta: float | Tensor) -> float:
    """A scale as a number; the mean of a scale that varies over the plate."""
    return torch.as_tensor(scale * beta).double().mean().item()


def _kl(q: Distribution, p: Distribution) -> Tensor | None:
    """KL(q ‖ p) if torch's registry has it."""
    try:
        return kl_divergence(q, p)
    except NotImplementedError:
        return None


def _record(elbo: ELBO, model: Program, guide: Program, x: Tensor) -> tuple[float, list[Note]]:
    """The loss in nats and the estimator's records; for an estimator of Pyro, records made from its traces."""
    if isinstance(elbo, BetaELBO):
        recorder, notes = elbo.recording()
        return recorder.differentiable_loss(model, guide, x).item(), notes
    with undisturbed(x):  # the traces of the same draws as the loss; a copy, since Pyro stores a guessed nesting
        traces = list(copy.copy(elbo)._get_traces(model, guide, (x,), {}))
    notes = [note for pair in traces for note in _notes_of_stock(elbo, TracedPair.of(*pair))]
    return copy.copy(elbo).loss(model, guide, x), notes


def _notes_of_stock(elbo: ELBO, pair: TracedPair) -> Iterator[Note]:
    """What Pyro's estimator computed from these traces: like here, it looks up each KL in torch's registry."""
    for site in pair.sites:
        if site.role in (Role.OBSERVED, Role.MISSING):
            if site.role is Role.MISSING and isinstance(elbo, TraceMeanField_ELBO):
                pair.check()
            yield Note(site.name, Computation.SAMPLED, log_prob_of(site.site).sum(), site.model, None)
            continue
        q, p = site.site, site.model
        kl = None
        if p is not None and isinstance(elbo, TraceMeanField_ELBO):
            kl = _kl(q["fn"], p["fn"])
        if kl is not None:
            kl = torch.as_tensor(scale_and_mask(kl, q["scale"], q["mask"]))
            reason = Reason.ANOTHER_ORDER if site.drawn_later else None
            yield Note(site.name, Computation.CLOSED_FORM, -kl.sum(), p, q, reason)
        else:
            computation = Computation.SAMPLED if q["fn"].has_rsample else Computation.SCORE_FUNCTION
            value = -site.log_q() if p is None else -site.log_ratio()
            yield Note(site.name, computation, value.sum(), p, q)
