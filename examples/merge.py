"""Three fine-tunes of one base, each on some digits, merged: ``python examples/merge.py``"""

import copy

import torch
from sklearn.datasets import load_digits
from torch import nn

import metanet

torch.manual_seed(0)
digits = load_digits()
images = torch.tensor(digits.data, dtype=torch.float32) / 16
labels = torch.tensor(digits.target)
test = torch.arange(len(labels)) >= 1200
start = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))


def trained(model: nn.Module, rows: torch.Tensor) -> nn.Module:
    model = copy.deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images[rows]), labels[rows]).backward()
        optimizer.step()
    return model


def accuracy(state) -> float:
    outputs = torch.func.functional_call(start, dict(state), (images[test],))
    return float((outputs.argmax(1) == labels[test]).float().mean())


base = trained(start, ~test)
parts = [labels < 4, (labels > 2) & (labels < 8), labels > 5]
models = [trained(base, rows & ~test) for rows in parts]
print("each:", [round(accuracy(model.state_dict()), 2) for model in models])
for method in ("task_arithmetic", "ties", "model_stock"):
    print(f"{method}: {accuracy(metanet.merge(models, method, base=base)):.2f}")
