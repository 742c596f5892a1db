"""Losses and metrics by name: what is registered, and what is refused."""

import pytest
import torch

from metanet import MetanetError
from metanet.evaluation import LOSSES, METRICS, find_loss, find_metrics, loss, metric

REGISTERS = pytest.mark.parametrize(
    ("registry", "register", "taken", "takes"),
    [
        (LOSSES, loss, "mse", r"\(outputs, target\)"),
        (METRICS, metric, "accuracy", r"\(scores, target\)"),
    ],
    ids=["loss", "metric"],
)


@REGISTERS
def test_one_of_ones_own_is_found(registry, register, taken, takes):
    def off(scores, target, power=1):
        """How far off."""
        return (scores - target).abs().mean()

    try:
        assert register("off")(off) is off
        assert registry.summary("off") == "How far off."
        assert registry.home("off") == __file__
        assert find_loss("off") is off if registry is LOSSES else find_metrics("off")[0].name
    finally:
        registry.remove("off")
    with pytest.raises(MetanetError, match="'off'"):
        registry.find("off")


@REGISTERS
def test_a_taken_name_and_a_wrong_signature_are_refused(registry, register, taken, takes):
    before = registry[taken]
    with pytest.raises(MetanetError, match=f"two .* named '{taken}'.*test_registers"):
        register(taken)(lambda scores, target: scores)
    with pytest.raises(MetanetError, match=f"'short' in .*test_registers.*must take {takes}"):
        register("short")(lambda scores: scores)
    assert registry[taken] is before and "short" not in registry


def test_a_typo_gets_a_hint():
    with pytest.raises(MetanetError, match="no loss 'mae'.*Choices: .*l1, mse, own"):
        find_loss("mae")
    with pytest.raises(MetanetError, match="did you mean 'accuracy'"):
        find_metrics(["acuracy"])


@pytest.mark.parametrize("registry", [LOSSES, METRICS], ids=["losses", "metrics"])
def test_every_entry_says_what_it_is(registry):
    assert all(registry.summary(name) for name in registry)


def test_all_metrics_keep_their_order():
    assert [m.name for m in find_metrics(None)] == list(METRICS)
    assert list(METRICS)[:2] == ["accuracy", "calibrated_loss"]
    assert METRICS["accuracy"].measure(torch.eye(2), torch.tensor([0, 1])) == 1
