"""Commands run in an empty folder, as the tests of the command line run them."""

from cli.conftest import calls, timm_pair

__all__ = ["calls", "timm_pair"]
