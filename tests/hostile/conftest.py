"""The mutations are those of ``benchmarks/``, whose scripts import each other by plain name."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
