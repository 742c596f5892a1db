"""What a forward pass may do with memory, and with tensors that no operation tells of."""

import copy
from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import metanet
from metanet.errors import TraceError
from metanet.tracing import record

X = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(3, 4)


class Does(nn.Module):
    """``function(weight, x)``."""

    def __init__(self, function, device="cpu") -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        weight = torch.randn(4, 4, generator=generator, dtype=torch.float64)
        self.weight, self.function = nn.Parameter(weight.to(device)), function

    def forward(self, x):
        return self.function(self.weight, x)


def transpose_in_place(w, x):
    y = x @ w
    part = y[:, :2]
    y.t_()
    part.add_(1)
    return y * 1


def unsqueeze_a_part(w, x):
    y = x @ w
    part = y[:2]
    part.unsqueeze_(0)
    part.mul_(2)
    return y * 1


def transpose_a_view(w, x):
    y = x @ w
    view = y.view(3, 2, 2)
    view.transpose_(0, 1)
    view[0].mul_(2)
    return y * 1


def real_part(w, x):
    y = torch.view_as_complex((x @ w).reshape(3, 2, 2))
    y.real.mul_(3)
    return torch.view_as_real(y)


def one_row_of_an_expanded(w, x):
    y = x @ w
    whole = y.expand(2, 3, 4)
    whole[1].mul_(2)
    return whole * 1


def foreach(w, x):
    y = x @ w
    torch._foreach_add_([y], 1.0)
    return y * 2


def within_inference_mode(w, x):
    with torch.inference_mode():
        return nn.functional.linear(x, w).reshape(-1)


def a_write_that_raises(w, x):
    y = torch.zeros(4, dtype=x.dtype)
    with pytest.raises(RuntimeError, match="single memory location"):
        y.expand(3, 4).add_(1)
    return x @ w + y


def deep_copied(w, x):
    return copy.deepcopy(x @ w) + 1


def wrapped_as_a_parameter(w, x):
    return nn.Parameter(y, requires_grad=False) * 2 + y if (y := x @ w) is not None else y


def data_replaced(w, x):
    y, z = x @ w, torch.zeros(3, 4, dtype=x.dtype)
    z.data = y
    return z + y


def rows_written(w, x):
    table = torch.zeros(4, 4, dtype=x.dtype, device=w.device)
    for i in range(4):
        table[i, : i + 1] = i
    return x @ (w * table)


PROGRAMS = [
    transpose_in_place, unsqueeze_a_part, transpose_a_view, real_part, one_row_of_an_expanded, foreach,
    within_inference_mode, a_write_that_raises, deep_copied, wrapped_as_a_parameter, data_replaced,
    rows_written,
]  # fmt: skip


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)
def test_what_was_recorded_computes_the_same(program):
    trace = record(Does(program), (X,), {})
    assert all(op.call is not None for op in trace.ops)
    weight, other = torch.linspace(-2, 1, 16, dtype=torch.float64).reshape(4, 4), X.flip(0) + 0.1
    with torch.no_grad():
        want = program(weight.clone(), other.clone())
    torch.testing.assert_close(
        trace.replay({"weight": weight}, other)[trace.outputs[0]], want, rtol=1e-12, atol=1e-12
    )


class Reordered(nn.Module):
    """The order of the hidden units shows in the output, through a copy that no operation made."""

    def __init__(self, how) -> None:
        super().__init__()
        self.first, self.second, self.how = nn.Linear(5, 6), nn.Linear(6, 3), how

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.first(x))
        return self.second(hidden) + self.how(hidden)[:, :3]


def swapped(hidden: Tensor) -> Tensor:
    other = torch.zeros_like(hidden)
    other.data = hidden
    return other


@pytest.mark.parametrize(
    "how", [copy.deepcopy, lambda h: nn.Parameter(h, requires_grad=False), swapped]
)
def test_symmetries_are_sound_where_a_copy_is_made_behind_our_back(how):
    model, x = Reordered(how), torch.randn(4, 5)
    assert metanet.verify(model, metanet.trace(model, x).spec, x).change < 1e-10


def test_memory_that_nobody_knows_is_refused():
    def program(w, x):
        y = torch.zeros(3, 4, dtype=x.dtype)
        y.add_(0).data = x @ w  # the result itself is gone before anybody reads it
        return y + 1

    with pytest.raises(TraceError, match="other memory in its forward pass"):
        record(Does(program), (X,), {})


def test_numbers_that_leave_through_numpy_are_reported():
    trace = record(Does(lambda w, x: x @ w * float(np.sum((x @ w).numpy()))), (X,), {})
    assert any("tensor.numpy()" in w for w in trace.warnings)
    assert not record(
        Does(lambda w, x: x @ w * float(torch.arange(3).numpy().sum())), (X,), {}
    ).warnings


@dataclass
class Pair:
    a: Tensor


Named = namedtuple("Named", "a")


@pytest.mark.parametrize(
    "wrap", [Pair, Named, lambda x: OrderedDict(a=x), lambda x: {"a": x}, lambda x: [x]]
)
def test_inputs_of_every_kind_stay_as_they_were(wrap):
    given = wrap(X.clone())

    def program(w, x):
        tensor = x[0] if isinstance(x, list) else x["a"] if isinstance(x, dict) else x.a
        return tensor.mul_(2) @ w

    assert len(record(Does(program), (given,), {}).inputs) == 1
    assert torch.equal(
        given[0] if isinstance(given, list) else given["a"] if isinstance(given, dict) else given.a,
        X,
    )


def test_the_callers_random_state_and_tensors_are_left_alone():
    table = torch.arange(4.0, dtype=torch.float64)
    state = torch.get_rng_state()
    record(Does(lambda w, x: x @ w + torch.rand(4) + table), (X,), {})
    assert torch.equal(torch.get_rng_state(), state)
    assert not vars(table)


def test_a_tensor_given_twice_is_one_input():
    assert len(record(nn.Bilinear(4, 4, 2).double(), (X, X), {}).inputs) == 1


class TestMeta:
    def ops(self, function):
        trace = record(Does(function, "meta"), (X,), {})
        return [op.name for op in trace.ops], trace

    @pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
    def test_recurrent_layers(self, kind):
        x = torch.randn(2, 3, 4)
        real, meta = (
            {op.name for op in record(kind(4, 5, device=d), (x,), {}).ops} for d in ("cpu", "meta")
        )
        assert {"aten.addmm", "aten.tanh"} <= meta
        assert meta <= real

    def test_numbers_made_by_python_are_known(self):
        names, trace = self.ops(lambda w, x: x @ w * torch.tensor([1.0, 2, 3, 4], device=w.device))
        assert names == ["aten.mm", "aten.mul"]
        assert [c.tolist() for c in trace.constants.values()] == [[1, 2, 3, 4]]

    @pytest.mark.parametrize(
        "choose",
        [
            lambda mask: mask,
            lambda mask: mask.nonzero()[:, 0],
            lambda mask: torch.tensor(mask.tolist()),
            lambda mask: torch.from_numpy(mask.cpu().numpy()),
        ],
    )
    def test_a_mask_that_is_a_constant_chooses(self, choose):
        names, trace = self.ops(lambda w, x: (x @ w)[choose(torch.arange(3, device=w.device) > 0)])
        assert names == ["aten.mm", "aten.index"]
        assert trace.values[trace.outputs[0]].shape == (2, 4)

    @pytest.mark.parametrize("ask", [Tensor.item, Tensor.tolist, Tensor.nonzero, bool])
    def test_numbers_that_are_not_known_are_asked_for(self, ask):
        with pytest.raises(
            TraceError, match=r"asks for the value of a tensor that is on the meta.*to_empty"
        ):
            self.ops(lambda w, x: ask((x @ w).sum()) and x @ w)

    def test_a_table_written_row_by_row_has_its_values(self):
        _, trace = self.ops(rows_written)
        weight = torch.eye(4, dtype=torch.float64) + 1
        got = trace.replay({"weight": weight}, X)[trace.outputs[0]]
        torch.testing.assert_close(got, rows_written(weight, X), rtol=1e-12, atol=1e-12)

    def test_a_buffer_without_values_is_unknown(self):
        class Scales(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layer = nn.Linear(4, 4)
                self.register_buffer("scale", torch.arange(4.0), persistent=False)

            def forward(self, x: Tensor) -> Tensor:
                return self.layer(x) * self.scale

        with torch.device("meta"):
            model = Scales()
        trace = record(model, (X.float(),), {})
        assert [trace.values[n].origin for n in trace.ops[-1].inputs()] == ["result", "unknown"]
        with pytest.raises(NotImplementedError, match="values the meta device did not tell"):
            trace.replay(nn.Linear(4, 4).state_dict(prefix="layer."), X.float())
