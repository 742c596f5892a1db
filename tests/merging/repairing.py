"""Networks to repair, with everything drawn, and data for them."""

import copy

import torch
from torch import nn

import metanet
from metanet.evaluation import Runner

RUN = Runner(torch.device("cpu"))


class Own(nn.Module):
    """Layers of one's own: no module says what they are."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.bias, self.out = (
            nn.Parameter(torch.randn(s)) for s in ((64, 9), (9,), (9, 5))
        )

    def forward(self, x):
        return torch.tanh(torch.addmm(self.bias, x.flatten(1), self.into)) @ self.out


def mlp():
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 5)
    )


def cnn():
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.ReLU(), nn.ConvTranspose2d(6, 8, 2, groups=2), nn.ReLU(),
        nn.Conv2d(8, 8, 3, groups=8, bias=False), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(32, 5),
    )  # fmt: skip


def normed():
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3, bias=False), nn.ReLU(),
        nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 5),
    )  # fmt: skip


PLAIN = {"mlp": mlp, "cnn": cnn, "own": Own}


def drawn(make, seed, dtype=torch.float64):
    """A network with everything drawn, its neurons' spreads far apart."""
    torch.manual_seed(seed)
    net = make().to(dtype).eval()
    for name, tensor in net.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(
                tensor.new_empty(tensor.shape).uniform_(0.5, 2)
                if "var" in name
                else torch.randn_like(tensor)
            )
    return net


def images_of(seed=3):
    return torch.randn(
        47, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )


def split(x, *sizes):
    return [(part,) for part in x.split([*sizes, len(x) - sum(sizes)])]


def loaded(net, state):
    out = copy.deepcopy(net)
    out.load_state_dict(state)
    return out.eval()


def average(*nets):
    return metanet.merge(list(nets))
