"""The model card of a merge made in Python."""

import pytest
import torch
import yaml
from torch import nn

import metanet
from metanet.merging import METHODS, model_card
from metanet.merging.writing._card import name_of


def states():
    generator = torch.Generator().manual_seed(0)
    return [
        {"0.w": torch.randn(3, 2, generator=generator), "1.w": torch.randn(2, generator=generator)}
        for _ in "abc"
    ]


def test_says_what_was_merged_and_how():
    a, b, _ = states()
    overrides = {"1.*": {"weights": [0.0, 1.0]}}
    merged = metanet.merge(
        [a, b], weights=[0.25, 0.75], overrides=overrides, out_dtype="bfloat16", seed=7
    )
    card = model_card(
        merged.recipe, title="mine", hashes={"a|b.safetensors": "f00"},
        report={"score": 0.123456789, "kept": "a"}, library="timm", notes=["mind the gap"],
        command="metanet merge", config="seed: 7\n",
    )  # fmt: skip
    front = yaml.safe_load(card.split("---\n")[1])
    assert front == {
        "base_model": ["model 0", "model 1"], "base_model_relation": "merge", "library_name": "timm",
        "tags": ["merge", "metanet"],
    }  # fmt: skip
    for text in (
        "# mine", f"[`linear`]({METHODS['linear'].reference})", f"metanet {metanet.__version__}",
        "| 1 | model 1 | 0.75 |",
        "| a\\|b.safetensors | `f00` |", "| `normalize` | true | divide by the sum", "stored as bfloat16",
        "- seed 7", "- tensors `1.*`: {\"weights\": [0.0, 1.0]}",
        "## Report\n\n- score: 0.123457\n- kept: a", "- mind the gap", "```sh\nmetanet merge\n```",
        "```yaml\nseed: 7\n```",
    ):  # fmt: skip
        assert text in card
    assert "## Alignment" not in card


def test_alignments_and_a_base():
    net = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))
    arch, base = metanet.trace(net, torch.randn(2, 3)), net.state_dict()
    tuned = [arch.spec.sample(torch.Generator().manual_seed(k))(base) for k in (1, 2)]
    merged = metanet.merge(tuned, base=base, align="weight", arch=arch)
    card = model_card(merged.recipe, alignments=merged.alignments)
    assert "Made of 2 networks and their base" in card and "| base | the base |  |" in card
    assert "- 1: neurons moved by the matcher `weight` (seed 0): 1 of 1 groups, objective " in card


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("/x/models--org--name.v2/snapshots/abc/model.safetensors", "org/name.v2"),
        ("hub/models--org--name/snapshots/abc", "org/name"),
        ("runs/mine", "mine"),
        ("runs/mine/model.safetensors", "mine"),
        ("runs/mine/pytorch_model.bin.index.json", "mine"),
        ("runs/epoch 3.ckpt", "epoch 3.ckpt"),
        ("model 0", "model 0"),
    ],
)
def test_names_of_inputs(given, name):
    assert name_of(given) == name
