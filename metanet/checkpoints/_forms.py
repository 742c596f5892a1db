"""Forms in which weights are stored that are no plain numbers: what tells each of them, and the way
out of it.

A row says by which names (a regular expression that is searched, with the dtypes of the tensor
where the name alone is no proof) a form is known. A new form is one row.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

import torch

INTEGERS = frozenset({torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64})
BYTES = frozenset({torch.int8, torch.uint8})
EIGHT_BITS = frozenset(
    getattr(torch, name)
    for name in (
        "float8_e4m3fn",
        "float8_e4m3fnuz",
        "float8_e5m2",
        "float8_e5m2fnuz",
        "float4_e2m1fn_x2",
    )
    if hasattr(torch, name)
)
NARROW = EIGHT_BITS | BYTES | {torch.int16, torch.int32}
"""What quantised weights are stored in; where no scale belongs to them, 8-bit floats are weights
like others."""

QUANTISED = "quantised"
ADAPTER = "an adapter"


@dataclass(frozen=True)
class Form:
    """One form.

    Attributes:
        kind: ``QUANTISED`` or ``ADAPTER``.
        word: what users call it.
        names: of its tensors.
        dtypes: that such a tensor has; ``None``: any.
    """

    kind: str
    word: str
    names: re.Pattern[str]
    dtypes: frozenset[torch.dtype] | None = None


def _row(kind: str, word: str, names: str, dtypes: frozenset[torch.dtype] | None = None) -> Form:
    return Form(kind, word, re.compile(names), dtypes)


FORMS = (
    _row(QUANTISED, "GPTQ or AWQ", r"(?:^|\.)(?:qweight|qzeros)$", INTEGERS),
    _row(QUANTISED, "bitsandbytes", r"\.(?:nested_)?(?:absmax|quant_map)$|\.quant_state\.bitsandbytes__\w+$"),
    _row(QUANTISED, "bitsandbytes", r"(?:^|\.)SCB$"),
    _row(QUANTISED, "compressed-tensors", r"(?:^|\.)weight_(?:packed|zero_point|g_idx)$", INTEGERS),
    _row(QUANTISED, "MXFP4", r"_blocks$", BYTES),
    _row(QUANTISED, "HQQ", r"(?:^|\.)W_q$", INTEGERS),
    _row(QUANTISED, "torchao", r":_data$|(?:^|\.)_\w+_qdata$"),
    _row(QUANTISED, "quanto", r"\.weight\._(?:data|scale|shift)$"),
    _row(QUANTISED, "AQLM", r"(?:^|\.)codes$", BYTES | {torch.int16}),
    _row(QUANTISED, "QuIP#", r"(?:^|\.)Qidxs(?:_\w+)?$"),
    _row(QUANTISED, "EXL2", r"(?:^|\.)q_weight$", INTEGERS),
    _row(QUANTISED, "EXL3", r"(?:^|\.)trellis$", INTEGERS),
    _row(QUANTISED, "fp8", r"(?:^|\.)scaled_fp8$"),
    _row(QUANTISED, "PyTorch's integer weights", r"(?:^|\.)_packed_params(?:\.|$)"),
    _row(ADAPTER, "LoRA", r"(?:^|[._])lora_(?:[ABab]|up|down|mid|embedding_[AB]|magnitude_vector)(?:\.|$)"),
    _row(ADAPTER, "LoRA", r"[._]lora(?:_linear_layer)?\.(?:up|down)\.|\.dora_scale$"),
    _row(ADAPTER, "IA3", r"(?:^|\.)ia3_l(?:\.|$)"),
    _row(ADAPTER, "LoHa", r"(?:^|\.)hada_(?:w[12](?:_[ab])?|t[12])(?:\.|$)"),
    _row(ADAPTER, "LoKr", r"(?:^|\.)lokr_(?:w[12](?:_[ab])?|t2)(?:\.|$)"),
    _row(ADAPTER, "OFT", r"(?:^|\.)(?:oft_(?:R|r|s|blocks|diag)|boft_[RsP])(?:\.|$)"),
    _row(ADAPTER, "VeRA", r"(?:^|\.)vera_(?:A|B|lambda_[bd])(?:\.|$)"),
    _row(ADAPTER, "FourierFT", r"(?:^|\.)fourierft_spectrum(?:\.|$)"),
    _row(ADAPTER, "prompt tuning", r"^prompt_embeddings$|(?:^|\.)adaption_(?:prompt|gate)$"),
    _row(ADAPTER, "bottleneck adapters", r"\.adapters\.\w+\.adapter_(?:down|up)\."),
)  # fmt: skip

SCALE = re.compile(
    r"(?P<of>.*?)[._]*(?:scales?|zero_points?|zeros?)(?:_(?:inv|ub|\d+))?|(?P<module>.*?)\.?scale_weight"
)
"""The name of a scale, and what it scales: ``l.weight_scale_inv``, ``l.scale``,
``experts.gate_up_proj_scales``."""

SCALED = ("", ".weight", "_blocks", "_packed", "weight")
"""What a scaled tensor is called, behind ``of`` of its scale."""


@lru_cache(maxsize=1 << 16)  # graphs of many checkpoints ask for the same names
def forms_of(name: str) -> tuple[Form, ...]:
    """The forms whose names match."""
    return tuple(form for form in FORMS if form.names.search(name))


def adapter_of(name: str) -> str | None:
    """What users call the adapter that a tensor of this name is a part of; ``None`` if it is of
    none."""
    return next((form.word for form in forms_of(name) if form.kind == ADAPTER), None)
