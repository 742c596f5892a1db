"""The recording says what happened, leaves the caller's model alone, and can be run again."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from metanet.errors import TraceError
from metanet.tracing import record
from networks import ARCHITECTURES


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_replay_computes_what_the_model_computes(name):
    make, example = ARCHITECTURES[name]
    model, x = make().eval().double(), example().double()
    trace = record(model, (x,), {})
    other = torch.rand(x.shape, dtype=torch.float64)
    kept = other.clone()
    got = trace.replay(model.state_dict(), other)[trace.outputs[0]]
    torch.testing.assert_close(got, model(other), rtol=1e-12, atol=1e-12)
    assert torch.equal(other, kept), "replaying wrote into the inputs"


def test_replay_under_vmap_runs_many_networks_at_once():
    make, example = ARCHITECTURES["siren"]
    models, x = [make().double() for _ in range(3)], example().double()
    trace = record(models[0], (x,), {})
    stacked = {k: torch.stack([m.state_dict()[k] for m in models]) for k in models[0].state_dict()}
    got = torch.func.vmap(lambda sd: trace.replay(sd, x)[trace.outputs[0]])(stacked)
    torch.testing.assert_close(got, torch.stack([m(x) for m in models]), rtol=1e-10, atol=1e-10)


def test_the_model_is_left_as_it_was():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout()).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    record(model, (torch.randn(2, 3),), {})
    assert model.training and model[2].training
    assert not model[0]._forward_hooks and not model[0]._forward_pre_hooks
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


class Wasteful(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.unused(x)  # computed, never returned
        return self.used(x)


def test_dead_operations_are_removed():
    trace = record(Wasteful(), (torch.randn(2, 3),), {})
    read = {n for op in trace.ops for n in op.inputs()}
    assert trace.parameters["used.weight"] in read
    assert trace.parameters["unused.weight"] not in read


class InPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        view = x[:, :2]
        x.mul_(2)
        view.add_(1)  # writes into x through a view
        return self.b(x)


def test_a_write_through_a_view_reaches_what_it_looks_into():
    model, x = InPlace().double().eval(), torch.randn(2, 4, dtype=torch.float64)
    trace = record(model, (x,), {})
    names = [op.name for op in trace.ops]
    assert "aten.slice_scatter" in names
    assert "aten.mul" in names  # in place, under its functional name
    torch.testing.assert_close(trace.replay(model.state_dict(), x)[trace.outputs[0]], model(x))


VIEWS = [
    lambda t: t[1:], lambda t: t[0], lambda t: t.transpose(0, 1), lambda t: t.flatten(),
    lambda t: t.unsqueeze(0), lambda t: t.split(2)[-1], lambda t: t.unbind(1)[0],
    lambda t: t.diagonal(), lambda t: t.mT[1:],
    lambda t: t.detach(), lambda t: t[:, ::2], lambda t: t.view(2, 2, 3).permute(2, 0, 1),
]  # fmt: skip


class Writes(nn.Module):
    """Writes through views of views, in turn, and reads some of them again."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.start, self.seed = nn.Parameter(torch.randn(4, 3)), seed

    def forward(self, x: Tensor) -> Tensor:
        g = torch.Generator().manual_seed(self.seed)
        base, total = self.start * 1 if self.seed % 2 else torch.zeros(4, 3, dtype=x.dtype), x.sum()
        seen = [base]
        for step in range(6):
            view = seen[int(torch.randint(len(seen), (), generator=g))]
            if view.shape == (4, 3):
                view = VIEWS[int(torch.randint(len(VIEWS), (), generator=g))](view)
                seen.append(view)
            view.add_(x[0, 0]) if step % 2 else view.mul_(2)
            total = (
                total + (seen[int(torch.randint(len(seen), (), generator=g))] * (step + 1)).sum()
            )
        return total + (base * torch.arange(12).view(4, 3)).sum()


@pytest.mark.parametrize("seed", range(40))
def test_random_writes_through_views_replay_as_they_ran(seed):
    model, x = Writes(seed).double().eval(), torch.randn(2, 3, dtype=torch.float64)
    trace = record(model, (x,), {})
    assert all(op.call is not None for op in trace.ops)
    other = torch.randn(2, 3, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(
            trace.replay(model.state_dict(), other)[trace.outputs[0]], model(other)
        )


def test_a_constant_keeps_its_values_for_those_who_read_it_before_it_is_written():
    class Counter(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            table = torch.zeros(3)
            early = x + table
            table[1:] = 5.0
            return early, x + table

    trace = record(Counter(), (torch.zeros(3),), {})
    early, late = (trace.replay({}, torch.zeros(3))[n] for n in trace.outputs)
    assert early.tolist() == [0, 0, 0]
    assert late.tolist() == [0, 5, 5]
    assert [op.name for op in trace.ops] == [
        "aten.add",
        "aten.add",
    ]  # the writes are constants, not operations


def test_inputs_are_not_written():
    class Careless(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mul_(0)

    x = torch.ones(2)
    record(Careless(), (x,), {})
    assert x.tolist() == [1, 1]


def test_recurrent_layers_arrive_cell_by_cell():
    names = {op.name for op in record(nn.LSTM(3, 4), (torch.randn(5, 2, 3),), {}).ops}
    assert {"aten.tanh", "aten.sigmoid", "aten.addmm"} <= names
    assert not any("lstm" in n or "rnn" in n for n in names)


class Positions(nn.Module):
    """A mask and positions that are made on the fly, on the device of the weights."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4, device=device)
        self.register_buffer("rates", torch.ones(4, device=device), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        steps = torch.arange(x.shape[1], device=self.layer.weight.device)
        mask = steps[:, None] >= steps
        if mask.all():
            return x
        angles = steps[:, None] * self.rates
        return (self.layer(x) * angles).masked_fill(~mask[:, :1], 0.0)


def test_the_meta_device_needs_no_weights():
    trace = record(Positions("meta"), (torch.randn(2, 5, 4),), {})
    assert trace.values[trace.outputs[0]].shape == (2, 5, 4)
    assert any(
        t.shape == (5, 1) and t.dtype == torch.bool and not t.any()
        for t in trace.constants.values()
    )
    unknown = [v for v in trace.values if v.origin == "unknown"]
    assert [v.shape for v in unknown] == [
        (4,)
    ]  # the rates: a buffer outside the state dict has no values there
    real = record(Positions("cpu"), (torch.randn(2, 5, 4),), {})
    assert {op.name for op in real.ops} <= {op.name for op in trace.ops}


def test_the_value_of_a_tensor_without_values_is_asked_for():
    class Asks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3, device="meta")

        def forward(self, x: Tensor) -> Tensor:
            return x if self.layer(x).sum().item() > 0 else -x

    with pytest.raises(
        TraceError, match=r"asks for the value of a tensor that is on the meta device.*to_empty"
    ):
        record(Asks(), (torch.randn(2, 3),), {})


def test_tied_parameters_are_one_value_with_all_names():
    make, example = ARCHITECTURES["tied"]
    trace = record(make(), (example(),), {})
    assert trace.parameters["a.weight"] == trace.parameters["b.weight"]
    assert trace.values[trace.parameters["a.weight"]].names == ("a.weight", "b.weight")


@dataclass
class Output:
    first: Tensor
    nested: dict


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 5)

    def forward(self, x: Tensor, *, scale: dict) -> Output:
        return Output(self.layer(x), {"more": [scale["by"] * x]})


def test_nested_inputs_and_outputs():
    trace = record(Nested(), (torch.randn(2, 3),), {"scale": {"by": torch.ones(2, 1)}})
    assert [trace.values[v].shape for v in trace.outputs] == [(2, 5), (2, 3)]
    assert [trace.values[v].shape for v in trace.inputs] == [(2, 3), (2, 1)]


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) if x.sum().item() > -1e9 else x


def test_control_flow_on_data_is_reported():
    assert any(
        "only the path taken" in w for w in record(Branching(), (torch.randn(2, 3),), {}).warnings
    )


class Raises(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


@pytest.mark.parametrize(
    ("model", "inputs", "message"),
    [
        (nn.Linear(3, 3), (), "needs example inputs"),
        (Raises(), (torch.randn(2, 4),), r"raised RuntimeError \(in 'inner'\)"),
        (
            nn.LazyLinear(3),
            (torch.randn(2, 3),),
            r"parameters without a shape yet \(weight, bias\).*run the model once",
        ),
        (
            print,
            (torch.randn(2, 3),),
            "expected a torch.nn.Module to trace, got builtin_function_or_method",
        ),
    ],
)
def test_bad_input_is_explained(model, inputs, message):
    with pytest.raises(TraceError, match=message):
        record(model, inputs, {})


def test_an_output_without_a_tensor_is_refused():
    class Says(nn.Module):
        def forward(self, x: Tensor) -> str:
            return "no tensor"

    with pytest.raises(TraceError, match="returned str without a tensor"):
        record(Says(), (torch.randn(2, 3),), {})
