"""Which tensors of what a network returns count as its output."""

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor

from metanet.tracing import results


class ModelOutput(OrderedDict):
    """Stands for the class of transformers, which is recognised by its name."""


def same(found: list[Tensor], *wanted: Tensor) -> bool:
    return [id(t) for t in found] == [id(t) for t in wanted]


A, B, C, D = (torch.zeros(2, n) for n in range(1, 5))


def test_everything_counts_in_plain_structures():
    @dataclass
    class Output:
        first: Tensor
        rest: dict

    assert same(results(A), A)
    assert same(results((A, [B, None])), A, B)
    assert same(results(Output(A, {"hidden_states": B})), A, B)
    assert same(results({"logits": A, "hidden_states": B}), A, B)


def test_of_a_model_output_its_purpose_counts():
    assert same(
        results(ModelOutput(loss=A, logits=B, encoder_last_hidden_state=C, past_key_values=(D,))), B
    )
    assert same(results(ModelOutput(logits_per_image=A, logits_per_text=B)), A, B)
    assert same(results(ModelOutput(start_logits=A, end_logits=B, hidden_states=(C,))), A, B)
    assert same(results(ModelOutput(last_hidden_state=A, pooler_output=B, attentions=(C,))), A, B)
    inner = ModelOutput(last_hidden_state=C)
    assert same(results(ModelOutput(image_embeds=A, vision_model_output=inner)), A)


def test_what_stands_aside_counts_where_there_is_nothing_else():
    assert same(results(ModelOutput(hidden_states=(A, B))), A, B)
