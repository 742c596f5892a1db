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
    # {sign: 1, scale: 1} ** 2: {scale: 2}, as the square of a sign is 1
    out: dict[int, Number] = {}
    for v, c in form.items():
        if v & 1:
            out[v] = c * k
        elif c * k % 2:
            out[v] = c * k % 2
    return out


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
        # scales: a + 2 b - 4 c = 0 is c = a / 4 + b / 2;  signs: a + b + c = 0 is c = a + b
        reduced = self.reduced(form)
        for kind in (SIGN, SCALE):
            terms = dict(part(reduced, kind))
            if not terms:
                continue
            newest = max(terms)
            c = terms.pop(newest)
            if kind == SCALE:
                terms = {v: _divided(-x, c) for v, x in terms.items()}
            self.solved[newest] = terms


def _divided(x: Number, by: Number) -> Number:
    """A quotient, which stays an integer where the divisor is 1 or -1."""
    return x * by if by in (1, -1) else Fraction(x) / by
