"""A zoo of four small networks, for the readers of hostile files."""

from pathlib import Path

import torch

from metanet.zoo import networks
from metanet.zoo._making import load_or_make, make_chunks
from metanet.zoo._store import Architecture, Shard


class _Maker:
    name, unit = "toy", "networks"

    def recipe(self) -> dict:
        return {"zoo": "toy", "seed": 0}

    def described(self) -> dict[str, Architecture]:
        return {
            "deep": Architecture(ref="metanet.zoo.networks:mlp", arch_args={"widths": [3, 2]}, input_shape=(1, 8, 8))
        }

    def chunks(self) -> list:
        return make_chunks("deep", 2, [1] * 2)

    def make(self, chunk, tick) -> Shard:
        states = []
        for _ in range(chunk.start, chunk.stop):
            states.append(networks.mlp(widths=[3, 2]).state_dict())
            tick(1)
        rows = [{"id": f"deep-{i}", "architecture": "deep", "score": 0.5} for i in range(chunk.start, chunk.stop)]
        state = {key: torch.stack([each[key] for each in states]) for key in states[0]}
        return Shard(state=state, rows=rows, curves=[{"loss": [0.5]} for _ in rows])


def write(folder: Path) -> None:
    made = load_or_make(_Maker(), str(folder.parent))
    Path(made.path).rename(folder)
