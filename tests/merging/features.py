"""Networks whose features are merged, in float64, and neurons planted in them."""

import torch
from torch import nn
from torch.nn import functional as F

import metanet
from metanet.merging.features._free import free_groups
from metanet.merging.features._roles import along, roles_of
from metanet.verification import redraw


class Mlp(nn.Module):
    def __init__(self, a=8, b=7):
        super().__init__()
        self.a, self.b, self.head = nn.Linear(5, a), nn.Linear(a, b), nn.Linear(b, 3)

    def forward(self, x):
        return self.head(torch.tanh(self.b(F.gelu(self.a(x)))))


class Residual(nn.Module):
    """Two blocks on one stream, then flattened."""

    def __init__(self, stream=6, a=5, b=7):
        super().__init__()
        self.stem, self.norm = (
            nn.Conv2d(2, stream, 3, padding=1, bias=False),
            nn.BatchNorm2d(stream),
        )
        self.into = nn.ModuleList(nn.Conv2d(stream, n, 3, padding=1) for n in (a, b))
        self.norms = nn.ModuleList(map(nn.BatchNorm2d, (a, b)))
        self.out = nn.ModuleList(nn.Conv2d(n, stream, 1) for n in (a, b))
        self.depthwise = nn.Conv2d(stream, stream, 3, groups=stream)
        self.head = nn.Linear(stream * 4, 3)

    def forward(self, x):
        x = torch.relu(self.norm(self.stem(x)))
        for into, norm, out in zip(self.into, self.norms, self.out, strict=True):
            x = x + out(F.silu(norm(into(x))))
        return self.head(torch.tanh(self.depthwise(x)).flatten(1))


class Transformer(nn.Module):
    """One block; its stream and its heads can't be merged, its hidden units can."""

    def __init__(self, hidden=9):
        super().__init__()
        self.embed, self.head = nn.Linear(3, 8), nn.Linear(8, 2)
        self.qkv, self.proj = nn.Linear(8, 24), nn.Linear(8, 8)
        self.one, self.two = nn.LayerNorm(8), nn.LayerNorm(8)
        self.up, self.down = nn.Linear(8, hidden), nn.Linear(hidden, 8)

    def forward(self, x):
        x = self.embed(x)
        q, k, v = (
            t.unflatten(-1, (2, 4)).transpose(1, 2) for t in self.qkv(self.one(x)).chunk(3, -1)
        )
        x = x + self.proj((torch.softmax(q @ k.mT / 2, -1) @ v).transpose(1, 2).flatten(2))
        return self.head(x + self.down(F.gelu(self.up(self.two(x)))))


EXAMPLES = {
    "mlp": (Mlp, lambda n: torch.randn(n, 5).double()),
    "residual": (Residual, lambda n: torch.randn(n, 2, 4, 4).double()),
    "transformer": (Transformer, lambda n: torch.randn(n, 5, 3).double()),
}
FREE = {
    "mlp": {"a", "b"},
    "residual": {"stem", "into.0", "into.1"},
    "transformer": {"up"},
}


def example(name):
    """Architecture, module and inputs in float64."""
    make, inputs = EXAMPLES[name]
    model = make().double().eval()
    return metanet.trace(model, inputs(2)), model, inputs


def state_of(model, seed):
    return redraw(model.state_dict(), torch.Generator().manual_seed(seed), model=model)


def run(model, state, x):
    model.load_state_dict(dict(state))
    with torch.no_grad():
        return model.eval()(x)


def planted(arch, state, pairs, groups=None):
    """Neurons j of the groups (all free ones) made like neurons i; what reads them is left as it
    is."""
    roles = roles_of(arch.template)
    groups = free_groups(arch, state)[0] if groups is None else groups
    kept, gone = torch.tensor(pairs).T

    def act(name):
        def copy(tensor, at, group, number):
            if group not in groups or not roles.makes(name, number):
                return tensor
            return tensor.index_copy(at, gone, tensor.index_select(at, kept))

        return copy

    return {
        n: along(t, arch.spec.tensors[n].axes, act(n)) if n in arch.spec.tensors else t
        for n, t in state.items()
    }


def batches(inputs, *sizes):
    return [(inputs(n), None) for n in sizes]
