"""The models by name."""

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from .. import trust
from ..errors import MetanetError
from ..registry import Registry
from ._metanet import Metanet

MODELS: Registry[type[Metanet]] = Registry(
    "model", package="metanet.nn.models", group="metanet.models"
)
"""Every model by its name."""


Model = TypeVar("Model", bound=type[Metanet])


def register(name: str) -> Callable[[Model], Model]:
    """Registers a model; the parametrised tests pick it up by themselves.

    Raises:
        MetanetError: there is one of this name, or what is registered is no metanetwork: a class
            derived from :class:`Metanet` that takes ``out_dim`` by name.
    """

    def decorate(cls: Model) -> Model:
        if not (isinstance(cls, type) and issubclass(cls, Metanet)):
            raise MetanetError(
                f"model {name!r}: {cls!r} is no metanetwork: expected a class derived from Metanet"
            )
        takes = inspect.signature(cls.__init__).parameters
        if "out_dim" not in takes:
            raise MetanetError(
                f"model {name!r}: {cls.__qualname__} takes {', '.join(takes)}; it must take out_dim, "
                "which the task tells"
            )
        MODELS.add(name, cls)
        cls.name = name
        return cls

    return decorate


def find(name: str) -> type[Metanet]:
    """The class of a model, by its name.

    The name that it is registered under, or its module, ``package.module`` or
    ``package.module:Class``, if it is one's own.

    Args:
        name: from the command line or from Python: a module that it names is imported.

    Raises:
        MetanetError: there is none; the message lists the choices.
    """
    return MODELS.find(name)


def reference(cls: type[Metanet]) -> str | None:
    """``package.module:Class`` of a model that is none of metanet's own.

    ``None`` where nobody could import it.
    """
    module, qualname = cls.__module__, cls.__qualname__
    if module == "__main__" or module.split(".")[0] == "metanet" or "<" in qualname:
        return None
    return f"{module}:{qualname}"


def build(name: str, **arguments: Any) -> Metanet:
    """A model by name.

    >>> build("gmn", width=8, layers=1, out_dim=3).name
    'gmn'

    Args:
        name: as for :func:`find`.
        **arguments: of its class.

    Raises:
        MetanetError: no such model, or no such argument; the message lists the choices.
    """
    cls = find(name)
    allowed = [p for p in inspect.signature(cls.__init__).parameters if p != "self"]
    unknown = [k for k in arguments if k not in allowed]
    if unknown:
        listed = ", ".join(trust.shown(k)[1:-1] for k in unknown[:5])
        raise MetanetError(
            f"model {name!r} has no argument {listed}. It takes: {', '.join(allowed)}"
        )
    return cls(**arguments)
