"""Every format that metanet reads: how a small sound file is made, how it is read, and what else
reads it."""

import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _hostile_runs as runs
import _hostile_zoo as zoos
import safetensors
import torch
from torch import Tensor, nn

import metanet
import metanet.nn
from metanet.graph._saving import load_graph, save_graph
from metanet.sources import load_source

Value = Mapping[str, Tensor] | None


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        make: writes a sound file (or several) into an empty folder.
        files: those that are changed, with the kind of their structure.
        read: reads them with metanet, to the end.
        reference: reads them with another program; ``None`` where there is none.
        mend: makes checksums those of what is there.
    """

    make: Callable[[Path], Any]
    files: Mapping[str, str]
    read: Callable[[Path], Value]
    reference: Callable[[Path], Value] | None = None
    mend: Callable[[Path], None] | None = None


class Tiny(nn.Module):
    """Two layers, a norm and a residual: keys, concatenations and integers are in its files."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 4)
        self.c = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.a(x)))
        return self.c(x + torch.relu(self.b(x)))


def state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    more = {
        "half": torch.ones(2, 3, dtype=torch.bfloat16),
        "flags": torch.tensor([True, False]),
        "none": torch.empty(0, 2),
    }
    return {**Tiny().state_dict(), **more}


def architecture() -> metanet.Architecture:
    torch.manual_seed(0)
    return metanet.trace(Tiny(), torch.randn(5, 3))


def attention() -> metanet.Architecture:
    """With groups that are keyed by others."""
    torch.manual_seed(0)
    return metanet.trace(
        nn.TransformerEncoderLayer(8, 2, 6, batch_first=True), torch.randn(2, 5, 8)
    )


def _torch(path: Path, older: bool = False) -> None:
    wrapped = {"state_dict": state(), "epoch": 3, "names": ["a", ("b", 1)]}
    torch.save(wrapped, path, _use_new_zipfile_serialization=not older)


def _deflated(path: Path) -> None:
    _torch(path)
    with zipfile.ZipFile(path) as archive:
        records = [(info.filename, archive.read(info)) for info in archive.infolist()]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in records:
            archive.writestr(
                zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED
            )  # of no date: the same each time


def _foreign(path: Path, older: bool) -> None:
    from collections import Counter
    from fractions import Fraction

    torch.save(
        {"model": Tiny(), "ratio": Fraction(1, 3), "n": Counter("abc")},
        path,
        _use_new_zipfile_serialization=not older,
    )


def _shards(folder: Path) -> None:
    metanet.save_checkpoint(folder / "m", state(), {"epoch": 1}, max_shard_size=60)


def _hugging_face(folder: Path) -> None:
    fields = {
        "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_embd": 8, "n_layer": 1, "n_head": 2,
        "vocab_size": 11, "n_positions": 16, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5,
        "tie_word_embeddings": True,
        "eos_token_id": 1, "bos_token_id": 1, "resid_pdrop": 0.1, "summary_type": "cls_index",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(fields))
    metanet.save_checkpoint(folder / "model.safetensors", {"w": torch.ones(2)})


def _network(folder: Path) -> None:
    load_source(f"hf:{folder}", device="meta")


def _sweep(folder: Path) -> None:
    (folder / "0" / ".hydra").mkdir(parents=True)
    (folder / "0" / ".hydra" / "overrides.yaml").write_text(
        "- seed=1\n- model=gmn\n- optim.lr=0.1\n"
    )
    (folder / "0" / "metrics.json").write_text(
        json.dumps({"test": {"tau": 0.5, "r2": 0.1}, "epochs": 3})
    )


def _read_sweep(folder: Path) -> None:
    from metanet._cli.sweep import summarize

    summarize(folder)


def _images(folder: Path) -> None:
    from PIL import Image

    for name in ("cat", "dog"):
        (folder / "data" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8), (200, 100, 0)).save(folder / "data" / name / "0.png")
    (folder / "data" / "dog" / "0.png").rename(folder / "data" / "dog" / "0.jpg")
    said = {
        "size": {"height": 8, "width": 8},
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(said))


def _data(ref: Path, model: nn.Module, arch: str) -> None:
    from metanet.evaluation.data import load_data

    for _ in load_data(str(ref), model, arch):
        pass


def _model(folder: Path) -> None:
    arch = architecture()
    stack = arch.template.stack({n: torch.stack([x, x]) for n, x in Tiny().state_dict().items()})
    model = metanet.nn.build("gmn", out_dim=1, width=4, layers=1)
    model.fit_normalisation([stack])
    metanet.nn.save(folder / "m", model, {"scale": [0.5]})


def _alignment(folder: Path) -> None:
    metanet.align(Tiny(), Tiny(), arch=architecture()).save(folder / "x.safetensors")


def _graph(folder: Path, name: str) -> None:
    arch = architecture()
    save_graph(metanet.to_graph(Tiny(), arch), arch.template, folder / name)


def _safe_open(path: Path) -> Value:
    with safetensors.safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def _torch_load(path: Path) -> Value:
    content = torch.load(path, weights_only=True, map_location="cpu")
    inside = [content, *(content.values() if isinstance(content, dict) else ())]
    states = [
        each
        for each in inside
        if isinstance(each, dict) and any(isinstance(x, Tensor) for x in each.values())
    ]
    return states[0] if states else None


def _inert(path: Path) -> Value:
    return dict(metanet.load_checkpoint(path, foreign_classes="inert"))


def _load(path: Path) -> Value:
    return dict(metanet.load_checkpoint(path, unwrap=False))


def _used(transform: Any) -> None:
    str(transform.spec)
    transform.inverse()


PT, ST = "x.pt", "x.safetensors"
FORMATS: dict[str, Format] = {
    "safetensors": Format(
        lambda f: metanet.save_checkpoint(f / ST, state(), {"epoch": 1}), {ST: "safetensors"},
        lambda f: _load(f / ST), lambda f: _safe_open(f / ST),
    ),
    "index of shards": Format(_shards, {"m/model.safetensors.index.json": "json"}, lambda f: _load(f / "m")),
    "torch, zip": Format(lambda f: _torch(f / PT), {PT: "zip"}, lambda f: _load(f / PT),
        lambda f: _torch_load(f / PT)),
    "torch, zip, deflated": Format(
        lambda f: _deflated(f / PT), {PT: "zip"}, lambda f: _load(f / PT), lambda f: _torch_load(f / PT)
    ),
    "torch, older": Format(
        lambda f: _torch(f / PT, older=True), {PT: "pickle"}, lambda f: _load(f / PT),
        lambda f: _torch_load(f / PT)
    ),
    "inert, zip": Format(lambda f: _foreign(f / PT, False), {PT: "zip"}, lambda f: _inert(f / PT)),
    "inert, zip, deflated": Format(lambda f: _deflated(f / PT), {PT: "zip"}, lambda f: _inert(f / PT)),
    "inert, older": Format(lambda f: _foreign(f / PT, True), {PT: "pickle"}, lambda f: _inert(f / PT)),
    "folder with config.json": Format(
        _hugging_face, {"config.json": "json", "model.safetensors": "safetensors"}, lambda f: _load(f)
    ),
    "symmetry spec": Format(
        lambda f: attention().spec.save(f / "x.json"), {"x.json": "json"},
        lambda f: _used(metanet.SymmetrySpec.load(f / "x.json").sample()),
    ),
    "architecture": Format(
        lambda f: architecture().save(f / "x.json"), {"x.json": "json"},
        lambda f: str(metanet.Architecture.load(f / "x.json")),
    ),
    "transform": Format(
        lambda f: attention().spec.sample().save(f / ST), {ST: "safetensors"},
        lambda f: _used(metanet.Transform.load(f / ST)),
    ),
    "alignment": Format(_alignment, {ST: "safetensors"}, lambda f: str(metanet.Alignment.load(f / ST))),
    "graph": Format(
        lambda f: _graph(f, ST), {ST: "safetensors", "x.json": "json"}, lambda f: load_graph(f / ST)
    ),
    "graph, torch": Format(lambda f: _graph(f, PT), {PT: "zip"}, lambda f: load_graph(f / PT)),
    "config.json as a network": Format(_hugging_face, {"config.json": "json"}, _network),
    "sweep": Format(_sweep, {"0/metrics.json": "json", "0/.hydra/overrides.yaml": "bytes"}, _read_sweep),
    "data, tensors": Format(
        lambda f: metanet.save_checkpoint(f / ST, {"inputs": torch.ones(4, 3), "targets": torch.arange(4)}),
        {ST: "safetensors"}, lambda f: _data(f / ST, Tiny(), "x"),
    ),
    "data, images": Format(
        _images, {"data/cat/0.png": "bytes", "data/dog/0.jpg": "bytes", "preprocessor_config.json": "json"},
        lambda f: _data(f / "data", nn.Conv2d(3, 2, 3), f"hf:{f}"),
    ),
    "data, text": Format(
        runs.write_text, {"text.txt": "bytes", "lm/tokenizer.json": "json",
            "lm/tokenizer_config.json": "json"},
        runs.read_text,
    ),
    "torch.distributed": Format(
        lambda f: runs.write_distributed(f, state()),
        {"d/.metadata": "one pickle", "d/__0_0.distcp": "bytes"}, lambda f: _load(f / "d"),
    ),
    "metanetwork": Format(
        _model, {"m/model.json": "json", "m/model.safetensors": "safetensors"},
        lambda f: metanet.nn.load(f / "m")
    ),
    "run, as predict reads it": Format(
        runs.write_run, {"run/model/model.json": "json", "run/model/model.safetensors": "safetensors"},
        runs.ask_run
    ),
    "last.ckpt": Format(runs.write_last, {runs.LAST: "safetensors"}, runs.read_last),
    "recipe of a merge": Format(
        runs.write_merge, {"merged/merge_config.yaml": "yaml", "merged/README.md": "bytes"}, runs.replay
    ),
    "zoo": Format(
        zoos.write, {"zoo/zoo.json": "json", "zoo/table.csv": "bytes",
            "zoo/deep-00000.safetensors": "safetensors"},
        zoos.read, mend=zoos.mend,
    ),
    "zoo of a folder": Format(
        zoos.write_folder, {"table.csv": "bytes", "0.safetensors": "safetensors"}, zoos.read_folder
    ),
}  # fmt: skip
