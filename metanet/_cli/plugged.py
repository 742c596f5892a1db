"""What is wrong with installed plugins, told in one line each; a command goes on without them."""

import contextlib
import sys
import warnings
from collections.abc import Iterator
from typing import Any

from .. import config, plugins
from ..registry import PluginWarning
from .help import defaults_of
from .own import REGISTRIES, registry_of


@contextlib.contextmanager
def told(command: str) -> Iterator[None]:
    """Tell what is wrong with the files of plugins, and with the code of those that this command could use.

    Nothing of this happens where no plugin is installed. What fails to be imported later, an
    operation's rule, is told in the same way.
    """
    if not plugins.packages():
        yield
        return
    with warnings.catch_warnings(), _in_one_line(command):
        for problem in plugins.problems(config.conf_dir()):
            warnings.warn(problem, PluginWarning, stacklevel=2)
        _load(command)
        yield


def _load(command: str) -> None:
    """Import the plugins of the command's kinds: those that fail are told of before it runs."""
    groups = defaults_of(config.conf_dir() / f"{command}.yaml")
    kinds = {folder: group for group, folder in plugins.CONFIGURED.items()}
    for group in groups:
        if group in REGISTRIES and plugins.points(kinds[group]):
            registry_of(group).failures()


@contextlib.contextmanager
def _in_one_line(command: str) -> Iterator[None]:
    """Show warnings about plugins without the place in our code that found them, once for all processes."""
    from .directories import is_main_rank

    before = warnings.showwarning

    def show(message: Any, category: type[Warning], *place: Any, **more: Any) -> None:
        if not issubclass(category, PluginWarning):
            before(message, category, *place, **more)
        elif is_main_rank():
            print(f"metanet {command}: warning: {message}", file=sys.stderr)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = before
