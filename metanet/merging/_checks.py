"""What can be told of a merge before anything is opened."""

from collections.abc import Sequence
from typing import Any

from ..errors import MetanetError
from ._inputs import Inputs
from ._options import Options
from ._range import check_overflow
from ._registry import Method
from .repairs import check_repair


def check_call(method: Method, models: Any, options: Options) -> None:
    """Refuse what the method or the repair can't do.

    Args:
        method: the one of the options.
        models: what :func:`metanet.merge` was given.

    Raises:
        MetanetError: too few or too many models, no base where one is needed or one that is of no
            use, something that method or repair need is missing, or does not go with slices or
            new shapes.
    """
    _check_count(method, models, options)
    _check_base(method, options)
    _check_needs(method, options)
    _check_slices(method, options)
    _check_repair(method, options)
    check_overflow(options.overflow)


def _check_count(method: Method, models: Any, options: Options) -> None:
    if isinstance(models, Inputs):
        count = len(models.models)
    else:
        count = len(models) if isinstance(models, Sequence) and not isinstance(models, str) else 0
    least, most = method.models
    fits = least <= count and (most is None or count <= most)
    if fits or not count or options.slices:
        return
    allowed = f"{least}" if least == most else f"{least} to {most}"
    if most is None:
        allowed = f"{least} or more"
    besides = " besides the base" if method.base == "required" else ""
    raise MetanetError(f"method {method.name!r} merges {allowed} models{besides}, got {count}")


def _check_base(method: Method, options: Options) -> None:
    if method.base == "required" and options.base is None:
        raise MetanetError(
            f"method {method.name!r} merges what models changed of a base: give base=..."
        )
    if method.base == "none" and options.base is not None and options.align is None:
        raise MetanetError(
            f"method {method.name!r} has no use for a base: give it as one of the models, or leave "
            "it out"
        )


def _check_needs(method: Method, options: Options) -> None:
    missing = [need for need in method.needs if getattr(options, need) is None]
    if options.model is not None:  # the architecture is traced from it
        missing = [need for need in missing if need != "arch"]
    if missing:
        asked = ", ".join(f"{need}=..." for need in missing)
        raise MetanetError(f"method {method.name!r} needs {asked}")


def _check_slices(method: Method, options: Options) -> None:
    if not options.slices:
        return
    if method.prepare is not None:
        raise MetanetError(
            f"method {method.name!r} looks at whole networks: it can't be used with slices"
        )
    if options.repair is not None:
        raise MetanetError(
            f"repair={options.repair!r} looks at whole networks: it can't be used with slices"
        )


def _check_repair(method: Method, options: Options) -> None:
    if options.repair is None:
        return
    if options.repair != "bn_reset" and method.shape is not None:
        raise MetanetError(
            f"repair={options.repair!r} compares neurons of the merged network with those of the "
            f"models, and method {method.name!r} makes other neurons of them: give "
            "repair='bn_reset'"
        )
    check_repair(options.repair, options.model, options.data, options.repair_passes)
