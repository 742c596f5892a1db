"""The zoos by name."""

from collections.abc import Callable
from typing import Protocol, TypeVar

from ..errors import MetanetError
from ..registry import Registry
from ._population import Zoo


class ZooSource(Protocol):
    """What a configuration of the group ``zoo`` names: a class of which ``load`` gives the zoo."""

    def load(self, progress: bool = True) -> Zoo:
        """The zoo: read, or made first.

        Args:
            progress: whether to show how far it is.
        """


Source = TypeVar("Source", bound=type)
ZOOS: Registry[type[ZooSource]] = Registry("zoo", package="metanet.zoo", group="metanet.zoos")
"""Every zoo by its name."""


def register(name: str) -> Callable[[Source], Source]:
    """Registers a zoo: a class whose ``load(progress=True)`` gives a :class:`Zoo`.

    Raises:
        MetanetError: there is one of this name, or what is registered can't be loaded.
    """

    def decorate(cls: Source) -> Source:
        if not (isinstance(cls, type) and callable(getattr(cls, "load", None))):
            raise MetanetError(
                f"zoo {name!r}: {cls!r} is no zoo: expected a class with a method load(progress=True)"
            )
        ZOOS.add(name, cls)
        return cls

    return decorate
