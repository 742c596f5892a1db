"""What may change places in a transformer, and why an axis may not: ``python examples/symmetries.py``"""

import torch
from torch import nn

import metanet

torch.manual_seed(0)
layer = nn.TransformerEncoderLayer(d_model=16, nhead=4, dim_feedforward=32, batch_first=True)
model = nn.Sequential(nn.Linear(5, 16), nn.TransformerEncoder(layer, 2), nn.Linear(16, 3))
inputs = torch.randn(2, 6, 5)

arch = metanet.trace(model, inputs, check_inputs=torch.randn(3, 9, 5))
for group in arch.spec.groups:
    keys = f", one arrangement for each of {' x '.join(map(str, group.keys))}" if group.keys else ""
    print(f"{group.size:3} neurons of {group.name}{keys}")
print()
print(arch.spec.explain("1.layers.0.self_attn.in_proj_weight"))
print()
print("relabelled, drawn anew, compared:", metanet.verify(model, arch.spec, inputs))
