"""Charges as linear forms in unknowns, and the equations between them.

A form maps unknowns to numbers. It holds the unknowns of both kinds at once: even numbers stand for
signs, whose coefficients count modulo 2, odd ones for scales.

>>> plus({0: 1, 1: 1}, {0: 1, 1: 2})
{1: 3}
"""

from collections.abc import Mapping
from fractions import Fraction

Number = int | Fraction
Form = Mapping[int, Number]
ZERO: Form = {}
SIGN, SCALE = 0, 1


def plus(a: Form, b: Form, k: Number = 1) -> Form:
    """``a + k b``."""
    if not b:
        return a
    if not a and k == 1:
        return b
    out = dict(a)
    for v, c in b.items():
        total = out.get(v, 0) + k * c
        if not v & 1:
            total %= 2
        if total:
            out[v] = total
        else:
            out.pop(v, None)
    return out


def part(form: Form, kind: int) -> Form:
    """The unknowns of one kind."""
    return {v: c for v, c in form.items() if v & 1 == kind} if form else form


def power(form: Form, k: Number) -> Form:
    """The charge of ``x ** k``. Without meaning for signs unless k is an integer."""
    return {v: c * k % 2 if not v & 1 else c * k for v, c in form.items() if v & 1 or c * k % 2}


class System:
    """Homogeneous linear equations between unknowns, solved as they come: the newest unknown goes
    first."""

    def __init__(self) -> None:
        self.owner: list[int] = []  # leaf of each pair of unknowns
        self.solved: dict[int, Form] = {}

    def fresh(self, leaf: int) -> Form:
        """An unknown charge, of both kinds."""
        n = 2 * len(self.owner)
        self.owner.append(leaf)
        return {n: 1, n + 1: 1}

    def reduced(self, form: Form) -> Form:
        """The form in free unknowns."""
        solved = self.solved
        while not solved.keys().isdisjoint(form):
            out: Form = ZERO
            for v, c in form.items():
                inner = solved.get(v)
                out = plus(out, {v: 1}, c) if inner is None else plus(out, inner, c)
            form = out
        return form

    def vanish(self, form: Form) -> None:
        """The charge is 0."""
        if not form:
            return
        parts: tuple[dict[int, Number], dict[int, Number]] = ({}, {})
        for v, c in self.reduced(form).items():
            parts[v & 1][v] = c
        for kind, terms in enumerate(parts):
            if terms:
                newest = max(terms)
                c = terms.pop(newest)
                if kind == SCALE:
                    terms = {
                        v: -x * c if c in (1, -1) else Fraction(-x) / c for v, x in terms.items()
                    }
                self.solved[newest] = terms
