"""A refusal says what to type; typed, it helps."""

import ast
import re

import pytest
import torch
import yaml

import metanet
from metanet.errors import CheckpointError

LAYERS = {
    f"model.layers.{k}.{name}": torch.ones(4, 4)
    for k in range(3)
    for name in ("attn.c_attn.bias", "mlp.weight")
}
EXTRAS = {
    "rotary tables": {
        f"model.layers.{k}.self_attn.rotary_emb.inv_freq": torch.ones(2) for k in range(3)
    },
    "a table at the root": {"rotary.inv_freq": torch.ones(2)},
    "masks, whose name ends as those of weights": {
        f"model.layers.{k}.attn.bias": torch.ones(1, 1, 4, 4) for k in range(3)
    },
    "several": {"head.bias": torch.ones(4), "model.layers.0.attn.masked_bias": torch.ones(1)},
    "names with the characters of patterns": {"model.layers.0.a[0].weight": torch.ones(2)},
}


def advice(models, **more):
    with pytest.raises(CheckpointError) as info:
        metanet.merge(models, **more)
    assert len(str(info.value)) < 2000
    found = re.search(r"overrides=(\{.*?\}) \(command line: 'overrides=(.*?)'\)", str(info.value))
    assert ast.literal_eval(found[1]) == yaml.safe_load(found[2])
    return ast.literal_eval(found[1]), str(info.value)


@pytest.mark.parametrize("extras", EXTRAS.values(), ids=EXTRAS)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_extra_names(extras, place):
    models = [dict(LAYERS) for _ in range(3)]
    models[place] |= extras
    overrides, text = advice(models)
    assert all(options == {"take": place} for options in overrides.values())
    if "[0]" in next(iter(extras)):
        return  # fnmatch has no words for it that this test could check by merging
    merged = metanet.merge(models, overrides=overrides)
    assert set(merged) == {*LAYERS, *extras}
    assert set(merged.provenance.taken) == set(extras)
    assert ("computes from its configuration" in text) == any(
        "inv_freq" in n or n.endswith("attn.bias") for n in extras
    )


def test_names_of_the_base_alone():
    base = LAYERS | EXTRAS["rotary tables"]
    overrides, _ = advice([LAYERS, LAYERS], method="task_arithmetic", base=base)
    assert overrides == {"*inv_freq": {"take": "base"}}
    assert set(
        metanet.merge([LAYERS, LAYERS], "task_arithmetic", base=base, overrides=overrides)
    ) == set(base)


def test_another_architecture_gets_no_such_advice():
    with pytest.raises(CheckpointError) as info:
        metanet.merge(
            [{"a": torch.ones(2), "b": torch.ones(2)}, {"c": torch.ones(2), "b": torch.ones(2)}]
        )
    assert "overrides" not in str(info.value)
