"""A zoo of four small networks, for the readers of hostile files."""

import json
from pathlib import Path

import torch

import metanet.zoo
from metanet.zoo import Blueprint, networks
from metanet.zoo._files import sha256
from metanet.zoo._making import load_or_make, make_chunks
from metanet.zoo._store import Shard, _manifest_checksum

REF, ARGUMENTS = "metanet.zoo.networks:mlp", {"widths": [3, 2]}


class _Maker:
    name, unit = "toy", "networks"

    def recipe(self) -> dict:
        return {"zoo": "toy", "seed": 0}

    def described(self) -> dict[str, Blueprint]:
        return {"deep": Blueprint(ref=REF, arch_args=ARGUMENTS, input_shape=(1, 8, 8))}

    def chunks(self) -> list:
        return make_chunks("deep", 2, [1] * 4)

    def make(self, chunk, tick) -> Shard:
        states = []
        for number in range(chunk.start, chunk.stop):
            torch.manual_seed(number)
            states.append(networks.mlp(**ARGUMENTS).state_dict())
            tick(1)
        rows = [
            {"id": f"deep-{i}", "run": f"run-{i}", "architecture": "deep", "score": 0.5}
            for i in range(chunk.start, chunk.stop)
        ]
        state = {key: torch.stack([each[key] for each in states]) for key in states[0]}
        return Shard(state=state, rows=rows, curves=[{"loss": [0.5]} for _ in rows])


def write(folder: Path) -> None:
    """A zoo in ``folder/zoo``."""
    made = load_or_make(_Maker(), str(folder), progress=False)
    Path(made.path).rename(folder / "zoo")


def read(folder: Path) -> None:
    """The zoo of :func:`write`, to the networks that its files name."""
    zoo = metanet.zoo.open_zoo(folder / "zoo")
    for population in zoo.populations.values():
        population.build()
        population.state_dict(0)


def mend(folder: Path) -> None:
    """State the checksums of what there is now, as somebody hostile would: all but the first check
    is behind them."""
    path = folder / "zoo" / "zoo.json"
    try:
        manifest = json.loads(path.read_bytes())
        for name, entry in manifest["files"].items():
            content = (path.parent / name).read_bytes()
            entry |= {"sha256": sha256(content), "bytes": len(content)}
        path.write_text(json.dumps({**manifest, "sha256": _manifest_checksum(manifest)}))
    except Exception:  # it is changed beyond that
        return


def write_folder(folder: Path) -> None:
    """Checkpoints and a table of somebody's own, in ``folder``."""
    rows = ["path,score,split,arch_args.activation,arch_args.widths"]
    for number, split in enumerate(("train", "val", "test")):
        torch.manual_seed(number)
        metanet.save_checkpoint(
            folder / f"{number}.safetensors", networks.mlp(**ARGUMENTS).state_dict()
        )
        rows.append(f'{number}.safetensors,0.{number},{split},relu,"[3, 2]"')
    (folder / "table.csv").write_text("\n".join(rows) + "\n")


def read_folder(folder: Path) -> None:
    metanet.zoo.FolderZoo(
        path=str(folder), table="table.csv", label="score", arch=REF, input_shape=[1, 8, 8]
    ).load(progress=False)
