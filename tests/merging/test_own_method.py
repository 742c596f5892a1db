"""A method of one's own, as short as it may be."""

import pytest
import torch

import metanet
from metanet.merging import METHODS, method, model_card


@pytest.fixture
def halves(monkeypatch):
    monkeypatch.setattr(METHODS, "_entries", {**METHODS})

    @method("halves")
    def halves(part):
        return part.tensors[0] / 2

    return METHODS["halves"]


def test_needs_neither_reference_nor_docstring(halves):
    merged = metanet.merge([{"w": torch.ones(2)}] * 2, "halves")
    assert merged["w"].tolist() == [0.5, 0.5]
    assert halves.describe() == "halves"
    assert "by the method `halves` of metanet" in model_card(merged.recipe)
