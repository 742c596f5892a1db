"""Two specs are compared by what they mean, whatever their groups are called and however their axes
are written."""

from collections.abc import Iterator, Sequence
from itertools import islice
from math import prod

from metanet.symmetry import SymmetrySpec
from metanet.symmetry._axes import Axis, Choice, Concat, Fixed, Leaf, Product, fixed_of, leaves_of
from metanet.symmetry._records import Group

Row = tuple[tuple[str, int], ...]


def rows(axis: Axis) -> list[Row]:
    """For every position along an axis the items it belongs to, outermost first: ``(("heads", 1),
    ("dims", 0))``.

    This is the normal form of an axis. Fixed positions without a name and groups of one item add
    nothing. An element of the symmetry group changes the numbers in a row; among the positions with
    equal rows it keeps the order. So expressions with the same rows move alike: ``2*a`` and ``a |
    a``, nested and flat products, fixed parts in one piece or in several. Of a choice by another
    axis of the tensor a row holds the items of all alternatives in order.
    """
    match axis:
        case Fixed(size, _, group):
            return [((group, n),) if group and size > 1 else () for n in range(size)]
        case Leaf(group, size):
            return [((group, n),) if size > 1 else () for n in range(size)]
        case Product(parts) if (at := _key(parts)) is not None:
            return _interleaved(parts, at)
        case Product(parts):
            out: list[Row] = [()]
            for part in parts:
                own = rows(part)
                out = [a + b for a in out for b in own]
            return out
        case Concat(parts):
            return [row for part in parts for row in rows(part)]
        case Choice(_, parts):
            choices = [rows(part) for part in parts]
            if all(choice == choices[0] for choice in choices):
                return choices[0]
            return [
                tuple(item for row in alternatives for item in row)
                for alternatives in zip(*choices, strict=True)
            ]


def _key(parts: Sequence[Axis]) -> int | None:
    """The first factor of a product by which others go."""
    by = {choice.by for part in parts for choice in _choices(part)}
    return next(
        (n for n, part in enumerate(parts) if isinstance(part, Concat) and part.name in by), None
    )


def _choices(axis: Axis) -> Iterator[Choice]:
    if isinstance(axis, Choice):
        yield axis
    for part in getattr(axis, "parts", ()):
        yield from _choices(part)


def _interleaved(parts: Sequence[Axis], at: int) -> list[Row]:
    """The rows of a product of which some factors go by another, a concatenation: a shuffled
    one."""
    key = parts[at]
    own = []
    for n, segment in enumerate(key.parts):
        inside = [_picked(part, key.name, n) for part in parts]
        inside[at] = segment
        own.append(iter(rows(Product(tuple(inside)))))
    slow, fast = (prod(part.size for part in some) for some in (parts[:at], parts[at + 1 :]))
    lengths = [segment.size * fast for segment in key.parts]
    return [
        row
        for _ in range(slow)
        for some, n in zip(own, lengths, strict=True)
        for row in islice(some, n)
    ]


def _picked(axis: Axis, name: str, n: int) -> Axis:
    """The axis where the concatenation of this name is in its part ``n``."""
    match axis:
        case Choice(by, parts) if by == name:
            return _picked(parts[n], name, n)
        case Choice(by, parts):
            return Choice(by, tuple(_picked(part, name, n) for part in parts))
        case Product(parts):
            return Product(tuple(_picked(part, name, n) for part in parts))
        case Concat(parts, own):
            return Concat(tuple(_picked(part, name, n) for part in parts), own)
    return axis


def moving_groups(spec: SymmetrySpec) -> list[Group]:
    """The groups that something acts on: permutations of more than one item."""
    return [g for g in spec.groups if g.kind == "permutation" and g.size > 1]


class _Matching:
    """Which derived group is which expected one. Axes that only serve as keys need not correspond
    one to one."""

    def __init__(self, derived: SymmetrySpec, expected: SymmetrySpec) -> None:
        self.derived, self.expected = derived, expected
        self.to_expected: dict[str, str] = {}
        self.to_derived: dict[str, str] = {}
        self.seen_in: dict[tuple[str, str], str] = {}
        self.fixed: set[tuple[str, str]] = set()

    def add(self, d: str, e: str, tensor: str) -> str:
        """Why these two cannot be the same group, given all before; empty if they can."""
        for name, spec in ((d, self.derived), (e, self.expected)):
            if name not in spec.by_name:
                return f"{name!r} is no group"
        kinds = self.derived[d].kind, self.expected[e].kind
        if kinds[0] != kinds[1]:
            return f"derived {d!r} is {kinds[0]}, expected {e!r} is {kinds[1]}"
        if kinds[0] != "permutation":
            self.fixed.add((d, e))
            return ""
        if self.to_expected.setdefault(d, e) != e:
            other = self.to_expected[d]
            return f"derived {d!r} is expected {other!r} in {self.seen_in[d, other]}, but {e!r} here: merged"
        if self.to_derived.setdefault(e, d) != d:
            other = self.to_derived[e]
            self.to_expected.pop(d)
            return f"expected {e!r} is derived {other!r} in {self.seen_in[other, e]}, but {d!r} here: split"
        self.seen_in.setdefault((d, e), tensor)
        return ""

    def key_differences(self) -> Iterator[str]:
        """Groups that are keyed by something else than they should be."""
        for d, e in self.to_expected.items():
            have, want = _keys(self.derived, d), _keys(self.expected, e)
            loose = [k for k in have if self.derived[k].kind != "permutation"]
            bound = [k for k in want if self.expected[k].kind != "permutation"]
            same = {self.to_expected.get(k) for k in have - set(loose)} == want - set(bound)
            paired = all(any((a, b) in self.fixed for b in bound) for a in loose)
            paired &= all(any((a, b) in self.fixed for a in loose) for b in bound)
            if not (same and paired):
                yield f"group {d!r} (expected {e!r}): keys derived {sorted(have)}, expected {sorted(want)}"


def _keys(spec: SymmetrySpec, group: str) -> set[str]:
    return {k for k in spec[group].keys if spec[k].size > 1}


def differences(derived: SymmetrySpec, expected: SymmetrySpec, most: int = 8) -> list[str]:
    """What tells two specs apart, up to names of groups; empty when they mean the same.

    Args:
        most: tensors shown, derived and expected side by side; the first are the ones to look at,
            as later ones may only follow from them.
    """
    out = []
    if missing := [n for n in expected.tensors if n not in derived.tensors]:
        out.append(f"not derived: {', '.join(missing[:most])}")
    if extra := [n for n in derived.tensors if n not in expected.tensors]:
        out.append(f"not expected: {', '.join(extra[:most])}")
    matching = _Matching(derived, expected)
    wrong = []
    for name in expected.tensors:
        if name in derived.tensors:
            for axis, reason in _tensor_differences(name, matching):
                sides = [spec.tensors[name].axes for spec in (derived, expected)]
                have, want = (
                    str(s[axis]) if 0 <= axis < len(s) else " ".join(map(str, s)) for s in sides
                )
                wrong.append(
                    f"{name} axis {axis}\n    derived   {have}\n    expected  {want}\n    {reason}"
                )
    out += wrong[:most] + ([f"... and {len(wrong) - most} more axes"] if len(wrong) > most else [])
    if not wrong:  # otherwise the matching is not to be relied on
        out += matching.key_differences()
    for spec, matched, word in (
        (derived, matching.to_expected, "derived"),
        (expected, matching.to_derived, "expected"),
    ):
        if unmatched := [g.name for g in moving_groups(spec) if g.name not in matched]:
            out.append(f"{word} groups without a partner: {', '.join(unmatched[:most])}")
    return out


def _tensor_differences(name: str, matching: _Matching) -> Iterator[tuple[int, str]]:
    """Axes of one tensor that differ, and why."""
    d, e = matching.derived.tensors[name], matching.expected.tensors[name]
    if (d.shape, d.dtype, d.tied_to) != (e.shape, e.dtype, e.tied_to):
        yield -1, f"derived {d.shape, d.dtype, d.tied_to}, expected {e.shape, e.dtype, e.tied_to}"
        return
    idle = {*_idle(matching.derived, name)}, {*_idle(matching.expected, name)}
    for axis, both in enumerate(zip(d.axes, e.axes, strict=True)):
        have, want = ([tuple(i for i in row if i[0] not in drop) for row in rows(a)]
                      for a, drop in zip(both, idle, strict=True))  # fmt: skip
        if len(have) != len(want):
            yield axis, f"{len(have)} items derived, {len(want)} expected"
            continue
        pairs = dict.fromkeys(
            (a[0], b[0])
            for x, y in zip(have, want, strict=True)
            for a, b in zip(x, y, strict=False)
        )
        digits = [([i for _, i in x], [i for _, i in y]) for x, y in zip(have, want, strict=True)]
        unlike = next((n for n, (x, y) in enumerate(digits) if x != y), None)
        if unlike is not None:
            yield (
                axis,
                f"position {unlike} is {have[unlike] or 'fixed'}, expected {want[unlike] or 'fixed'}",
            )
            continue
        if reasons := [reason for a, b in pairs if (reason := matching.add(a, b, name))]:
            yield axis, "; ".join(reasons)


def _idle(spec: SymmetrySpec, name: str) -> Iterator[str]:
    """Groups in a tensor that nothing acts on and that key nothing there: no more than fixed
    positions."""
    axes = spec.tensors[name].axes
    present = {leaf.group for axis in axes for leaf in leaves_of(axis)} & spec.by_name.keys()
    used = {key for group in present for key in spec[group].keys}
    yield from (fixed.group for axis in axes for fixed in fixed_of(axis) if fixed.group not in used)
