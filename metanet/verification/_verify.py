"""Legal relabellings keep the function, illegal ones change it."""

from typing import Any

import torch
from torch import Tensor, nn

from ..architecture import Architecture
from ..errors import MetanetError
from ..progress import track
from ..symmetry import Axis, Leaf, SymmetrySpec, Transform, leaves_of
from ..tracing import record
from ._integers import redraw_integers
from ._network import PROBES, Network
from ._redraw import noise_like
from ._verification import (
    ALIKE,
    ALONE,
    INDEPENDENT,
    INVARIANT,
    TOLERANCE,
    UNREAD,
    UNSEEN,
    Verification,
)

Place = tuple[str, int]  # tensor, axis


def verify(
    model: nn.Module,
    spec: SymmetrySpec | Architecture,
    *inputs: Any,
    seed: int = 0,
    draws: int = 2,
    sensitivity: bool = True,
    axes: int | None = None,
    probes: int = PROBES,
    progress: bool = False,
    **kwargs: Any,
) -> Verification:
    """Test a spec against the network itself.

    Legal relabellings keep the function, illegal ones change it.

    Everything runs on a float64 copy whose parameters and buffers are all drawn anew, masks and
    index tables too, and complex ones in both parts, because freshly initialised networks hide
    mistakes (zero biases, unit scales, residual branches that start at zero, masks of ones). The
    caller's model is not touched. Where the network reads numbers from data and branches on them,
    it is drawn anew until it goes another way; ``Verification.stuck`` names the lines where it
    never did.

    An illegal relabelling moves one axis of one tensor by its groups' elements and nothing else.
    Where the output does not show it under any of the draws, two measurements look for the reason
    (``Verification.reasons``): random noise on the tensor, or on the entries that move, changes
    nothing either (a bias whose shift a softmax or a normalisation takes away, rows of a table that
    the inputs do not read); or, for vectors, steps along the line from the old order to the new one
    change nothing although noise does (a bias of which only the sum matters).

    Or else the axis is all that its groups act on, so that to move it alone is to relabel the
    network.

    Args:
        model: the network.
        spec: its symmetries, or the architecture that has them.
        inputs, kwargs: as in ``model(*inputs, **kwargs)``; any nesting. Call again with inputs of
            other sizes.
        seed: of parameters and transforms.
        draws: how many random transforms; one alone may happen to exchange two units that are dead
            on these inputs.
        sensitivity: also check illegal relabellings: one run per movable axis, and a few more where
            one is not seen.
        axes: check only this many axes, drawn at random; ``None`` for all.
        probes: so many matrices are shaken to find a scale of parameters at which the output shows
            every part: one run each, for up to six scales.
        progress: show a bar.

    Raises:
        MetanetError: no spec or one that does not fit the model, a parameter on the meta device, a
            forward pass that raises, gives no numbers, or is not deterministic.
    """
    spec = spec.spec if isinstance(spec, Architecture) else spec
    if not isinstance(spec, SymmetrySpec):
        raise MetanetError(
            f"verify(model, spec, *inputs) takes arch.spec of arch=metanet.trace(model, ...) second, not "
            f"{type(spec).__name__}; inputs come after it"
        )
    # a network that draws random numbers leaves the caller's generator alone
    with torch.random.fork_rng():
        return _verify(
            model, spec, inputs, kwargs, seed, draws, axes if sensitivity else 0, probes, progress
        )


def _verify(
    model: nn.Module,
    spec: SymmetrySpec,
    inputs: Any,
    kwargs: Any,
    seed: int,
    draws: int,
    axes: int | None,
    probes: int,
    progress: bool,
) -> Verification:
    generator = torch.Generator().manual_seed(seed)
    network = Network(model, spec, inputs, kwargs, generator, probes)
    transforms = [_restless(spec.sample(generator)) for _ in range(draws)]
    places = _places(spec)
    change, moved, total = 0.0, 0, 0
    for t in transforms:
        relabelled = t(network.state)
        change = max(change, network.change(network.run(relabelled)))
        for name in dict.fromkeys(name for name, _ in places):
            moved += int((relabelled[name] != network.state[name]).sum())
            total += network.state[name].numel()
    checked = places
    if axes is not None and axes < len(checked):
        picks = torch.randperm(len(checked), generator=generator)[:axes].sort().values
        checked = [checked[i] for i in picks.tolist()]
    seen: dict[Place, float] = {}
    reasons: dict[Place, str] = {}
    for place in _bar(checked, progress):
        seen[place] = _seen(network, _moving(network, transforms, place, generator), place)
        if seen[place] >= UNSEEN:
            continue
        reason = _reason(network, transforms[0], place, generator)
        if reason:
            reasons[place] = reason
    stuck, changes = _other_ways(model, spec, inputs, kwargs, network, transforms, generator)
    share = moved / total if total else 0.0
    return Verification(
        max(change, *changes), share, seen, reasons, len(places), stuck, network.kept
    )


def _other_ways(
    model: nn.Module,
    spec: SymmetrySpec,
    inputs: Any,
    kwargs: Any,
    network: Network,
    transforms: list[Transform],
    generator: torch.Generator,
) -> tuple[tuple[str, ...], list[float]]:
    """Draws the network anew until it did something else behind every line that reads data.

    Returns:
        The lines where it never did, and the output changes under the transforms at the other
        draws.
    """
    stuck, changes = dict.fromkeys(network.ways), [0.0]
    if stuck:
        trace = record(model, inputs, kwargs)
        tables = trace.known()  # the others read data
        data = {place for value, place in trace.reads.items() if value not in tables}
        stuck = {place: None for place in stuck if place in data}
    for _ in range(_MORE_DRAWS):
        if not stuck:
            break
        try:
            other = Network(model, spec, inputs, kwargs, generator, probes=0)
        except MetanetError:  # a way that raises, or without numbers: nothing can be compared there
            continue
        changes += (other.change(other.run(t(other.state))) for t in transforms)
        stuck = {place: None for place in stuck if other.ways.get(place) == network.ways[place]}
    return tuple(stuck), changes


_MORE_DRAWS = 8


def _places(spec: SymmetrySpec) -> list[Place]:
    """Every axis of every tensor that some transform moves; a tied tensor once."""

    def moves(leaf: Leaf) -> bool:
        return leaf.size > 1 and spec[leaf.group].kind != "fixed"

    places: list[Place] = []
    for place, axis in _axes(spec).items():
        if any(map(moves, leaves_of(axis))):
            places.append(place)
    return places


def _axes(spec: SymmetrySpec) -> dict[Place, Axis]:
    """Every axis of every tensor; a tied tensor once."""
    axes: dict[Place, Axis] = {}
    for name, tensor in spec.tensors.items():
        if tensor.tied_to is None:
            axes.update({(name, i): axis for i, axis in enumerate(tensor.axes)})
    return axes


def _is_whole(spec: SymmetrySpec, place: Place) -> bool:
    """Whether its groups act on this axis and nowhere else: moving it alone is a legal relabelling
    then."""
    name, number = place
    groups = {leaf.group for leaf in leaves_of(spec.tensors[name].axes[number])}
    others: set[str] = set()
    for other, axis in _axes(spec).items():
        if other != place:
            others.update(leaf.group for leaf in leaves_of(axis))
    return groups.isdisjoint(others)


def _restless(t: Transform) -> Transform:
    """The same transform with every identity in it replaced by a rotation: small groups would often
    stay put."""
    elements = {}
    for name, element in t.elements.items():
        idle = (element == torch.arange(element.shape[-1])).all(-1, keepdim=True)
        elements[name] = torch.where(idle, element.roll(1, -1), element)
    return Transform(t.spec, elements)


def _names(spec: SymmetrySpec, name: str) -> list[str]:
    tied = [n for n, t in spec.tensors.items() if t.tied_to == name]
    return [name, *tied]


def _moving(
    network: Network, transforms: list[Transform], place: Place, generator: torch.Generator
) -> list[Transform]:
    """The transforms; for a table of few values, which these may leave as it is, others that do
    not."""
    name, axis = place
    spec, old = transforms[0].spec, network.state[name]
    if not spec.tensors[name].integer:
        return transforms
    more = [_restless(spec.sample(generator)) for _ in range(_MORE_TRANSFORMS)]
    moving: list[Transform] = []
    for t in (*transforms, *more):
        if not torch.equal(t.apply(name, old, (axis,)), old):
            moving.append(t)
    return moving[: len(transforms)] or transforms


_MORE_TRANSFORMS = 12


def _seen(network: Network, transforms: list[Transform], place: Place) -> float:
    """Output change when one axis moves alone: of the first transform that shows, else the largest
    of all."""
    name, axis = place
    most = 0.0
    for t in transforms:
        illegal = {n: t.apply(n, network.state[n], (axis,)) for n in _names(t.spec, name)}
        most = max(most, network.change(network.run(illegal)))
        if most >= UNSEEN:
            break
    return most


def _reason(network: Network, t: Transform, place: Place, generator: torch.Generator) -> str:
    """Why an axis is not seen, measured on the function; empty when it cannot be told."""
    name, axis = place
    old = network.state[name]
    new = t.apply(name, old, (axis,))
    measure = _reason_of_integers if t.spec.tensors[name].integer else _reason_of_numbers
    reason = measure(network, _names(t.spec, name), old, new, generator)
    if reason:
        return reason
    return ALONE if _is_whole(t.spec, place) else ""


def _reason_of_integers(
    network: Network, names: list[str], old: Tensor, new: Tensor, generator: torch.Generator
) -> str:
    """Of a mask or an index table."""
    if torch.equal(new, old):
        return ALIKE
    other = dict.fromkeys(names, redraw_integers(old, generator))
    is_blind = network.change(network.run(other)) < TOLERANCE
    return INDEPENDENT if is_blind else ""


def _reason_of_numbers(
    network: Network, names: list[str], old: Tensor, new: Tensor, generator: torch.Generator
) -> str:
    """Of all other tensors, by what is added to them."""

    def blind_to(shift: Tensor) -> bool:
        shifted = {name: network.state[name] + shift for name in names}
        return network.change(network.run(shifted)) < TOLERANCE

    # old: (1, 2, 3), new: (2, 1, 3). Noise on all three, on the first two, then along (1, -1, 0)
    noise = noise_like(old, generator)
    if blind_to(noise):
        return INDEPENDENT
    if blind_to(noise * (new != old)):
        return UNREAD
    is_vector = old.numel() == max(old.shape)
    step = new - old
    if is_vector and blind_to(0.5 * step) and blind_to(-1.7 * step):
        return INVARIANT
    return ""


def _bar(places: list[Place], progress: bool) -> Any:
    return track(places, "illegal relabellings", unit="axes", show=progress)
