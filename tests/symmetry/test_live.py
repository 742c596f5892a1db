"""What a dispatch mode is told of the operations that it sees."""

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from metanet.symmetry import Attach, Contraction, SeenCall, Window, seen_call


class Watch(TorchDispatchMode):
    """Keeps what every operation means."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[SeenCall] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.seen.append(seen_call(func, args, kwargs or {}, out))
        return out

    def contractions(self) -> list[tuple[SeenCall, Contraction]]:
        pairs = ((seen, flow) for seen in self.seen for flow in seen.flow)
        return [(seen, flow) for seen, flow in pairs if isinstance(flow, Contraction)]


def test_a_linear_layer_is_a_contraction_of_its_input_with_its_weight():
    layer, x = nn.Linear(3, 4), torch.randn(2, 3)
    with torch.no_grad(), Watch() as watch:
        layer(x)
    seen, flow = watch.contractions()[0]
    assert seen.tensor(flow.data) is x
    weight = seen.tensor(flow.weight)
    assert weight.data_ptr() == layer.weight.data_ptr()
    assert weight.shape[flow.weight_in] == 3 and weight.shape[flow.weight_out] == 4
    (bias,) = (f for f in seen.flow if isinstance(f, Attach))
    assert seen.tensor(bias.operand) is layer.bias


def test_a_convolution_says_how_it_slides():
    x, weight = torch.randn(2, 4, 6, 6), torch.randn(8, 2, 3, 3)
    with torch.no_grad(), Watch() as watch:
        F.conv2d(x, weight, stride=(2, 1), padding=1, groups=2)
    ((seen, flow),) = watch.contractions()
    assert seen.tensor(flow.weight) is weight
    assert flow.convolution == Window((2, 1), (1, 1), (1, 1))
    assert flow.groups == 2


def test_operations_without_a_rule_mean_nothing():
    with Watch() as watch:
        torch.linalg.qr(torch.eye(3))
    assert all(seen.flow == () for seen in watch.seen)
