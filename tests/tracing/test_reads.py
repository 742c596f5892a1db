"""Numbers that Python reads from activations: a use of their axes, wherever they are read."""

import inspect
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import metanet

HERE = Path(__file__)


class Reading(nn.Module):
    """Two layers; ``read(h)`` says whether the first one's units change their sign."""

    def __init__(self, read) -> None:
        super().__init__()
        self.read = read
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        return self.b((-h if self.read(h) else h).exp())


def moving(read) -> list[int]:
    """The sizes of what may move of the six units, and the warnings."""
    torch.manual_seed(0)
    return [g.size for g in metanet.trace(Reading(read), torch.randn(5, 4)).spec.groups]


ONE = {  # reads unit 0, or up to it
    "item": lambda h: h[1, 0].item() > 0,
    "bool": lambda h: bool(h[1, 0] > 0),
    "if": lambda h: -1 if h[1, 0] > 0 else 0,
    "float": lambda h: float(h[1, 0]) > 0,
    "int": lambda h: int(h[1, 0] * 10) > 0,
    "index": lambda h: ["", "x"][(h[1, 0] > 0).long()],
    "tolist": lambda h: h[1, 0].tolist() > 0,
    "numpy": lambda h: h[1, 0].numpy() > 0,
    "asarray": lambda h: np.asarray(h[1, 0]) > 0,
    "equal": lambda h: torch.equal(h[1, 0] > 0, torch.tensor(True)),
    "any": lambda h: (h[:, 0] > 0).any(),
    "complex": lambda h: complex(h[1, 0]).real > 0,
    "number as a tensor": lambda h: torch.tensor([h[1, 0]])[0] > 0,
}
ALL = {  # reads every unit
    "tolist": lambda h: h.tolist()[1][0] > 0,
    "numpy": lambda h: h.numpy()[1, 0] > 0,
    "array": lambda h: h.__array__()[1, 0] > 0,
    "dlpack": lambda h: np.from_dlpack(h)[1, 0] > 0,
    "iteration": lambda h: min(float(v) * n for n, v in enumerate(h[1])) > -0.5,
    "equal": lambda h: torch.equal(h, h.relu()),
    "count": lambda h: len((h[1] > 0).nonzero()) > 2,  # of which the shape alone is used
    "argmax": lambda h: int(h[1].argmax()) > 2,
    "chosen": lambda h: h[h > 0].shape[0] > 12,
    "sorted": lambda h: h[1].topk(2).indices.tolist()[0] > 2,
}
NONE = {  # reads what is the same for all orders of units
    "sum": lambda h: h.sum() > 0,
    "largest": lambda h: h[1].max().item() > 0.5,
    "norm": lambda h: float(h.norm()) > 2,
    "nothing": lambda h: h.shape[0] > 2,
    "finite": lambda h: bool(h.isfinite().all()),
}


@pytest.mark.parametrize("name", ONE)
def test_a_unit_that_is_read_stays(name):
    assert moving(ONE[name]) == [5]


@pytest.mark.parametrize("name", ALL)
def test_units_that_are_all_read_stay(name):
    assert moving(ALL[name]) == []


@pytest.mark.parametrize("name", NONE)
def test_reading_what_no_order_changes_pins_nothing(name):
    assert moving(NONE[name]) == [6]


@pytest.mark.parametrize("name", [*ONE, *ALL])
def test_relabellings_keep_the_way_the_network_takes(name):
    """In float64, at weights where about half of the networks go the other way."""
    read = (ONE | ALL)[name]
    for seed in range(8):
        torch.manual_seed(seed)
        net, x = Reading(read).double(), torch.randn(5, 4, dtype=torch.float64)
        t = metanet.trace(net, x).spec.sample(torch.Generator().manual_seed(seed))
        with torch.no_grad():
            want, state = net(x), net.state_dict()
            net.load_state_dict(t(state))
            torch.testing.assert_close(net(x), want, rtol=1e-10, atol=1e-12)


def test_the_warning_names_the_line_of_the_network():
    def read(h: Tensor) -> bool:
        return h[1, 0].item() > 0

    line = inspect.getsourcelines(read)[1] + 1
    arch = metanet.trace(Reading(read), torch.randn(5, 4))
    (warning,) = arch.warnings
    assert f"{HERE}:{line}" in warning and "Python number" in warning


def test_explain_names_it_too():
    arch = metanet.trace(Reading(ALL["tolist"]), torch.randn(5, 4))
    assert "read as a Python number" in arch.spec.explain(
        "a.weight"
    ) and HERE.name in arch.spec.explain("a.weight")


def test_a_parameter_or_table_that_is_read_is_no_tensor_that_nobody_read():
    class Depth(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.gain = (
                nn.Linear(4, 6),
                nn.Linear(6, 3),
                nn.Parameter(torch.ones(())),
            )
            self.register_buffer("steps", torch.tensor(2))

        def forward(self, x: Tensor) -> Tensor:
            h = self.a(x)
            for _ in range(int(self.steps)):
                h = h.tanh() * self.gain.item()
            return self.b(h)

    arch = metanet.trace(Depth(), torch.randn(5, 4))
    assert [g.size for g in arch.spec.groups] == [6]
    assert len(arch.warnings) == 2 and not any("did not read" in w for w in arch.warnings)


def test_signs_and_scales_stay_where_numbers_are_read():
    """A sum is blind to the order of units, and not to their signs."""
    torch.manual_seed(0)
    odd = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    assert metanet.trace(odd, torch.randn(5, 4)).spec.groups[0].also == {"sign"}

    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = odd

        def forward(self, x: Tensor) -> Tensor:
            h = self.layers[0](x)
            return self.layers[2](h.tanh() if h.sum() > 0 else h.tanh().tanh())

    (group,) = metanet.trace(Branching(), torch.randn(5, 4)).spec.groups
    assert group.size == 6 and group.also == set()


def experts(route) -> nn.Module:
    """A loop over experts, each of which gets the tokens that chose it."""

    class Mixture(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.router, self.head = nn.Linear(4, 5), nn.Linear(5, 3), nn.Linear(5, 2)
            self.experts = nn.ModuleList(
                nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 5)) for _ in range(3)
            )

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            scores, chosen = self.router(x).softmax(-1).max(-1)
            out = route(self, x, chosen)
            return self.head(x + out * scores[:, None])

    return Mixture()


def by_counts(m: nn.Module, x: Tensor, chosen: Tensor) -> Tensor:
    order = chosen.argsort()
    counts = F.one_hot(chosen, 3).sum(0).tolist()
    parts = [expert(part) for expert, part in zip(m.experts, x[order].split(counts), strict=True)]
    return torch.zeros_like(x).index_copy(0, order, torch.cat(parts))


def by_masks(m: nn.Module, x: Tensor, chosen: Tensor) -> Tensor:
    out = torch.zeros_like(x)
    for number, expert in enumerate(m.experts):
        (tokens,) = torch.where(chosen == number)
        if tokens.numel():
            out.index_add_(0, tokens, expert(x[tokens]))
    return out


@pytest.mark.parametrize("route", [by_counts, by_masks])
def test_experts_in_a_loop_lose_nothing_but_their_exchange(route):
    """The numbers of tokens are read; the stream and every expert's units move all the same."""
    torch.manual_seed(0)
    net, x = experts(route), torch.randn(24, 4)
    arch = metanet.trace(net, x)
    assert sorted(g.size for g in arch.spec.groups) == [5, 7, 7, 7]
    assert metanet.verify(net, arch.spec, x).change < 1e-10


def test_checks_of_pytorch_itself_read_nothing():
    """``one_hot`` looks whether its classes are within their number: no branch of the network."""
    torch.manual_seed(0)
    net = Reading(lambda h: F.one_hot(h.argmax(-1), 6).shape[0] > 9)
    arch = metanet.trace(net, torch.randn(5, 4))
    assert [g.size for g in arch.spec.groups] == [6] and not arch.warnings
