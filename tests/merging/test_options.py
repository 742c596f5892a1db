"""What a merge is asked for, in one place; and checkpoints that were opened before."""

import inspect
from dataclasses import FrozenInstanceError, fields

import pytest
import torch

import metanet
from metanet.errors import MetanetError
from metanet.merging import Options, open_inputs

A, B = {"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([3.0, 6.0])}
BASE = {"w": torch.tensor([1.0, 1.0])}


def test_the_signature_is_that_of_the_options():
    parameters = inspect.signature(metanet.merge).parameters
    names = [each.name for each in fields(Options)]
    assert list(parameters) == ["models", *names]
    for each in fields(Options):
        if each.name != "options":
            assert parameters[each.name].default == each.default
    assert parameters["options"].kind is inspect.Parameter.VAR_KEYWORD


def test_options_stand_for_keywords():
    options = Options(method="task_arithmetic", base=BASE, options={"weights": 0.5})
    by_options = metanet.merge([A, B], options)
    by_keywords = metanet.merge([A, B], "task_arithmetic", base=BASE, weights=0.5)
    assert torch.equal(by_options["w"], by_keywords["w"])
    assert by_options.recipe == by_keywords.recipe
    changed = metanet.merge([A, B], options, weights=0.0)
    assert torch.equal(changed["w"], BASE["w"])
    assert options.options == {"weights": 0.5}


def test_options_are_frozen():
    with pytest.raises(FrozenInstanceError):
        Options().seed = 1


class TestOpenedInputs:
    def test_are_taken_for_models(self):
        inputs = open_inputs([A, B], BASE)
        merged = metanet.merge(inputs, "task_arithmetic", weights=0.5)
        plain = metanet.merge([A, B], "task_arithmetic", base=BASE, weights=0.5)
        assert torch.equal(merged["w"], plain["w"]) and merged.recipe == plain.recipe

    def test_keep_the_names_of_their_files(self):
        network = torch.nn.Linear(2, 2)
        wrapped = {f"module.{name}": tensor for name, tensor in network.state_dict().items()}
        inputs = open_inputs([wrapped, network], model=network)
        assert list(inputs.stored[0]) == ["module.weight", "module.bias"]
        assert [list(each) for each in inputs.models] == [["weight", "bias"]] * 2
        assert inputs.called == ("model 0", "model 1") and inputs.stored_base is None
        assert inputs.like is inputs.models[0]

    def test_have_their_base(self):
        inputs = open_inputs([A, B], BASE)
        assert inputs.like is inputs.base and inputs.called_base == "the base"
        with pytest.raises(MetanetError, match="base=... is given twice"):
            metanet.merge(inputs, "ties", base=BASE)

    def test_are_counted(self):
        with pytest.raises(MetanetError, match="merges 2 models, got 1"):
            metanet.merge(open_inputs([A]), "slerp")


def test_the_provenance_says_what_the_report_tells():
    tied = {"emb.weight": torch.ones(3, 2), "x": torch.ones(2)}
    tied["lm_head.weight"] = tied["emb.weight"]
    lone = {"emb.weight": torch.zeros(3, 2), "x": torch.ones(2)}
    merged = metanet.merge([tied, lone])
    assert merged.provenance.dropped == ("lm_head.weight",)
    assert "left out: lm_head.weight" in merged.report
    apart = {**lone, "lm_head.weight": torch.full((3, 2), 2.0)}
    merged = metanet.merge([tied, apart])
    assert merged.provenance.untied == ("lm_head.weight",)
    assert "tied in some inputs only: lm_head.weight" in merged.report
