"""A checkpoint as a graph, and back, and drawn: ``python examples/graph.py``"""

import torch
from torch import nn

import metanet

torch.manual_seed(0)
model = nn.Sequential(
    nn.Conv2d(1, 6, 3), nn.GroupNorm(2, 6), nn.GELU(), nn.Flatten(), nn.Linear(24, 3)
)
metanet.save_checkpoint("cnn.safetensors", model.state_dict())

arch = metanet.trace(model, torch.randn(2, 1, 4, 4))
graph = metanet.to_graph("cnn.safetensors", arch)
print(graph.num_nodes, "neurons,", graph.num_edges, "edges")

state = metanet.from_graph(graph, arch)
assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in state.items())

metanet.graph.draw(graph, arch.graph_template(), "cnn.png", title="cnn.safetensors")
metanet.graph.save_graph(graph, arch.graph_template(), "cnn-graph.safetensors")
print("wrote cnn.png, cnn-graph.safetensors and cnn-graph.json")
