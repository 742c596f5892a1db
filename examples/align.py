"""Two networks of digits from two seeds: their average, as they are and aligned.

python examples/align.py
"""

import torch
from sklearn.datasets import load_digits
from torch import nn

import metanet

digits = load_digits()
images = torch.tensor(digits.data, dtype=torch.float32) / 16
labels = torch.tensor(digits.target)
model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))


def trained(seed: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))
    optimizer = torch.optim.Adam(network.parameters(), lr=0.003)
    for _ in range(60):
        rows = torch.randint(1200, (128,))
        loss = nn.functional.cross_entropy(network(images[rows]), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.state_dict()


a, b = trained(1), trained(2)
arch = metanet.trace(model, images[:4])
data = [(images[1200:], labels[1200:])]
for method in ("weight", "activation"):
    alignment = metanet.align(b, to=a, arch=arch, method=method, model=model, data=data)
    curve = metanet.barrier(a, alignment(b), model=model, data=data, points=11)
    print(f"{method:10} barrier of the loss {curve.barrier:.4f}")
curve = metanet.barrier(a, b, model=model, data=data, points=11)
print(f"not aligned barrier of the loss {curve.barrier:.4f}")
