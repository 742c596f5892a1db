"""Graph builders of other projects, each run from a checkout of its own: none of their code is in
this repository.

A peer is one function ``(checkout, states) -> builders`` in :data:`PEERS`. It imports only the
files that build graphs; what these import without using it for that, and what is not installed, is
replaced by empty stand-in modules.
"""

import importlib
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

State = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Builder:
    """One way from 64 checkpoints to one batch.

    Attributes:
        name: of the project.
        start: what it begins with: ``"state dicts"``, ``"stacked tensors"``, ``"modules"``.
        result: what it ends with: ``"PyG batch"`` or ``"dense arrays"``. Times are compared within
            one kind.
        build: the measured function.
        values: the parameters in what was built, in any order, to check that it holds all of every
            network.
    """

    name: str
    start: str
    result: str
    build: Callable[[], Any]
    values: Callable[[Any], Tensor]


def layer_layout(state: State) -> list[int]:
    """Neurons per layer of an MLP: ``[2, 32, 32, 1]``."""
    matrices = [tensor for tensor in state.values() if tensor.ndim == 2]
    return [matrices[0].shape[1], *(matrix.shape[0] for matrix in matrices)]


def graph_metanetworks(checkout: Path, states: Sequence[State]) -> list[Builder]:
    """Modules made before the clock starts -> architecture -> graph each ->
    ``Batch.from_data_list``."""
    from torch_geometric.data import Batch, Data

    package("gmn", checkout / "gmn")
    theirs = importlib.import_module("gmn.graph_construct.model_arch_graph")
    networks = [as_sequential(state) for state in states]

    def build() -> Any:
        graphs = []
        for network in networks:
            x, edge_index, edge_attr = theirs.arch_to_graph(theirs.sequential_to_arch(network))
            # their metanetworks take float node features
            graphs.append(Data(x=x.float(), edge_index=edge_index, edge_attr=edge_attr))
        return Batch.from_data_list(graphs)

    return [
        Builder(name="Graph Metanetworks", start="modules", result="PyG batch", build=build,
                values=lambda batch: batch.edge_attr[:, 0])
    ]  # fmt: skip


def neural_graphs(checkout: Path, states: Sequence[State]) -> list[Builder]:
    """Weights and biases as their data set cuts them -> dense arrays and mask (NG-T reads these) ->
    batch (NG-GNN)."""
    stand_in("einops.layers.torch", Rearrange=None)
    stand_in("rff.layers", GaussianEncoding=None, PositionalEncoding=None)
    stand_in("torch_geometric.utils.trim_to_layer", TrimToLayer=None)
    package("nn", checkout / "nn")
    dense, sparse = (
        importlib.import_module("nn.graph_constructor"),
        importlib.import_module("nn.gnn"),
    )
    layout = layer_layout(states[0])
    edge_index = sparse.nn_to_edge_index(layout, "cpu")

    def item(state: State) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        weights = tuple(v.permute(1, 0).unsqueeze(-1) for k, v in state.items() if "weight" in k)
        return weights, tuple(v.unsqueeze(-1) for k, v in state.items() if "bias" in k)

    def arrays(
        weights: Sequence[Tensor], biases: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        nodes, edges = dense.batch_to_graphs(weights, biases)
        return nodes, edges, edges.sum(dim=-1, keepdim=True) != 0

    def collated() -> Any:
        return default_collate([item(state) for state in states])

    def batch(weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Any:
        nodes, edges, _ = arrays(weights, biases)
        return sparse.to_pyg_batch(nodes, edges, edge_index)

    def entries(built: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        nodes, edges, _ = built
        return torch.cat(
            [nodes[:, layout[0] :].flatten(), edges[:, edge_index[0], edge_index[1]].flatten()]
        )

    once = collated()
    named = {"name": "Neural Graphs"}
    as_arrays = {**named, "result": "dense arrays", "values": entries}
    as_batch = {**named, "result": "PyG batch", "values": lambda b: nodes_and_edges(b, layout[0])}
    return [
        Builder(**as_batch, start="state dicts", build=lambda: batch(*collated())),
        Builder(**as_batch, start="stacked tensors", build=lambda: batch(*once)),
        Builder(**as_arrays, start="state dicts", build=lambda: arrays(*collated())),
        Builder(**as_arrays, start="stacked tensors", build=lambda: arrays(*once)),
    ]


def scalegmn(checkout: Path, states: Sequence[State]) -> list[Builder]:
    """Their data set item by item, as in their MNIST configuration, with a ``torch.load`` that
    reads from memory."""
    from torch_geometric.data import Batch

    stand_in("nfn.common", state_dict_to_tensors=None)
    package("src", checkout / "src")
    package("src.data", checkout / "src/data")
    theirs = importlib.import_module("src.data.base_datasets")
    theirs.torch = SimpleNamespace(
        **{**vars(torch), "load": lambda index, map_location: states[index]}
    )

    class InMemory(theirs.BaseDataset):
        def load_dataset(self, split_path: str) -> range:
            return range(len(states))

        def get_path(self, index: int) -> tuple[int, None]:
            return index, None

        def get_label(self, index: int, state: State, aux: None) -> int:
            return 0

    layout = layer_layout(states[0])
    items = InMemory("mnist", "", "", node_pos_embed=True, edge_pos_embed=True, equiv_on_hidden=True,
                     layer_layout=layout, switch_to_canon=False)  # fmt: skip

    def build() -> Any:
        return Batch.from_data_list([items[i] for i in range(len(items))])

    values = lambda b: nodes_and_edges(b, layout[0])  # noqa: E731
    return [
        Builder(
            name="ScaleGMN", start="state dicts", result="PyG batch", build=build, values=values
        )
    ]


PEERS: dict[str, Callable[[Path, Sequence[State]], list[Builder]]] = {
    "gmn": graph_metanetworks,
    "neural-graphs": neural_graphs,
    "scalegmn": scalegmn,
}


def nodes_and_edges(batch: Any, inputs: int) -> Tensor:
    """Biases are features of the nodes that are no inputs, weights of the edges."""
    nodes = batch.x.reshape(batch.num_graphs, -1)
    return torch.cat([nodes[:, inputs:].flatten(), batch.edge_attr.flatten()])


def as_sequential(state: State) -> nn.Sequential:
    """Linear layers with parameters of the state, sines between them; no gradients, which would
    cost the peer time."""
    layers: list[nn.Module] = []
    names = list(state)
    for weight, bias in zip(names[::2], names[1::2], strict=True):
        linear = nn.Linear(state[weight].shape[1], state[weight].shape[0], device="meta")
        linear.weight = nn.Parameter(state[weight], requires_grad=False)
        linear.bias = nn.Parameter(state[bias], requires_grad=False)
        layers += [linear, Sine()]
    return nn.Sequential(*layers[:-1])


class Sine(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(30 * x)


def package(name: str, folder: Path) -> None:
    """A package of that name whose modules are found in the folder, and whose ``__init__`` does not
    run."""
    if not folder.is_dir():
        raise SystemExit(
            f"{folder} does not exist: --peer takes the path of a checkout that has it"
        )
    sys.modules[name] = ModuleType(name)
    sys.modules[name].__path__ = [str(folder)]


def stand_in(name: str, **attributes: Any) -> None:
    """An empty module, and packages above it, where there is none of that name."""
    try:
        importlib.import_module(name)
    except ImportError:
        parts = name.split(".")
        for i in range(1, len(parts) + 1):
            module = ModuleType(".".join(parts[:i]))
            module.__path__ = []
            sys.modules.setdefault(module.__name__, module)
        vars(sys.modules[name]).update(attributes)


def commit(checkout: Path) -> str:
    """The commit that is checked out."""
    done = subprocess.run(
        ["git", "-C", str(checkout), "rev-parse", "--short=12", "HEAD"],
        capture_output=True,
        text=True,
    )
    return done.stdout.strip() or "unknown"
