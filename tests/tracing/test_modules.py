"""What is given in place of a module, and modules that PyTorch runs out of sight."""

import pytest
import torch
from torch import nn

import metanet
from metanet.errors import TraceError


class Around(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)


def plain() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))


X = torch.randn(2, 4)
pytestmark = pytest.mark.filterwarnings("ignore:.*`torch.jit")
REFUSED = {
    "scripted": (
        lambda path: torch.jit.script(plain()),
        "module.load_state_dict(scripted.state_dict())",
    ),
    "traced": (
        lambda path: torch.jit.trace(plain(), X),
        "module.load_state_dict(scripted.state_dict())",
    ),
    "loaded": (lambda path: saved(path), "module.load_state_dict(scripted.state_dict())"),
    "inside": (lambda path: Around(torch.jit.script(plain())), "its module 'inner' is TorchScript"),
    "exported": (lambda path: torch.export.export(plain(), (X,)), "program.module()"),
    "function": (lambda path: torch.relu, "the forward of a module"),
    "class": (lambda path: nn.Linear, "the class Linear: make one"),
    "reference": (lambda path: "timm:resnet18", "build the network"),
    "state dict": (lambda path: plain().state_dict(), "load them into it"),
}


def saved(path):
    torch.jit.trace(plain(), X).save(str(path / "script.pt"))
    return torch.jit.load(str(path / "script.pt"))


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("inputs", [(X,), ()])
def test_what_cannot_be_traced_is_refused_with_the_way_out(name, inputs, tmp_path):
    make, advice = REFUSED[name]
    with pytest.raises(TraceError) as caught:
        metanet.trace(make(tmp_path), *inputs)
    assert advice in str(caught.value) and len(str(caught.value)) < 2_000


def test_verifying_it_says_the_same():
    spec = metanet.trace(plain(), X).spec
    with pytest.raises(TraceError, match="TorchScript"):
        metanet.verify(torch.jit.script(plain()), spec, X)


def test_the_way_out_leads_out():
    scripted, module = torch.jit.script(plain()), plain()
    module.load_state_dict(scripted.state_dict())
    assert [g.size for g in metanet.trace(module, X).spec.groups] == [8]


@pytest.mark.parametrize(
    "wrap",
    [
        torch.fx.symbolic_trace,
        torch.compile,
        Around,
        lambda m: torch.export.export(m, (X,)).module(),
    ],
)
def test_other_forms_of_a_module_are_traced_as_it_is(wrap):
    assert [g.size for g in metanet.trace(wrap(plain()), X).spec.groups] == [8]
