"""Exactness: what is derived from a traced network is what one derives by hand from its source."""

import json
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

import metanet
from metanet.symmetry import SymmetrySpec
from metanet.symmetry._axes import Axis, Choice, Concat, Fixed, Leaf, Product, leaves_of
from metanet.tracing import results
from symmetry.truth import (
    Sheet,
    Truth,
    convolutional,
    decoders,
    differences,
    draw,
    recurrent,
    relabel,
    rows,
    text,
    vision,
)

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
TRUTHS: dict[str, Truth] = {
    **convolutional.TRUTHS,
    **recurrent.TRUTHS,
    **vision.TRUTHS,
    **text.TRUTHS,
    **decoders.TRUTHS,
}
# How many groups, and how many of them keyed: Git Re-Basin's for ResNet, VGG and DenseNet; else 1 +
# 4 a layer, 2 keyed.
COUNTS = {
    "mlp": (2, 0),
    "vgg11": (10, 0),
    "vgg11_bn": (10, 0),
    "vgg16": (15, 0),
    "resnet18": (12, 0),
    "resnet20": (12, 0),
    "resnet50": (37, 0),
    "densenet121": (120, 0),
    "vit_tiny": (49, 24),
    "vit_transformers": (9, 4),
    "bert": (9, 4),
    "gpt2": (9, 4),
    "gpt_neox": (9, 4),
    "llama": (9, 4),
    "qwen2": (9, 4),
    "qwen3": (9, 4),
    "gemma": (9, 4),
    "gemma2": (9, 4),
    "lstm": (2, 0),
}
BIG = {
    "vgg11",
    "vgg11_bn",
    "vgg16",
    "resnet18",
    "resnet50",
    "densenet121",
    "vit_tiny",
}  # on the meta device


@pytest.mark.parametrize("name", TRUTHS)
def test_derived_is_the_truth(name):
    truth, example = TRUTHS[name], TRUTHS[name].make()
    check = (example.check_args, dict(example.check_kwargs))
    arch = metanet.trace(example.model, *example.args, check_inputs=check, **example.kwargs)
    if found := differences(arch.spec, truth.spec(example.model)):
        pytest.fail("\n".join([f"{name} is not what one derives by hand", *found]))


@pytest.mark.parametrize("name", COUNTS)
def test_the_truth_has_as_many_groups_as_known(name):
    groups = {n: keys for n, (size, keys) in TRUTHS[name].groups.items() if size > 1}
    assert (len(groups), sum(bool(keys) for keys in groups.values())) == COUNTS[name]


@pytest.mark.parametrize("name", TRUTHS)
def test_the_truth_is_closed(name):
    """Whoever is keyed by queries is keyed by what keys the queries."""
    groups = TRUTHS[name].groups
    for group, (_, keys) in groups.items():
        assert group not in keys
        assert all(set(groups[k][1]) <= set(keys) for k in keys), f"{group} keyed by {keys}"


@pytest.mark.parametrize("name", TRUTHS)
def test_every_tensor_is_written_down_with_its_shape(name):
    truth, example = TRUTHS[name], TRUTHS[name].make()
    assert truth.spec(example.model).tensors.keys() == truth.tensors.keys()
    for args, kwargs in (
        (example.args, example.kwargs),
        (example.check_args, example.check_kwargs),
    ):
        if name not in BIG:
            assert _outputs(
                example.model.eval(), example.model.state_dict(), args, dict(kwargs)
            ).numel()


def _outputs(model: torch.nn.Module, state: dict[str, Tensor], args: tuple, kwargs: dict) -> Tensor:
    with torch.no_grad():
        out = functional_call(model, state, args, kwargs, tie_weights=False)
    return torch.cat([t.flatten() for t in results(out)])


def _change(truth: Truth, spec: SymmetrySpec | None = None) -> float:
    """How much the output of a network with random weights changes when its items are relabelled
    entry by entry."""
    example, generator = truth.make(), torch.Generator().manual_seed(0)
    model = example.model.eval().double()
    spec = spec or truth.spec(example.model)
    args = tuple(a.double() if a.is_floating_point() else a for a in example.args)
    state = {n: t.clone() for n, t in model.state_dict().items()}
    for name, known in spec.tensors.items():
        shape, scale = known.shape, max(torch.Size(known.shape[1:]).numel(), 1) ** -0.5
        noise = torch.randn(shape, generator=generator, dtype=torch.float64) * scale
        state[name] = (
            state[known.tied_to]
            if known.tied_to
            else noise.abs()
            if "running_var" in name
            else noise
        )
    elements = draw(spec, generator)
    moved = {n: relabel(spec, n, t, elements) if n in spec.tensors else t for n, t in state.items()}
    before, after = (_outputs(model, s, args, dict(example.kwargs)) for s in (state, moved))
    assert any(not torch.equal(moved[n], state[n]) for n in spec.tensors)
    return float((after - before).abs().max() / before.std())


@pytest.mark.parametrize("name", [n for n in TRUTHS if n not in BIG])
def test_relabelling_by_the_truth_keeps_the_function(name):
    """Norms and routers of transformers calculate in float32 even in a float64 network."""
    assert _change(TRUTHS[name]) < 1e-4


def test_relabelling_by_a_mistaken_truth_changes_the_function():
    """Rotated dims set free; heads of one layer of T5 moved without those of the other."""
    llama, t5 = TRUTHS["llama"], TRUTHS["t5"]
    freed = replace(llama, groups={**llama.groups, "rotated": (6, ())}, tensors=dict(llama.tensors))
    for layer in range(2):
        attention = f"model.layers.{layer}.self_attn"
        freed.tensors[f"{attention}.q_proj.weight"] = f"{layer}.kv*{layer}.queries*rotated, stream"
        freed.tensors[f"{attention}.k_proj.weight"] = f"{layer}.kv*rotated, stream"
    assert _change(freed) > 1e-2
    last = "encoder.block.1.layer.0"
    loose = {f"{last}.qk": (4, ("loose",)), f"{last}.vo": (4, ("loose",)), "loose": (3, ())}
    untied = {
        n: a.replace("encoder.heads", "loose") if last in n else a for n, a in t5.tensors.items()
    }
    assert untied[f"{last}.SelfAttention.q.weight"] == f"loose*{last}.qk, stream"
    assert _change(replace(t5, groups={**t5.groups, **loose}, tensors=untied)) > 1e-2


def _sheet(
    q: str = "heads*qk", k: str = "heads*qk", v: str = "heads*vo", o: str = "heads*vo"
) -> Sheet:
    """An attention layer with a feed-forward layer behind it."""
    sheet = Sheet()
    for name, size, keys in (
        ("stream", 6, ()),
        ("heads", 2, ()),
        ("qk", 3, ("heads",)),
        ("vo", 3, ("heads",)),
        ("hidden", 6, ()),
        ("loose", 6, ()),
        ("heads!", 2, ()),
        ("one", 1, ()),
    ):
        sheet.group(name, size, *keys)
    sheet.tensor("qkv", f"{q} | {k} | {v}, stream")
    sheet.tensor("o", f"stream, {o}")
    sheet.tensor("up", "hidden, stream")
    sheet.tensor("down", "stream, hidden")
    return sheet


def _spec(sheet: Sheet | None = None, **axes: str) -> SymmetrySpec:
    """Of the sheet with some tensors written otherwise, with a group of every name that appears in
    a tensor."""
    sheet = sheet or _sheet()
    shapes = {"qkv": (18, 6), "o": (6, 6), "up": (6, 6), "down": (6, 6)}
    truth = Truth(lambda: pytest.fail("no model"), sheet.groups, {**sheet.tensors, **axes})
    spec = truth.build({n: torch.empty(s, device="meta") for n, s in shapes.items()})
    used = {leaf.group for t in spec.tensors.values() for a in t.axes for leaf in leaves_of(a)}
    keys = {key for g in spec.groups if g.name in used for key in g.keys}
    return replace(spec, groups=tuple(g for g in spec.groups if g.name in used | keys))


def _rekeyed(sheet: Sheet, group: str, *keys: str) -> Sheet:
    return replace(sheet, groups={**sheet.groups, group: (sheet.groups[group][0], keys)})


A, B = Leaf("a", 3), Leaf("b", 2)


def test_a_spec_with_other_names_and_another_order_is_the_same():
    spec = _spec()
    as_json = json.dumps(spec.to_json())
    for name, other in (("heads", "a"), ("qk", "b"), ("vo", "qk"), ("hidden", "stream2")):
        as_json = as_json.replace(f'"{name}"', f'"{other}"')
    renamed = SymmetrySpec.from_json(json.loads(as_json))
    shuffled = replace(
        renamed, groups=renamed.groups[::-1], tensors=dict(reversed(renamed.tensors.items()))
    )
    assert {g.name for g in shuffled.groups} == {"stream", "a", "b", "qk", "stream2"}
    assert not differences(spec, spec)
    assert not differences(shuffled, spec)
    assert not differences(spec, shuffled)


@pytest.mark.parametrize(
    ("axis", "same"),
    [
        (Concat((A, A)), Product((Fixed(2), A))),
        (Concat((A, Concat((B, Fixed(2))), Fixed(1))), Concat((A, B, Fixed(3)))),
        (Product((Fixed(2), Product((Fixed(3), A)))), Product((Fixed(6), A))),
        (Product((Concat((A, Fixed(1))), Fixed(2))), Concat((Product((A, Fixed(2))), Fixed(2)))),
        (Product((A, Leaf("one", 1), Fixed(1))), A),
        (Choice("c", (A, Product((Fixed(1), A)))), A),
    ],
    ids=["repeated", "nested concatenation", "nested product", "distributed", "single items",
        "choice of equals"],
)  # fmt: skip
def test_ways_to_write_one_axis(axis: Axis, same: Axis):
    assert rows(axis) == rows(same)


@pytest.mark.parametrize(
    ("axis", "other"),
    [
        (Product((A, Fixed(2))), Product((Fixed(2), A))),
        (Product((A, B)), Product((B, A))),
        (Concat((A, Fixed(2))), Concat((Fixed(2), A))),
        (Concat((A, A)), Product((Leaf("c", 2), A))),
        (Choice("c", (A, Leaf("c", 3))), A),
        (A, Fixed(3)),
    ],
    ids=["order with fixed", "order", "offset", "concatenation and product", "choice", "fixed"],
)
def test_axes_that_move_otherwise(axis: Axis, other: Axis):
    assert rows(axis) != rows(other)


MISTAKES = {
    "merged": (
        _spec(_sheet(v="heads*qk", o="heads*qk")),
        "derived 'qk' is expected 'qk' in qkv, but 'vo' here: merged",
    ),
    "merged across tensors": (_spec(down="hidden, stream", up="stream, hidden"), "merged"),
    "split": (
        _spec(down="stream, loose"),
        "expected 'hidden' is derived 'hidden' in up, but 'loose' here: split",
    ),
    "order of a product": (_spec(o="stream, vo*heads"), "o axis 1"),
    "a fixed axis": (_spec(down="stream, ."), "position 0 is fixed, expected (('hidden', 0),)"),
    "a part that is fixed": (_spec(_sheet(k="heads*3")), "qkv axis 0"),
    "a key too few": (_spec(_rekeyed(_sheet(), "qk")), "keys derived [], expected ['heads']"),
    "a key too many": (
        _spec(_rekeyed(_sheet(), "hidden", "stream")),
        "keys derived ['stream'], expected []",
    ),
    "another key": (
        _spec(_rekeyed(_sheet(), "vo", "hidden")),
        "keys derived ['hidden'], expected ['heads']",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_found_and_shown(mistake):
    wrong, message = MISTAKES[mistake]
    found = "\n".join(differences(wrong, _spec()))
    assert message in found, found
    assert differences(_spec(), wrong), "it shows from the other side too"


def test_a_difference_shows_both_sides():
    (found, *_) = differences(_spec(down="stream, 2*3"), _spec())
    assert found.splitlines()[:3] == [
        "down axis 1",
        "    derived   (2 x 3)",
        "    expected  hidden[6]",
    ]


def test_missing_and_other_tensors_are_named():
    spec = _spec()
    fewer = replace(spec, tensors={n: t for n, t in spec.tensors.items() if n != "up"})
    assert "not derived: up" in differences(fewer, spec)
    assert "not expected: up" in differences(spec, fewer)
    tied = replace(spec, tensors={**spec.tensors, "up": replace(spec.tensors["up"], tied_to="o")})
    assert any(d.startswith("up axis -1") for d in differences(tied, spec))


def test_an_axis_that_is_only_a_key():
    """Heads that cannot move, as under ALiBi, still key the dims; without dims they are fixed
    places like any other."""
    pinned = _rekeyed(
        _rekeyed(_sheet(*["heads!*qk"] * 2, *["heads!*vo"] * 2), "qk", "heads!"), "vo", "heads!"
    )
    spec = _spec(pinned)
    assert [g.kind for g in spec.groups if g.name == "heads!"] == ["fixed"]
    assert not differences(spec, spec)
    assert differences(spec, _spec())
    assert differences(_spec(_rekeyed(pinned, "qk")), spec), (
        "one order for both heads is not an order for each"
    )
    idle = _spec(pinned, down="stream, heads!*3")
    assert not differences(idle, _spec(pinned, down="stream, ."))
