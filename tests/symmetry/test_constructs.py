"""Every construct that networks are made of, one small module each: derived is what one derives by
hand."""

from collections.abc import Iterable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

import metanet
from metanet.symmetry import Choice, Concat, SymmetrySpec
from symmetry.constructs import CONSTRUCTS, Net
from symmetry.truth import differences

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated"),
    pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN"),
]
# What is written down is what is found; a larger group exists, which axes of a spec cannot say (see
# MORE).
SHORT = {
    "group_norm_across_groups": "the whole axis may be turned round, block by block: "
    "4 | 2 | 2 | 4 is a mirror image of itself; an axis of a spec lists the items of exchanged "
    "blocks in the same order",
    "shuffled_unequal_parts": "what is read by one layer may be exchanged between the rows of the "
    "shuffle as well; an axis of a spec lists the items of a group in the same order everywhere",
    "shortcut_padded": "the channels padded before and behind the shortcut are of one kind: "
    "one group in two places",
}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("name", CONSTRUCTS)
def test_derived_is_the_truth(name):
    construct = CONSTRUCTS[name]
    model, inputs, check = construct.make()
    model.eval()
    arch = metanet.trace(model, *inputs, check_inputs=(check, {}))
    if found := differences(arch.spec, construct.spec(model)):
        pytest.fail("\n".join([f"{name} is not what one derives by hand", *found, str(arch.spec)]))
    for args in (inputs, check):
        report = metanet.verify(model, arch.spec, *args)
        assert report.change < 1e-10, f"{name}: {report}"
        assert report.movable, f"{name}: nothing moves"
        assert report.ok, f"{name}: {report}"


Swap = tuple[str, int, int, int, slice]  # tensor, axis, two items, of which rows


def swaps(i: int, j: int, axes: dict[str, int]) -> Iterator[Swap]:
    """Two items exchanged along one axis of each tensor."""
    for name, axis in axes.items():
        yield name, axis, i, j, slice(None)


def mirrored() -> Iterator[Swap]:
    """Channels 0 to 3 and 8 to 11, 4 and 5 and 6 and 7: the first and last of three convolution
    groups of 4."""
    for i, j in ((0, 8), (1, 9), (2, 10), (3, 11), (4, 6), (5, 7)):
        yield from swaps(i, j, {"0.weight": 0, "0.bias": 0, "1.weight": 0, "1.bias": 0})
    for i, j in ((0, 2), (1, 3)):
        yield "3.weight", 1, i, j, slice(2, 4)
    for i, j in ((0, 4), (1, 5)):
        yield from swaps(i, j, {"3.weight": 0, "3.bias": 0, "5.weight": 1})


def rows_of_a_shuffle() -> Iterator[Swap]:
    """The last channel of the first row and the first of the second."""
    yield from swaps(3, 4, {"a.weight": 0, "a.bias": 0})
    yield from swaps(9, 1, {"o.weight": 1})


def padded_channels() -> Iterator[Swap]:
    """Channels 0 and 7."""
    yield from swaps(0, 7, {"two.weight": 0, "two.bias": 0, "three.weight": 0, "three.bias": 0})
    yield from swaps(0, 7, {"three.weight": 1, "head.weight": 1})


MORE = {
    "group_norm_across_groups": mirrored, "shuffled_unequal_parts": rows_of_a_shuffle,
    "shortcut_padded": padded_channels,
}  # fmt: skip


def swapped(state: dict[str, Tensor], moves: Iterable[Swap]) -> dict[str, Tensor]:
    out = {n: t.clone() for n, t in state.items()}
    for name, axis, i, j, rows in moves:
        part = out[name][rows]
        order = list(range(part.shape[axis]))
        order[i], order[j] = j, i
        out[name][rows] = part.index_select(axis, torch.tensor(order))
    return out


@pytest.mark.parametrize("name", SHORT)
def test_where_more_symmetries_exist_than_are_found(name):
    """An exchange made by hand keeps the function; the truth above, which is what is found, does
    not hold it."""
    model, inputs, _ = CONSTRUCTS[name].make()
    model, inputs = model.double().eval(), tuple(x.double() for x in inputs)
    state = {
        n: torch.randn_like(t) if t.is_floating_point() else t
        for n, t in model.state_dict().items()
    }
    want = functional_call(model, state, inputs)
    got = functional_call(model, swapped(state, MORE[name]()), inputs)
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-12)
    unfinished = functional_call(model, swapped(state, list(MORE[name]())[:-1]), inputs)
    assert (unfinished - want).abs().max() > 1e-3


def cross_attention() -> Net:
    def run(m: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        y = m.right(y).tanh()
        return m.head(m.mha(m.left(x).tanh(), y, y, need_weights=False)[0])

    mha = nn.MultiheadAttention(6, 2, batch_first=True)
    return Net(run, left=nn.Linear(4, 6), right=nn.Linear(3, 6), mha=mha, head=nn.Linear(6, 3))


@pytest.mark.parametrize(("checked", "dims"), [(False, 2), (True, 2)])
def test_cross_attention_with_one_matrix_chooses_its_stream_by_row(checked, dims):
    """The rows for queries read another stream than those for keys and values."""
    model, inputs = cross_attention(), (torch.randn(2, 5, 4), torch.randn(2, 7, 3))
    check = (torch.randn(3, 7, 4), torch.randn(3, 6, 3))
    spec = metanet.trace(model, *inputs, check_inputs=(check, {}) if checked else None).spec
    rows, columns = spec.tensors["mha.in_proj_weight"].axes
    streams = [str(spec.tensors[f"{n}.weight"].axes[0]) for n in ("left", "right")]
    assert isinstance(rows, Concat) and isinstance(columns, Choice) and rows.name == columns.by
    assert [str(part) for part in columns.parts] == streams
    assert len(set(streams)) == 2
    output = spec.tensors["mha.out_proj.weight"].axes
    heads, last = output[1].parts
    keyed = [g for g in spec.groups if g.keys]
    assert {(g.size, g.keys) for g in keyed} == {(3, (heads.group,))} and len(keyed) == dims
    assert last.group == keyed[-1].name and len(spec.groups) == 4 + dims, (
        "two streams, heads, the output, dims"
    )
    for args in (inputs, check):
        report = metanet.verify(model, spec, *args)
        assert report.ok and report.movable, str(report)


def traced(run, *inputs: Tensor, **parts: nn.Module) -> tuple[SymmetrySpec, tuple[str, ...]]:
    arch = metanet.trace(Net(run, **parts), *inputs)
    return arch.spec, arch.warnings


def test_a_branch_on_data_is_warned_about():
    def run(m: nn.Module, x: Tensor) -> Tensor:
        x = m.a(x)
        return m.b(x.relu() if x.sum() > 0 else x.tanh())

    layers = {"a": nn.Linear(4, 6), "b": nn.Linear(6, 3)}
    spec, warnings = traced(run, torch.randn(2, 4), **layers)
    assert [g.size for g in spec.groups] == [6]
    assert any("data" in w or "value" in w for w in warnings), warnings
    assert not traced(lambda m, x: m.b(m.a(x).relu()), torch.randn(2, 4), **layers)[1]


def test_what_no_example_reads_is_named():
    model, inputs, _ = CONSTRUCTS["unread"].make()
    warnings = metanet.trace(model, *inputs).warnings
    assert any("did not read 2 tensors" in w and "spare.0.weight" in w for w in warnings), warnings
