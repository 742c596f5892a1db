"""What is killed: every command that writes, and every function that replaces several files, on
small inputs."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

import metanet
import metanet.nn
from metanet import cli
from metanet.checkpoints import load_checkpoint, save_checkpoint
from metanet.graph import load_graph, save_graph
from metanet.sources import import_torchvision
from metanet.zoo import open_zoo

State = dict[str, Any]  # by final name: what a reader finds there

NETWORKS = """
from torch import nn

def mlp():
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
"""
ARCH = ("arch=my_networks:mlp", "input_shape=[4]")
TINY = ("zoo=digits_tiny", "logger=none", "device=cpu", "task.batch_size=8", "trainer.max_epochs=2")
MODEL = ("model=gmn", "model.width=8", "model.layers=1", "trainer.log_every_n_steps=1")
# So that the second epoch is better than the first: what a resumed run leaves can be told from what
# it found.
BETTER = ("task.val=0.4", "optim.optimizer.lr=0.003", "seed=2")


@dataclass(frozen=True, kw_only=True)
class Case:
    """One thing that writes.

    Args:
        run: does it, in a folder with the inputs; returns an exit code.
        state: what readers find under the final names; raises when something under one is no whole.
        prepare: makes what was there before.
        again: what a user does after a kill.
        volatile: names that hold something else after every run.
    """

    run: Callable[[], int]
    state: Callable[[Path], State]
    prepare: Callable[[], Any] | None = None
    again: Callable[[], int] | None = None
    volatile: Sequence[str] = ()


def make_inputs(folder: Path) -> None:
    """What all cases read; the working directory is ``folder``."""
    (folder / "my_networks.py").write_text(NETWORKS)
    for name in "ab":
        torch.manual_seed(ord(name))
        save_checkpoint(folder / f"{name}.safetensors", _network().state_dict())
    inputs = torch.randn(16, 4)
    asked = {"1.weight": torch.randn(16, 64), "1.bias": torch.zeros(16)}
    save_checkpoint(
        folder / "asked.safetensors",
        asked | {"3.weight": torch.randn(10, 16), "3.bias": torch.zeros(10)},
    )
    save_checkpoint(
        folder / "data.safetensors", {"inputs": inputs, "targets": inputs[:, 0].gt(0).long()}
    )


def _network() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))


def _command(*args: str) -> Callable[[], int]:
    return lambda: cli.main([*args])


def _digest(tensors: Any) -> str:
    text = hashlib.sha256()
    for name in sorted(tensors):
        text.update(
            name.encode()
            + tensors[name].detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        )
    return text.hexdigest()[:12]


def _checkpoint(path: Path) -> State:
    return {path.name: _digest(load_checkpoint(path))} if _begun(path) else {}


def _begun(folder: Path) -> bool:
    """Whether there is more in a folder than what is still being written."""
    return folder.is_dir() and any(".partial." not in path.name for path in folder.iterdir())


def _reads(*kinds: tuple[str, Callable[[Path], Any]]) -> Callable[[Path], State]:
    """The files of these names that are there, as their readers see them."""

    def state(folder: Path) -> State:
        there = {
            name: read for name, read in kinds if (folder / name).is_file() or _begun(folder / name)
        }
        return {name: read(folder / name) for name, read in there.items()}

    return state


def _png(path: Path) -> str:
    with Image.open(path) as picture:
        picture.load()
        return "picture"


def _html(path: Path) -> str:
    text = path.read_text()
    assert text.rstrip().endswith("</html>"), "half a page"
    return "page"


def _table(path: Path) -> list[list[str]]:
    return [line.split(",") for line in path.read_text().splitlines()]


def _numbers(path: Path) -> State:
    found = json.loads(path.read_text())
    return {name: value for name, value in found.items() if "second" not in name}


def _graph(path: Path) -> str:
    graph, _ = load_graph(path)
    return _digest({"edges": graph.edge_attr})


def _model(path: Path) -> str:
    return _digest(metanet.nn.load(path).tensors())


def _aligned(folder: Path) -> State:
    found = _checkpoint(folder / "out")
    if found:
        metanet.Alignment.load(folder / "out/alignment.safetensors")
        _numbers(folder / "out/metrics.json")
    return found


def _zoo(folder: Path) -> State:
    return {
        path.parent.name: {
            name: _digest(each.state) for name, each in open_zoo(path.parent).populations.items()
        }
        for path in (folder / "data").glob("*/zoo.json")
    }


def _trained(folder: Path) -> State:
    return _reads(
        ("metrics.json", _metrics), ("predictions.csv", _table), ("scatter.png", _png), ("model", _model),
        ("last.ckpt", _epoch),
    )(folder / "run")  # fmt: skip


def _epoch(path: Path) -> int:
    # before lightning imports it: its compiled part may be of another build than PyTorch
    import_torchvision()
    from metanet.tasks._last import load_last  # on lightning, which takes seconds

    return load_last(path)["epoch"]


def _metrics(path: Path) -> State:
    return {
        name: value
        for name, value in _numbers(path).items()
        if name.split("/")[0] in ("test", "unseen")
    }


def _train_again() -> int:
    """As a user does: go on; where nothing had begun, the same command again."""
    return cli.main(["train", "resume=run"]) and cli.main([*_TRAIN])


_TRAIN = ("train", *TINY, *MODEL, *BETTER, "hydra.run.dir=run")
_GRAPH = ("graph", "checkpoint=a.safetensors", *ARCH, "out=out", "hydra.run.dir=run")


def _over(first: Any, second: Any) -> tuple[Callable[[], Any], Callable[[], int]]:
    """A folder's checkpoint over another: each in shards of so many bytes."""

    def save(name: str, size: Any) -> int:
        save_checkpoint("folder", load_checkpoint(f"{name}.safetensors"), max_shard_size=size)
        return 0

    return lambda: save("a", first), lambda: save("b", second)


def _save_graph(name: str, path: str) -> int:
    model = _network()
    arch = metanet.trace(model, torch.zeros(2, 4))
    save_graph(
        metanet.to_graph(dict(load_checkpoint(f"{name}.safetensors")), arch), arch.template, path
    )
    return 0


def _save_model(seed: int) -> int:
    torch.manual_seed(seed)
    metanet.nn.save("model", metanet.nn.build("gmn", width=4, layers=1, out_dim=1))
    return 0


def _saving(first: Any, second: Any) -> Case:
    prepare, run = _over(first, second)
    return Case(prepare=prepare, run=run, state=lambda folder: _checkpoint(folder / "folder"))


CASES: dict[str, Case] = {
    "merge": Case(
        run=_command("merge", "models=[a.safetensors,b.safetensors]", "out=out", "hydra.run.dir=run"),
        state=lambda folder: _checkpoint(folder / "out"),
    ),
    "merge, in shards": Case(
        run=_command(
            "merge", "models=[a.safetensors,b.safetensors]", "out=out", "max_shard_size=150",
            "hydra.run.dir=run"
        ),
        state=lambda folder: _checkpoint(folder / "out"),
    ),
    "align": Case(
        run=_command("align", "a=a.safetensors", "b=b.safetensors", *ARCH, "out=out", "hydra.run.dir=run"),
        state=_aligned,
    ),
    "graph": Case(
        run=_command(*_GRAPH, "html=true"),
        state=lambda folder: _reads(("graph.safetensors", _graph), ("graph.png", _png),
            ("graph.html", _html))(
            folder / "out"
        ),
    ),
    "graph, overwrite": Case(
        prepare=lambda: _save_graph("b", "out/graph.safetensors"),
        run=_command(*_GRAPH, "draw=false", "overwrite=true"),
        state=lambda folder: _reads(("graph.safetensors", _graph))(folder / "out"),
    ),
    "graph, format=pt": Case(
        run=_command(*_GRAPH, "draw=false", "format=pt"),
        state=lambda folder: _reads(("graph.pt", _graph))(folder / "out"),
    ),
    "inspect": Case(
        run=_command("inspect", *ARCH, "out=arch.json", "verify=false", "hydra.run.dir=run"),
        state=_reads(("arch.json", lambda path: str(metanet.Architecture.load(path)))),
    ),
    "barrier": Case(
        run=_command(
            "barrier", "a=a.safetensors", "b=b.safetensors", *ARCH, "data=data.safetensors", "points=5",
            "logger=none", "hydra.run.dir=run",
        ),
        state=lambda folder: _reads(("barrier.csv", _table), ("barrier.png", _png),
            ("metrics.json", _numbers))(
            folder / "run"
        ),
    ),
    "train": Case(run=_command(*_TRAIN), again=_train_again, state=_trained, volatile=("last.ckpt",)),
    "train, resume=": Case(
        prepare=lambda: cli.main([*_TRAIN, "trainer.max_epochs=1"]),
        run=_command("train", "resume=run", "trainer.max_epochs=2"),
        state=_trained, volatile=("last.ckpt",),
    ),
    "predict": Case(
        prepare=lambda: cli.main([*_TRAIN, "trainer.max_epochs=1"]),
        run=_command("predict", "run=run", "checkpoint=asked.safetensors", "arch=mlp2_tanh",
            "hydra.run.dir=asking"),
        state=lambda folder: _trained(folder) | _reads(("predict.log",
                lambda path: "made"))(folder / "asking"),
    ),
    "zoo": Case(
        run=_command("zoo", "zoo=digits_tiny", "zoo.networks=6", "zoo.epochs=1", "+zoo.root=data",
            "hydra.run.dir=run"),
        state=_zoo,
    ),
    "save_checkpoint, file over shards": _saving(150, "5GB"),
    "save_checkpoint, shards over file": _saving("5GB", 150),
    "save_checkpoint, shards over shards": _saving(150, 250),
    "save_graph": Case(
        prepare=lambda: _save_graph("a", "x.safetensors"), run=lambda: _save_graph("b", "x.safetensors"),
        state=_reads(("x.safetensors", _graph)),
    ),
    "nn.save": Case(
        prepare=lambda: _save_model(0), run=lambda: _save_model(1), state=_reads(("model", _model)),
    ),
}  # fmt: skip
