"""``timm:NAME``: networks of timm, with random weights."""

import re
from collections.abc import Callable
from difflib import get_close_matches
from functools import partial
from typing import Any

from torch import nn

from .. import trust
from ..errors import MetanetError
from ._pinned import offline
from ._reference import need_extra, scheme

# Weights from elsewhere, whatever they are called
_WEIGHTS = (
    "cache_dir",
    "checkpoint_path",
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
)

# installed code and plain arguments: a file may name it. Not hf-hub:ORG/NAME or local-dir:PATH
trust.allow_references(lambda reference: re.fullmatch(r"timm:[\w.]+", reference) is not None)


@scheme("timm")
def timm_model(name: str) -> Callable[..., nn.Module]:
    """The function that makes timm's network ``name``; a tag (``resnet50.a1_in1k``) chooses its
    configuration.

    Nothing is downloaded and no weights are loaded. Its keyword arguments are those of
    ``timm.create_model``.

    Raises:
        MetanetError: timm is not installed, or has no such network or no such tag.
    """
    timm = need_extra("timm", f"timm:{name}")
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        models = timm.list_models()
        close = get_close_matches(architecture, models, n=5)
        some = f"It has {len(models)}, among them {', '.join(models[:5])}."
        listed = f"Did you mean {' or '.join(close)}?" if close else some
        raise MetanetError(
            f"timm:{name}: timm {timm.__version__} has no network {architecture!r}. {listed}"
        )
    if tag:
        _check_tag(timm, name, architecture, tag)
    return partial(_create, timm.create_model, name)


def _check_tag(timm: Any, name: str, architecture: str, tag: str) -> None:
    variants = timm.list_models(f"{architecture}.*", pretrained=True)
    tags = [variant.partition(".")[2] for variant in variants]
    if tag not in tags:
        raise MetanetError(
            f"timm:{name}: {architecture} has no tag {tag!r}; it has {', '.join(tags) or 'none'}"
        )


def _create(create_model: Callable[..., nn.Module], name: str, /, **arch_args: Any) -> nn.Module:
    if weights := [key for key in _WEIGHTS if key in arch_args]:
        raise MetanetError(
            f"timm:{name} has random weights here: "
            f"remove arch_args.{weights[0]}, and load a checkpoint"
        )
    with offline():
        return create_model(name, pretrained=False, **arch_args)
