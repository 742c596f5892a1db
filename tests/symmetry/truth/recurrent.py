"""LSTM, GRU and their variants.

The gates of a recurrent layer stand one behind the other in its weights, each over all hidden
units: the hidden units of a layer move together in all gates, in the recurrent weight's columns and
in whatever reads the layer.
"""

from itertools import product

import torch
from torch import Tensor, nn

from ._sheet import Example, Sheet, Truth

_INPUTS, _HIDDEN, _PROJECTED, _OUT = 5, 6, 4, 3


class Recurrent(nn.Module):
    """Two recurrent layers and a linear head on every step."""

    def __init__(self, rnn: nn.RNNBase) -> None:
        super().__init__()
        self.rnn = rnn
        width = (getattr(rnn, "proj_size", 0) or rnn.hidden_size) * (2 if rnn.bidirectional else 1)
        self.head = nn.Linear(width, _OUT)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0])


def _recurrent(
    kind: type[nn.RNNBase], gates: int, both_ways: bool = False, projected: bool = False
) -> Truth:
    """In both directions: the next layer reads forward and backward units one behind the other.
    Projected: the cell's units are seen only through a matrix, whose outputs are what recurs and
    what the next layer reads."""
    sheet, below = Sheet(), "."
    directions = ("", "_reverse") if both_ways else ("",)
    outputs: dict[int, list[str]] = {0: [], 1: []}
    for layer, direction in product(range(2), directions):
        end, cell = f"_l{layer}{direction}", sheet.group(f"cell{layer}{direction}", _HIDDEN)
        out = sheet.group(f"out{layer}{direction}", _PROJECTED) if projected else cell
        below = " | ".join(outputs[0]) if layer else "."
        sheet.tensor(f"rnn.weight_ih{end}", f"{gates}*{cell}, {below}")
        sheet.tensor(f"rnn.weight_hh{end}", f"{gates}*{cell}, {out}")
        sheet.tensor(f"rnn.bias_ih{end}", f"{gates}*{cell}")
        sheet.tensor(f"rnn.bias_hh{end}", f"{gates}*{cell}")
        if projected:
            sheet.tensor(f"rnn.weight_hr{end}", f"{out}, {cell}")
        outputs[layer].append(out)
    sheet.linear("head", ".", " | ".join(outputs[1]))

    def make() -> Example:
        options = {"proj_size": _PROJECTED} if projected else {}
        rnn = kind(_INPUTS, _HIDDEN, 2, batch_first=True, bidirectional=both_ways, **options)
        return Example(Recurrent(rnn), (torch.randn(2, 7, _INPUTS),), (torch.randn(3, 9, _INPUTS),))

    return sheet.truth(make)


TRUTHS = {
    "lstm": _recurrent(nn.LSTM, 4),
    "lstm_both_ways": _recurrent(nn.LSTM, 4, both_ways=True),
    "lstm_projected": _recurrent(nn.LSTM, 4, projected=True),
    "gru": _recurrent(nn.GRU, 3),
    "rnn": _recurrent(nn.RNN, 1),
}
