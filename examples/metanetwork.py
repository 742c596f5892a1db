"""Learn from weights alone how often a network was trained: ``python examples/metanetwork.py``"""

import torch
from torch import nn

import metanet

torch.manual_seed(0)
x = torch.linspace(-2, 2, 64)[:, None]


def network(steps: int) -> dict[str, torch.Tensor]:
    model = nn.Sequential(nn.Linear(1, 12), nn.Tanh(), nn.Linear(12, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(steps):
        loss = (model(x) - torch.sin(3 * x)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.state_dict()


steps = torch.randint(0, 100, (80,))
states = [network(int(count)) for count in steps]
arch = metanet.trace(nn.Sequential(nn.Linear(1, 12), nn.Tanh(), nn.Linear(12, 1)), x)
target = steps.float() / 100
train, test = (metanet.to_graph(part, arch) for part in (states[:60], states[60:]))

gmn = metanet.nn.build("gmn", width=16, layers=2, out_dim=1, dropout=0.0)
optimizer = torch.optim.Adam(gmn.parameters(), lr=0.003)
for _ in range(60):
    loss = (gmn(train)[:, 0] - target[:60]).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
off = (gmn(test)[:, 0] - target[60:]).detach().abs().mean()
mean_off = (target[60:] - target[:60].mean()).abs().mean()
print(f"off by {100 * off:.0f} steps of 100; the mean of the others by {100 * mean_off:.0f}")
