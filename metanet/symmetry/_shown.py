"""A spec as text, as tables for notebooks, and why the axes of a tensor are as they are."""

from collections.abc import Iterable, Sequence
from html import escape
from itertools import chain
from typing import Any

from ._axes import Axis, concats_of, fixed_of, leaves_of


def as_text(spec: Any) -> str:
    """The groups, then the axes of every tensor, a line each."""
    movable = set(chain.from_iterable(spec.users.values()))
    lines = [
        f"SymmetrySpec: {len(spec.groups)} groups, {len(movable)} of {len(spec.tensors)} tensors move"
    ]
    for g in spec.groups:
        per = f" per {', '.join(g.keys)}" if g.keys else ""
        also = f" also {', '.join(sorted(g.also))}" if g.also else ""
        lines.append(f"  {g.name}[{g.size}] {g.kind}{per}{also}")
    width = max(map(len, spec.tensors), default=0)
    for name, tensor in spec.tensors.items():
        axes = "  ".join(map(str, tensor.axes))
        lines.append(f"  {name:<{width}}  {axes}")
    return "\n".join(lines)


def as_html(spec: Any) -> str:
    """A table of the groups, and one of the tensors that unfolds."""
    groups = [
        (f"{g.name}[{g.size}]", g.kind, ", ".join(g.keys), ", ".join(sorted(g.also)))
        for g in spec.groups
    ]
    tensors = [
        (n, " ".join(map(str, t.shape)), "; ".join(map(str, t.axes)))
        for n, t in spec.tensors.items()
    ]
    return (
        f"{html_table(('group', 'kind', 'one per', 'also'), groups)}"
        f"<details><summary>{len(tensors)} tensors</summary>"
        f"{html_table(('tensor', 'shape', 'axes'), tensors)}</details>"
    )


def explanation(spec: Any, name: str) -> str:
    """Why the axes of a tensor are as they are."""
    tensor = spec.tensors[name]
    lines = [f"{name} {tensor.shape} {tensor.dtype}"]
    if tensor.tied_to:
        lines.append(f"  another name of {tensor.tied_to}")
    for number, axis in enumerate(tensor.axes):
        lines.append(f"  axis {number}: {axis}")
        for concat in concats_of(axis):
            if concat.why:
                sizes = " | ".join(str(part.size) for part in concat.parts)
                lines.append(f"    {sizes}: cut by {concat.why}")
        for why, size in _by_reason(axis).items():
            lines.append(f"    {size} fixed: {why}")
        for group in dict.fromkeys(leaf.group for leaf in leaves_of(axis)):
            users = spec.users.get(group, ())
            per = (
                f" (one arrangement per {', '.join(spec[group].keys)})" if spec[group].keys else ""
            )
            lines.append(
                f"    moves with {group}{per}, shared by {len(users)} tensors: {', '.join(users[:4])}"
            )
    return "\n".join(lines)


def html_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A plain table for notebooks; cells are text."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    lines = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _by_reason(axis: Axis) -> dict[str, int]:
    """How many items of an axis are fixed for each reason."""
    sizes: dict[str, int] = {}
    for part in fixed_of(axis):
        sizes[part.reason] = sizes.get(part.reason, 0) + part.size
    return sizes
