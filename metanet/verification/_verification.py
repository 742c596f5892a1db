"""What a verification measured."""

from collections.abc import Mapping
from dataclasses import dataclass, field

TOLERANCE = 1e-10
"""A legal relabelling may change the output by this share of its spread.

That is the rounding of float64, 150 layers deep.
"""

UNSEEN = 1e-6
"""An illegal relabelling that changes the output by less of its spread counts as not seen."""

INDEPENDENT = (
    "the function does not depend on this tensor on these inputs: random noise on all of it does not "
    "show"
)
UNREAD = (
    "the function does not depend on the entries that move on these inputs: random noise on them does "
    "not show"
)
ALONE = "its groups act on nothing else: to move this axis alone is to relabel the network"
ALIKE = "it kept its values, which are alike along the axis"
INVARIANT = (
    "the function is invariant in this direction: steps between the two orders do not show, other "
    "noise does"
)


@dataclass(frozen=True)
class Verification:
    """What :func:`~metanet.verify` measured, in float64 with all parameters random.

    Attributes:
        change: largest output change under a random legal transform, relative to the output's
            spread. An unsound spec shows here (a tensor left out or in the wrong group, a group
            split, a key too many). A spec that could move more, because two groups are merged or an
            axis is fixed without need, is sound and does not show.
        moved: share of the entries of movable tensors that the transforms moved.
        sensitivity: for every movable axis ``(tensor, axis)`` that was checked the relative output
            change when only this axis moves: the twin of ``change``, which proves that the test
            would notice a wrong relabelling.
        reasons: for axes among ``unseen`` why the output cannot show them, where that could be
            measured.
        movable: number of movable axes, checked or not.
        stuck: lines that read numbers from data and after which the network did the same in every
            draw: a branch there is covered on one side only.
        kept: buffers of integers that stayed as they are: other values make the network raise, or
            return no numbers.
    """

    change: float
    moved: float
    sensitivity: Mapping[tuple[str, int], float]
    reasons: Mapping[tuple[str, int], str] = field(default_factory=dict)
    movable: int = 0
    stuck: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()

    @property
    def unseen(self) -> tuple[tuple[str, int], ...]:
        """Axes ``(tensor, axis)`` whose illegal relabelling the output does not show."""
        return tuple(k for k, v in self.sensitivity.items() if v < UNSEEN)

    @property
    def unexplained(self) -> tuple[tuple[str, int], ...]:
        """Unseen axes without a measured reason: there the test was blind, and nobody knows why."""
        return tuple(k for k in self.unseen if k not in self.reasons)

    @property
    def ok(self) -> bool:
        """Legal relabellings keep the function (``change`` below ``TOLERANCE``), and no unseen axis
        is unexplained.

        Reasons do not excuse a change: they only say where the inputs, or the function, give the
        test no sight. A spec that moves nothing is sound and therefore ok; ``moved`` is 0 then.
        """
        return self.change < TOLERANCE and not self.unexplained

    def __str__(self) -> str:
        if not self.movable:
            first = f"legal change {self.change:.1e}; the spec moves nothing: there was nothing to check"
            return "\n".join([first, *self._notes()])
        count = len(self.sensitivity)
        checked = f"{count} axes" if count == self.movable else f"{count} of {self.movable} axes"
        verdict = "ok" if self.ok else "FAILED"
        lines = [
            f"{verdict}: legal change {self.change:.1e}, {self.moved:.0%} moved, {checked} checked, "
            f"{len(self.unseen)} not seen by the output"
        ]
        for place in self.unseen:
            name, axis = place
            lines.append(f"  {name} axis {axis}: {self.reasons.get(place, 'no reason found')}")
        return "\n".join([*lines, *self._notes()])

    def _notes(self) -> list[str]:
        """What was not tried."""
        stuck = "reads data as numbers, and no draw made the network go another way"
        kept = "kept its values, with others the network does not run"
        notes = dict.fromkeys(self.stuck, stuck) | dict.fromkeys(self.kept, kept)
        return [f"  {what}: {why}" for what, why in notes.items()]
