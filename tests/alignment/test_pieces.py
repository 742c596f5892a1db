"""Cutting tensors into pieces and scoring moves, against what transforms do to whole tensors."""

import numpy as np
import pytest
import torch

import metanet
from alignment.networks import traced
from metanet.alignment._ascent import Ascent
from metanet.alignment._elements import to_elements, to_transform
from metanet.alignment._moves import keys_of, moves_of
from metanet.alignment._pieces import pieces_of
from metanet.alignment._scores import Scores, earned
from metanet.alignment._stock import Stock, balanced
from metanet.alignment._wreath import Element, Term, score
from metanet.symmetry import (
    Concat,
    Fixed,
    Group,
    Leaf,
    SymmetrySpec,
    TensorAxes,
    Transform,
    leaves_of,
)
from metanet.testing import Program
from symmetry.constructs import CONSTRUCTS


def spec_of(name):
    torch.manual_seed(0)
    if name.startswith("program"):
        program = Program(int(name.split()[1]))
        return metanet.trace(program, program.example).spec
    model, *_ = CONSTRUCTS[name].make()
    return CONSTRUCTS[name].spec(model)


def draws(spec, seed):
    """Two random checkpoints and their stock in float64."""
    g = torch.Generator().manual_seed(seed)
    wide = {True: torch.complex128, False: torch.float64}
    a, b = (
        {
            n: torch.randn(t.shape, generator=g, dtype=wide[t.is_complex])
            for n, t in spec.tensors.items()
        }
        for _ in "ab"
    )
    for state in (a, b):
        state.update({n: state[t.tied_to] for n, t in spec.tensors.items() if t.tied_to})
    return a, b, Stock(spec, pieces_of(spec), a, b, torch.device("cpu"), 2**30), g


def inner_product(a, b, spec):
    statistics = ("running_mean", "running_var")
    return sum(
        float((a[n] * b[n].conj()).sum().real)
        for n, t in spec.tensors.items()
        if t.tied_to is None and not t.integer and not n.endswith(statistics)
    )  # fmt: skip


pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated")
NAMES = [*CONSTRUCTS, *(f"program {n}" for n in range(40))]


@pytest.mark.parametrize("name", NAMES)
def test_pieces_move_as_whole_tensors_do(name):
    spec = spec_of(name)
    a, b, stock, g = draws(spec, 0)
    t = spec.sample(g)
    elements = to_elements(t, keys_of(spec))
    found = sum(earned(stock, n, elements, keys_of(spec)) for n in range(len(stock.pieces)))
    assert found == pytest.approx(inner_product(a, t(b), spec), rel=1e-9, abs=1e-9)
    again = to_transform(elements, spec)(b)
    assert all(torch.equal(again[n], x) for n, x in t(b).items())


@pytest.mark.parametrize("name", NAMES)
def test_scores_tell_what_a_move_gains(name):
    """Wherever the others stand, and however they came there; exact unless a group has two axes of
    one piece."""
    spec = spec_of(name)
    a, b, stock, g = draws(spec, 1)
    keys = keys_of(spec)
    moves = moves_of(spec, stock.pieces, keys)
    scores = [Scores(m, stock, keys) for m in moves]
    for _ in range(3):  # the second and third time the scores are brought up to date
        here = to_elements(spec.sample(g), keys)
        there = to_elements(spec.sample(g), keys)
        for move, own in zip(moves, scores, strict=True):
            new = {**here, **{f: there[f] for f in move.free}}
            before, after = (
                {f: Element(keys[f], e[f].numpy()) for f in move.free} for e in (here, new)
            )
            terms = own.terms(here)
            gain = score(terms, after) - score(terms, before) + own.true(new) - own.true(here)
            whole = [inner_product(a, to_transform(e, spec)(b), spec) for e in (here, new)]
            assert gain == pytest.approx(whole[1] - whole[0], rel=1e-7, abs=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_the_ascent_rises_and_ends_where_it_says(name):
    spec = spec_of(name)
    a, b, stock, g = draws(spec, 2)
    keys = keys_of(spec)
    ascent = Ascent(
        stock, moves_of(spec, stock.pieces, keys), keys, to_elements(spec.sample(g), keys), g
    )
    ascent.run(50)
    assert ascent.objective == sorted(ascent.objective)
    moved = to_transform(ascent.elements, spec)(b)
    assert ascent.objective[-1] == pytest.approx(inner_product(a, moved, spec), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("name", NAMES[::4])
def test_what_groups_earn_besides_counts_too(name):
    spec = spec_of(name)
    a, b, stock, g = draws(spec, 5)
    keys = keys_of(spec)
    moves = moves_of(spec, stock.pieces, keys)
    sizes = {m.root: spec[m.root].size for m in moves if not keys[m.root]}
    more = [
        Term((), (r,), torch.randn(n, n, generator=g).double().numpy()) for r, n in sizes.items()
    ]
    roots = [*sizes][:2]
    if len(roots) == 2:  # and two groups that earn something together
        shape = [sizes[r] for r in (*roots, *roots)]
        more.append(Term((), tuple(roots), torch.randn(shape, generator=g).double().numpy()))
    ascent = Ascent(stock, moves, keys, to_elements(spec.identity(), keys), g, more)
    start = ascent.objective[0]
    assert start == pytest.approx(
        inner_product(a, b, spec) + sum(_at_identity(t) for t in more), abs=1e-9
    )
    ascent.run(50)
    assert ascent.objective == sorted(ascent.objective)
    assert ascent.objective[-1] == pytest.approx(ascent.value())
    assert (
        len(ascent.objective) > 1 or max(sizes.values(), default=0) <= 2
    )  # two items may stand right by chance


def _at_identity(term):
    places = "abcd"[: len(term.free)]
    return float(np.einsum(f"{places}{places}->", term.scores))


def test_every_group_is_in_a_move():
    for name in NAMES:
        spec = spec_of(name)
        freed = [g for m in moves_of(spec, pieces_of(spec), keys_of(spec)) for g in m.free]
        used = {
            leaf.group for t in spec.tensors.values() for axis in t.axes for leaf in leaves_of(axis)
        }
        wanted = {g.name for g in spec.groups if g.kind == "permutation" and g.size > 1} & used
        assert set(freed) == wanted, name


def test_wreath_products_too_large_to_be_made_whole(monkeypatch):
    """Pair by pair gives the same."""
    results = []
    for whole in (1 << 28, 1):
        monkeypatch.setattr("metanet.alignment._scores._WHOLE", whole)
        spec = spec_of(
            "attention" if "attention" in CONSTRUCTS else next(n for n in CONSTRUCTS if _keyed(n))
        )
        _, _, stock, g = draws(spec, 3)
        keys = keys_of(spec)
        ascent = Ascent(
            stock, moves_of(spec, stock.pieces, keys), keys, to_elements(spec.identity(), keys), g
        )
        assert any(Scores(m, stock, keys).large() for m in ascent.moves) == (whole == 1)
        ascent.run(50)
        results.append(ascent.objective)
    assert results[0] == pytest.approx(results[1])


def _keyed(name):
    return any(g.keys for g in spec_of(name).groups)


def test_balanced_pieces_do_not_see_the_scale_of_neurons():
    spec = SymmetrySpec(
        (Group(name="a", size=4), Group(name="b", size=3)),
        {
            "w": TensorAxes(shape=(4, 3), dtype="float32", axes=(Leaf("a", 4), Leaf("b", 3))),
            "v": TensorAxes(shape=(5, 4), dtype="float32", axes=(Fixed(5), Leaf("a", 4))),
        },
    )
    w, v = pieces_of(spec)
    x, y = torch.randn(4, 3, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)
    rows, columns = torch.rand(4, 1) + 0.5, torch.rand(1, 3) + 0.5
    assert torch.allclose(balanced(w.take(x * rows * columns), w, 200), balanced(w.take(x), w, 200))
    scaled = balanced(v.take(y * rows.T), v)
    assert torch.allclose(scaled, balanced(v.take(y), v))
    assert torch.allclose(scaled.square().mean(1), torch.ones(4, dtype=torch.float64))


def test_a_concatenation_of_fixed_and_free_parts():
    axes = (Concat((Fixed(2), Leaf("a", 3))), Leaf("a", 3))
    spec = SymmetrySpec(
        (Group(name="a", size=3),), {"w": TensorAxes(shape=(5, 3), dtype="float32", axes=axes)}
    )
    assert [p.groups for p in pieces_of(spec)] == [("a",), ("a", "a")]
    x, t = torch.randn(5, 3), Transform(spec, {"a": torch.tensor([2, 0, 1])})
    stock = Stock(spec, pieces_of(spec), {"w": x}, {"w": x}, torch.device("cpu"), 0)
    got = sum(earned(stock, n, to_elements(t, keys_of(spec)), keys_of(spec)) for n in range(2))
    assert got == pytest.approx(float((x * t({"w": x})["w"]).sum()), rel=1e-6)


@pytest.mark.parametrize("room", [0, 20000, 2**30])
def test_what_there_is_no_room_for_is_made_again(room):
    """The same steps, whatever is kept."""
    spec = traced("resnet18")[0].spec
    a, b, _, _ = draws(spec, 4)
    keys = keys_of(spec)
    stock = Stock(spec, pieces_of(spec), a, b, torch.device("cpu"), room)
    generator = torch.Generator().manual_seed(0)
    ascent = Ascent(
        stock,
        moves_of(spec, stock.pieces, keys),
        keys,
        to_elements(spec.identity(), keys),
        generator,
    )
    ascent.run(50)
    assert len(ascent.objective) > 1
    kept = sum(p.nbytes for p in stock._kept.values())
    assert kept <= room
    assert (kept > 0) == (room > 0)
    roomy = Stock(spec, pieces_of(spec), a, b, torch.device("cpu"), 2**30)
    generator = torch.Generator().manual_seed(0)
    again = Ascent(roomy, ascent.moves, keys, to_elements(spec.identity(), keys), generator)
    again.run(50)
    assert ascent.objective == pytest.approx(again.objective)
