"""Transforms: inverse, composition, files; keyed groups, products and concatenations against brute
force."""

import itertools

import pytest
import torch

import metanet
from metanet.errors import CheckpointError, MetanetError
from metanet.symmetry import (
    Choice,
    Concat,
    Fixed,
    Group,
    Leaf,
    Product,
    SymmetrySpec,
    TensorAxes,
    Transform,
)
from networks import ARCHITECTURES

H, D, N = Leaf("heads", 3), Leaf("dims", 4), Leaf("stream", 5)


def attention_spec() -> SymmetrySpec:
    """Heads with dims of their own (a wreath product), a fused qkv, a plain group."""
    groups = (
        Group(name="heads", size=3),
        Group(name="dims", size=4, keys=("heads",)),
        Group(name="stream", size=5),
    )
    hd = Product((H, D))
    tensors = {
        "out": TensorAxes(shape=(5, 12), dtype="float64", axes=(N, hd)),
        "bias": TensorAxes(shape=(12,), dtype="float64", axes=(hd,)),
        "fused": TensorAxes(shape=(29, 5), dtype="float64", axes=(Concat((hd, N, hd)), N)),
        "table": TensorAxes(shape=(7, 3), dtype="float64", axes=(Fixed(7), H)),
        "split": TensorAxes(shape=(4, 2, 3), dtype="float64", axes=(D, Fixed(2), H)),
    }
    return SymmetrySpec(groups, tensors)


def state_of(spec: SymmetrySpec) -> dict[str, torch.Tensor]:
    return {n: torch.randn(t.shape, dtype=torch.float64) for n, t in spec.tensors.items()}


@pytest.fixture(params=["attention", *ARCHITECTURES])
def spec(request) -> SymmetrySpec:
    if request.param == "attention":
        return attention_spec()
    make, example = ARCHITECTURES[request.param]
    return metanet.trace(make(), example()).spec


def test_inverse_and_composition(spec):
    state = state_of(spec)
    a, b = (
        spec.sample(torch.Generator().manual_seed(0)),
        spec.sample(torch.Generator().manual_seed(1)),
    )
    back = a.inverse()(a(state))
    both, one = (a @ b)(state), a(b(state))
    moved = False
    for name, tensor in state.items():
        assert torch.equal(back[name], tensor)
        assert torch.equal(both[name], one[name])
        moved |= not torch.equal(one[name], tensor)
    assert moved
    assert all(torch.equal(spec.identity()(state)[n], t) for n, t in state.items())


def test_keyed_groups_by_brute_force():
    """One entry at a time: the head moves, and the dim moves by the permutation of its new head."""
    spec = attention_spec()
    t, state = spec.sample(torch.Generator().manual_seed(3)), state_of(spec)
    heads, dims, stream = t.element("heads"), t.element("dims"), t.element("stream")
    moved = t(state)
    for n, h, d in itertools.product(range(5), range(3), range(4)):
        old = heads[h] * 4 + dims[h, d]
        assert moved["out"][n, h * 4 + d] == state["out"][stream[n], old]
        assert moved["bias"][h * 4 + d] == state["bias"][old]
        assert moved["fused"][12 + 5 + h * 4 + d, n] == state["fused"][12 + 5 + old, stream[n]]
        assert moved["split"][d, 1, h] == state["split"][dims[h, d], 1, heads[h]]
    assert torch.equal(moved["fused"][12:17], state["fused"][12:17][stream][:, stream])
    assert torch.equal(moved["table"], state["table"][:, heads])


def test_stacked_state_dicts_move_together(spec):
    states = [state_of(spec) for _ in range(3)]
    t = spec.sample(torch.Generator().manual_seed(0))
    stacked = t({n: torch.stack([s[n] for s in states]) for n in states[0]})
    for i, one in enumerate(states):
        assert all(torch.equal(stacked[n][i], moved) for n, moved in t(one).items())


def test_files(spec, tmp_path):
    t = spec.sample(torch.Generator().manual_seed(0))
    t.save(tmp_path / "t.safetensors")
    loaded = Transform.load(tmp_path / "t.safetensors")
    assert loaded.spec == spec
    state = state_of(spec)
    assert all(torch.equal(loaded(state)[n], moved) for n, moved in t(state).items())
    spec.save(tmp_path / "spec.json")
    assert SymmetrySpec.load(tmp_path / "spec.json") == spec


def test_bad_input(tmp_path):
    spec = attention_spec()
    with pytest.raises(CheckpointError, match=r"out is \(5, 11\), expected \(5, 12\)"):
        spec.sample()({"out": torch.zeros(5, 11)})
    with pytest.raises(MetanetError, match="not a permutation of 5"):
        Transform(spec, {"stream": torch.tensor([0, 0, 1, 2, 3])})
    with pytest.raises(MetanetError, match=r"shape \(3,\), expected \(5,\)"):
        Transform(spec, {"stream": torch.arange(3)})
    with pytest.raises(MetanetError, match="no group 'nobody'; the groups are heads, dims, stream"):
        Transform(spec, {"nobody": torch.arange(3)})
    metanet.save_checkpoint(tmp_path / "weights.safetensors", {"w": torch.zeros(2)})
    with pytest.raises(CheckpointError, match="not a saved transform"):
        Transform.load(tmp_path / "weights.safetensors")
    (tmp_path / "text.json").write_text("{")
    with pytest.raises(MetanetError, match="is damaged or no JSON"):
        SymmetrySpec.load(tmp_path / "text.json")


def test_what_the_spec_does_not_know_is_passed_on():
    counter = torch.tensor(3)
    assert (
        attention_spec().sample()({"num_batches_tracked": counter})["num_batches_tracked"]
        is counter
    )


def cross_attention_spec() -> SymmetrySpec:
    """A fused projection whose columns depend on the row; concatenations inside products, keys
    inside both."""
    groups = (
        Group(name="heads", size=3), Group(name="qk", size=4, keys=("heads",)),
        Group(name="vo", size=2, keys=("heads",)), Group(name="left", size=5), Group(name="right", size=5),
        Group(name="places", size=2, kind="fixed"), Group(name="own", size=6, keys=("places",)),
    )  # fmt: skip
    h, q, v = Leaf("heads", 3), Leaf("qk", 4), Leaf("vo", 2)
    rows = Concat((Product((h, q)), Product((h, Concat((q, v)))), Fixed(7)), "segment")
    columns = Choice("segment", (Leaf("left", 5), Leaf("right", 5), Leaf("left", 5)))
    place = Fixed(2, "a place", "places")
    tensors = {
        "fused": TensorAxes(shape=(37, 5), dtype="float64", axes=(rows, columns)),
        "table": TensorAxes(shape=(2, 6), dtype="float64", axes=(place, Leaf("own", 6))),
    }
    return SymmetrySpec(groups, tensors)


def test_choices_and_nested_concatenations_by_brute_force():
    spec = cross_attention_spec()
    t, state = spec.sample(torch.Generator().manual_seed(5)), state_of(spec)
    e = {g.name: t.element(g.name) for g in spec.groups}
    moved = t(state)
    old_row = []
    for h in range(3):
        old_row += [(int(e["heads"][h]) * 4 + int(e["qk"][h, d]), "left") for d in range(4)]
    for h in range(3):
        start = 12 + int(e["heads"][h]) * 6
        old_row += [(start + int(e["qk"][h, d]), "right") for d in range(4)]
        old_row += [(start + 4 + int(e["vo"][h, d]), "right") for d in range(2)]
    old_row += [(30 + n, "left") for n in range(7)]
    for new, (old, stream) in enumerate(old_row):
        assert torch.equal(moved["fused"][new], state["fused"][old][e[stream]])
    for place in range(2):  # a fixed key: one arrangement for each place
        assert torch.equal(moved["table"][place], state["table"][place][e["own"][place]])
    assert not torch.equal(e["own"][0], e["own"][1])


def test_keys_of_keys_compose_and_invert():
    """Query heads per key-value head, and dims per query head."""
    groups = (
        Group(name="kv", size=2), Group(name="q", size=3, keys=("kv",)),
        Group(name="d", size=4, keys=("kv", "q")),
    )  # fmt: skip
    axis = Product((Leaf("kv", 2), Leaf("q", 3), Leaf("d", 4)))
    spec = SymmetrySpec(groups, {"w": TensorAxes(shape=(24,), dtype="float64", axes=(axis,))})
    a, b = (spec.sample(torch.Generator().manual_seed(n)) for n in (0, 1))
    state = state_of(spec)
    assert torch.equal((a @ b)(state)["w"], a(b(state))["w"])
    assert torch.equal(a.inverse()(a(state))["w"], state["w"])
    assert torch.equal(a(a.inverse()(state))["w"], state["w"])
    assert not torch.equal(a(state)["w"], state["w"])


def test_choices_survive_files_and_move_along_one_axis_alone(tmp_path):
    spec = cross_attention_spec()
    spec.save(tmp_path / "spec.json")
    assert SymmetrySpec.load(tmp_path / "spec.json") == spec
    t, state = spec.sample(torch.Generator().manual_seed(2)), state_of(spec)
    rows, columns = (t.apply("fused", state["fused"], (n,)) for n in (0, 1))
    assert torch.equal(rows.sum(1).sort().values, state["fused"].sum(1).sort().values)
    assert not torch.equal(columns, state["fused"])
    torch.testing.assert_close(columns.sum(1), state["fused"].sum(1))  # rows stay where they are
