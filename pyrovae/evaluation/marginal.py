"""Log p(x) of a trained model, by importance sampling, annealing, a grid, or automatically."""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Unpack

from torch import Tensor

from pyrovae.errors import InputError, InputTypeError, check_choice
from pyrovae.evaluation._method import Method, problem_of
from pyrovae.evaluation.annealing import Annealing, AnnealingKeywords
from pyrovae.evaluation.automatic import Automatic
from pyrovae.evaluation.estimate import LogMarginal
from pyrovae.evaluation.importance import Importance
from pyrovae.evaluation.quadrature import Quadrature
from pyrovae.frames import Data
from pyrovae.keywords import accepts
from pyrovae.programs import Program

METHODS: dict[str, type[Method]] = {method.name: method for method in (Automatic, Importance, Quadrature, Annealing)}
"""The methods by name."""


class MethodKeywords(AnnealingKeywords, total=False):
    """The options of all methods, as a type checker sees the keywords of :func:`log_marginal`."""

    num_points: int


@accepts(Automatic, Importance, Quadrature, Annealing)
def log_marginal(
    model: Program,
    guide: Program,
    x: Data,
    method: str | Method = "auto",
    *,
    reverse: bool = False,
    latents: Tensor | None = None,
    seed: int = 0,
    max_plate_nesting: int = 1,
    progress: bool = False,
    **options: Unpack[MethodKeywords],
) -> LogMarginal:
    """Estimate log p(x) for each datum.

    ``"auto"`` does as much as each datum needs. It uses importance weights at draws from the guide; if these are not
    good enough, at draws from a posterior refined for the datum (:func:`~pyrovae.refine`); if not, annealing from
    there. ``steps`` of the result says how far it went, ``unreliable`` which values remain unreliable. With a good
    guide it costs 1.5 times as much as ``"importance"``.

    ``"importance"`` is the log-mean-exp of weights p(x, z)/q(z|x) at draws from the guide: a lower bound in
    expectation, whose error falls with ``num_samples``. If the guide is too narrow for this to work in practice, Pareto
    k̂ shows it, and there is a warning.

    ``"quadrature"`` sums p(z) p(x|z) over a grid of at most three latent dimensions: midpoints around the mode, or
    Gauss–Hermite nodes around the guide. A grid of half the points gives an estimate of its error.

    ``"annealed"`` runs chains from the guide or the prior to the posterior, by Hamiltonian transitions through
    ``num_temperatures`` intermediate densities: a lower bound that needs no good guide. With ``latents``, the chains
    run back from an exact draw of the posterior, and the result is an upper bound. Only data simulated from the model
    have such a draw. :func:`~pyrovae.sandwich` does both.

    Memory does not grow with the number of data or draws (annealing keeps all chains of a datum in memory). Modules are
    evaluated as copies in float64: in float32 the density of a nearly singular q has no correct digits at its draws,
    and the estimate may be far above the truth.

    Args:
        model: Pyro program of the joint density, with the data along a plate.
        guide: Pyro program of q(z|x), reparameterised.
        x: data (num, …), on the programs' device.
        method: a name, ``"auto"``, ``"importance"``, ``"quadrature"`` or ``"annealed"``, with its options as keywords;
            or a method with its options: :class:`~pyrovae.evaluation.Automatic`,
            :class:`~pyrovae.evaluation.Importance`, :class:`~pyrovae.evaluation.Quadrature` or
            :class:`~pyrovae.evaluation.Annealing`.
        reverse: whether to anneal back from the posterior; always with ``latents``.
        latents: for data simulated from the model, the z of each x, shape (num, latent_dim), from
            ``GenerativeModel.simulate``. Annealing then gives an upper bound.
        seed: seed of the draws; the caller's random state does not change.
        max_plate_nesting: of version 0.1; it has no effect, since plates are found.
        progress: whether to show a progress bar (on a terminal).
        **options: the fields of the named method's class. ``num_samples``: draws of z per datum (auto and importance,
            1000 by default), or chains (annealed, 16). ``num_points``: of a grid along each latent dimension.
            ``center``: where a grid lies, or where annealing starts (``"guide"`` by default).
            ``num_temperatures``: steps of annealing (annealed 500; auto 50, then twice as many). ``num_leapfrog``:
            leapfrog steps in each of annealing's transitions.

    Raises:
        InputError: an unknown method, an option of another method, no samples, data that the programs cannot take, a
            grid for more than three latent dimensions, or a grid or annealing for programs that are not
            ``GenerativeModel`` and ``AmortizedGuide``.
        NoClosedFormError: a latent site outside the data plate, or one that is not reparameterised.

    Example:
        >>> import pyrovae as pv
        >>> from pyrovae.evaluation import Quadrature
        >>> model = pv.GenerativeModel(pv.nn.MLP(2, 8), pv.GaussianLikelihood(8, 3), latent_dim=2)
        >>> guide = pv.AmortizedGuide(pv.nn.MLP(3, 8), pv.DiagonalPosterior(8, 2))
        >>> x = model.sample(10)
        >>> log_marginal(model, guide, x, Quadrature(num_points=40)).per_datum.shape
        torch.Size([10])
        >>> same = log_marginal(model, guide, x, "quadrature", num_points=40)  # by name
    """
    chosen = _method(method, options)
    if (reverse or latents is not None) and not chosen.takes_latents:
        raise InputError(f"reverse and latents are options of method='annealed', not of {chosen.name!r}")
    if reverse and latents is None:
        raise InputError(
            "reverse=True and latents=, the z that x was simulated with, belong together (z, x = model.simulate(100)): "
            "only simulated data come with an exact draw of their posterior"
        )
    if latents is not None and not isinstance(latents, Tensor):
        raise InputTypeError(f"latents must be a tensor, not {type(latents).__name__}")
    with problem_of(model, guide, x, seed, latents=latents, progress=progress) as problem:
        found = chosen.estimate(problem)
    likelihood = getattr(model, "likelihood", None)
    return replace(found, is_density=getattr(likelihood, "is_density", True))


def _method(method: str | Method, options: MethodKeywords) -> Method:
    """The method with its options; None means an option's default."""
    given = {name: value for name, value in options.items() if value is not None}
    if isinstance(method, Method):
        if given:
            option, kind = next(iter(given)), type(method).__name__
            raise InputError(f"{option} is an option of the method: give it to {kind}(…), or give the method's name")
        return method
    check_choice("method", method, list(METHODS))
    allowed = [field.name for field in fields(METHODS[method])]
    for name in given:
        if name not in allowed:
            raise InputError(f"{name} is not an option of method={method!r}, whose options are {', '.join(allowed)}")
    make: Callable[..., Method] = METHODS[method]
    return make(**given)
