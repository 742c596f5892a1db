"""What can go wrong with a zoo."""

from collections.abc import Mapping
from pathlib import Path

from metanet.errors import MetanetError


class ZooError(MetanetError):
    """A zoo cannot be made or read as asked; the message says what to do."""


class DamagedZooError(ZooError):
    """Files of a zoo are missing or are not what was written.

    ``problems``: file name -> what is wrong with it.
    """

    def __init__(self, folder: Path, problems: Mapping[str, str]):
        self.folder, self.problems = folder, dict(problems)
        listed = "; ".join(f"{name}: {what}" for name, what in problems.items())
        super().__init__(
            f"the zoo in {folder} is damaged ({listed}). Nothing of it was used. "
            "Load it through the configuration that made it, and what is missing is made again; "
            "or delete the folder."
        )
