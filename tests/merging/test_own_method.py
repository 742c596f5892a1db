"""A method of one's own, as short as it may be."""

import pytest
import torch

import metanet
from metanet.errors import MetanetError
from metanet.merging import METHODS, PerModel, method, model_card
from metanet.merging.repairs import REPAIRS, repair


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


@pytest.fixture
def registry(monkeypatch):
    monkeypatch.setattr(METHODS, "_entries", {**METHODS})
    return METHODS


class TestRefusals:
    def test_a_name_is_given_once(self, registry):
        with pytest.raises(MetanetError, match="two merge methods named 'ties': in .*ties.py and"):
            method("ties")(lambda part: part.tensors[0])

    @pytest.mark.parametrize(
        "function",
        [
            lambda: None,
            lambda part, weights: None,
            lambda part, *, weights: None,
            lambda *parts: None,
        ],
    )
    def test_options_are_given_by_name_and_may_be_left_out(self, registry, function):
        message = "method 'mine' in .*test_own_method.py: .* must take .part, .*, option=default"
        with pytest.raises(MetanetError, match=message):
            method("mine")(function)
        with pytest.raises(MetanetError, match="must take .problem, .*, option=default"):
            method("mine", prepare=function)(lambda part: part.tensors[0])
        assert "mine" not in registry

    def test_needs_are_what_a_merge_is_given(self, registry):
        with pytest.raises(
            MetanetError, match="needs 'modle': give some of arch, model, data, loss"
        ):
            method("mine", needs=("modle",))

    def test_repairs(self, monkeypatch):
        monkeypatch.setattr(REPAIRS, "_entries", {**REPAIRS})
        with pytest.raises(MetanetError, match="repair 'mine' in .*; it must take .now, goal."):
            repair("mine")(lambda now: None)
        with pytest.raises(MetanetError, match="two repairs named 'rescale'"):
            repair("rescale")(lambda now, goal: None)
        assert REPAIRS.summary("bn_reset").startswith("Running statistics measured anew")


def test_annotations_may_be_text(registry):
    @method("texts")
    def texts(part, *, weights: "PerModel" = 1.0, factor: "float" = 1.0):
        return part.tensors[0] * weights[1]

    assert METHODS["texts"].per_model == {"weights"}
    merged = metanet.merge([{"w": torch.ones(2)}] * 2, "texts", weights=[1.0, 3.0])
    assert merged["w"].tolist() == [3.0, 3.0]


def test_a_file_of_ones_own(registry, tmp_path, monkeypatch):
    (tmp_path / "own_merges").mkdir()
    (tmp_path / "own_merges" / "first.py").write_text(
        "from metanet.merging import method\n\n\n"
        "@method('first')\ndef first(part):\n    return part.tensors[0]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    merged = metanet.merge([{"w": torch.ones(2)}, {"w": torch.zeros(2)}], "own_merges.first")
    assert merged["w"].tolist() == [1.0, 1.0] and merged.recipe["method"] == "first"
