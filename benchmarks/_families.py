"""The networks of the coverage benchmark: which there are, and how each is built."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import _tiny_transformers
from torch import nn

from metanet.sources import import_torchvision

ADDED_UP_TO = 100_000_000
"""Parameters of a timm network that is added for the blocks in it; the smallest of its family has
no limit."""

REDUCED: dict[str, dict[str, Any]] = {
    "deepseek_vit_412m": {"depth": 2},
    "gemma4_vit_167m": {"depth": 2},
    "naflexvit_base_patch16_parfac_gap": {"depth": 2},
    "nasnetalarge": {"stem_size": 32, "num_features": 1056},
    "qwen3_vit_88m": {"depth": 2},
}
"""timm networks with too many parameters, or too large images, for two cores: the same blocks,
fewer or narrower."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One network of the sweep: ``source`` is timm, torchvision or transformers, ``model`` what the
    source calls it."""

    source: str
    family: str
    model: str


def cases(source: str) -> Iterator[Case]:
    """All networks of a source. For timm every entry point is built on the meta device: two and a
    half minutes."""
    import_torchvision()
    if source == "timm":
        yield from _timm_cases()
    elif source == "torchvision":
        from torchvision import models

        for name in models.list_models(module=models):
            family = models.get_model_builder(name).__module__.rpartition(".")[2]
            yield Case(source=source, family=family, model=name)
    else:
        for family, model_type in _tiny_transformers.families().items():
            yield Case(source=source, family=family, model=model_type)


def build(case: Case) -> nn.Module:
    """The network with random weights, in eval mode.

    Raises:
        Exception: whatever the source raises.
    """
    import_torchvision()
    if case.source == "timm":
        import timm

        return timm.create_model(case.model, **REDUCED.get(case.model, {})).eval()
    if case.source == "torchvision":
        from torchvision import models

        # Auxiliary classifiers do not run in eval mode: their weights would never be read.
        plain = (
            {"aux_logits": False, "init_weights": False}
            if case.family in ("googlenet", "inception")
            else {}
        )
        return models.get_model(case.model, **plain).eval()
    return _tiny_transformers.build(case.model)


def _timm_cases() -> Iterator[Case]:
    """The smallest network of every timm module, and then the smallest for every class of timm that
    none of these has.

    So attention layers, norms and blocks that larger networks alone use are there too.
    """
    import timm
    import torch
    from timm.models import list_models, list_modules
    from tqdm import tqdm

    found: list[tuple[int, str, str, set[type]]] = []
    for family in tqdm(list_modules(), desc="timm's families", unit="family"):
        for name in list_models(module=family):
            with torch.device("meta"):
                model = timm.create_model(name)
            classes = {type(m) for m in model.modules() if type(m).__module__.startswith("timm.")}
            found.append((sum(p.numel() for p in model.parameters()), name, family, classes))
    found.sort(key=lambda f: f[:2])
    smallest = {family: n for n, (_, _, family, _) in reversed([*enumerate(found)])}
    chosen = set(smallest.values())
    covered = {c for n in chosen for c in found[n][3]}
    for n, (parameters, _, _, classes) in enumerate(found):
        if parameters <= ADDED_UP_TO and not classes <= covered:
            chosen.add(n)
            covered |= classes
    for _, name, family, _ in sorted((found[n] for n in chosen), key=lambda f: (f[2], f[0])):
        yield Case(source="timm", family=family, model=name)
