"""Wild leaves: axes along which nothing varies.

A constant 1 that is broadcast over eight channels lists no items of its own: it fits whatever it
meets. At each use its axis is another leaf, or else whatever it meets first would be tied to
whatever it meets next.
"""

from ._bindings import Expr
from ._leaves import Leaves


def has_wild(leaves: Leaves, expr: Expr) -> bool:
    """Whether nothing varies along a factor of an axis, or along a stretch of one."""
    return any(_is_wild(leaves, atom) for atom in leaves.expand(expr))


def _is_wild(leaves: Leaves, atom: int) -> bool:
    if not leaves.is_concat(atom):
        return leaves.is_wild(atom)
    return any(has_wild(leaves, part) for part in leaves.parts(atom))


def renewed(leaves: Leaves, expr: Expr) -> Expr:
    """The expression with fresh wild leaves: each use of a uniform axis may meet something else."""
    atoms = leaves.expand(expr)
    if not has_wild(leaves, atoms):
        return atoms
    out: Expr = ()
    for atom in atoms:
        out += _renewed(leaves, atom)
    return out


def _renewed(leaves: Leaves, atom: int) -> Expr:
    if leaves.is_wild(atom):
        return leaves.new(leaves.sizes[atom], wild=True)
    # tables that go by a concatenation go by this very node
    if leaves.tables.get(atom) or not _is_wild(leaves, atom):
        return (atom,)
    return leaves.concat([renewed(leaves, part) for part in leaves.parts(atom)])
