"""What trainings and merges leave behind, as files that somebody else may have changed."""

import contextlib
import io
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from _hostile_zoo import ARGUMENTS, REF
from omegaconf import OmegaConf
from torch import nn

import metanet
import metanet.nn
from metanet import cli
from metanet._cli.recipe import replayed
from metanet.evaluation.data import load_data
from metanet.sources import import_torchvision, load_source
from metanet.zoo import networks

import_torchvision()  # before Lightning does, to which a torchvision of another build would be fatal
LAST = "last.ckpt"
TINY = {"n_layer": 1, "n_embd": 8, "n_head": 2, "vocab_size": 10, "n_positions": 16}


# ---------------------------------------------------------------- a finished run, asked about a
# network


def write_run(folder: Path) -> None:
    torch.manual_seed(0)
    network = networks.mlp(**ARGUMENTS)
    metanet.save_checkpoint(folder / "network.safetensors", network.state_dict())
    arch = metanet.trace(network, torch.rand(2, 1, 8, 8))
    model = metanet.nn.build("gmn", out_dim=1, width=4, layers=1)
    model.fit_normalisation(
        [arch.template.stack({n: torch.stack([x, x]) for n, x in network.state_dict().items()})]
    )
    described = {
        "ref": REF,
        "arch_args": ARGUMENTS,
        "input_shape": [1, 8, 8],
        "input_range": [0.0, 1.0],
    }
    meta = {
        "task": {
            "name": "accuracy_prediction",
            "arguments": {"label": "score", "loss_kind": "huber"},
        },
        "scale": {"mean": 0.5, "std": 0.1, "loss_kind": "huber"},
        "architectures": {"deep": described, "wide": {**described, "arch_args": {"widths": [4]}}},
    }
    metanet.nn.save(folder / "run" / "model", model, meta)


def ask_run(folder: Path) -> None:
    from metanet import tasks

    options = {"arch": None, "arch_args": {}, "input_shape": None}
    with contextlib.redirect_stdout(io.StringIO()):
        tasks.predict(
            OmegaConf.create(
                {
                    "run": str(folder / "run"),
                    "checkpoint": str(folder / "network.safetensors"),
                    **options,
                }
            )
        )


# ---------------------------------------------------------------- what a stopped run goes on from


def write_last(folder: Path) -> None:
    from metanet.tasks._last import SafeCheckpointIO

    network = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    content = {
        "epoch": 1, "global_step": 7, "pytorch-lightning_version": "2.5",
        "loops": {"fit_loop": {"state_dict": {}}}, "state_dict": network.state_dict(),
        "optimizer_states": [optimizer.state_dict()],
        "lr_schedulers": [{"last_epoch": 1, "_last_lr": [1e-3]}],
        "callbacks": {"stopping": {"best": float("inf")}},
    }  # fmt: skip
    SafeCheckpointIO().save_checkpoint(content, folder / LAST)


def read_last(folder: Path) -> None:
    from metanet.tasks._last import load_last

    load_last(folder / LAST)


# ---------------------------------------------------------------- recipes of merges


def write_merge(folder: Path) -> None:
    torch.manual_seed(0)
    for name in "abc":
        metanet.save_checkpoint(folder / f"{name}.safetensors", nn.Linear(3, 2).state_dict())
    a, b, c = (folder / f"{name}.safetensors" for name in "abc")
    more = [
        "method=dare_ties",
        "method.density=0.4",
        "overrides={'w*': {weights: [0.25, 1]}}",
        "seed=3",
    ]
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = cli.main(
            ["merge", f"models=[{a},{b}]", f"base={c}", *more, f"out={folder / 'merged'}"]
        )
    if code:
        raise RuntimeError(said.getvalue())


def replay(folder: Path) -> None:
    for name in ("merge_config.yaml", "README.md"):
        replayed([f"recipe={folder / 'merged' / name}"])


# ---------------------------------------------------------------- text


def write_text(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = {character: number for number, character in enumerate("abcdefgh ")}
    tokenizer = Tokenizer(models.WordLevel({**letters, "?": 9}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="?").save_pretrained(
        folder / "lm"
    )
    (folder / "text.txt").write_text("abc def gh" * 5)


_NETWORKS: dict[str, Any] = {}


def read_text(folder: Path) -> None:
    """The network is no part of the data: it is made once."""
    if not _NETWORKS:
        _NETWORKS["tiny"] = load_source("hf:gpt2", **TINY)
    for _ in load_data(str(folder / "text.txt"), _NETWORKS["tiny"], f"hf:{folder / 'lm'}"):
        pass


# ---------------------------------------------------------------- torch.distributed.checkpoint


def write_distributed(folder: Path, state: Mapping[str, Any]) -> None:
    import torch.distributed.checkpoint as dcp

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is one process only
        dcp.save({"model": state, "epoch": 3}, checkpoint_id=str(folder / "d"), no_dist=True)
