"""What the console script does around Hydra; see ``metanet/cli.py``."""
