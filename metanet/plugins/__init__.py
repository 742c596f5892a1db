"""Installed packages that plug something into metanet, found by their entry points.

A package ``garden`` that adds a matcher and a zoo looks like this::

    pyproject.toml                     [project.entry-points."metanet.matchers"]
                                       nearest = "garden.nearest"
                                       [project.entry-points."metanet.zoos"]
                                       flowers = "garden.flowers"
    garden/nearest.py                  registers the matcher nearest
    garden/flowers.py                  registers the zoo flowers
    garden/conf/matcher/nearest.yaml   what matcher=nearest means in commands
    garden/conf/zoo/flowers.yaml       what zoo=flowers means

Nothing of a package is imported here. Its modules are imported where something of theirs is asked
for by name (:mod:`metanet.registry`).
"""

from ._failure import failure as failure
from ._packages import CONFIGURED as CONFIGURED
from ._packages import Package as Package
from ._packages import conf_folders as conf_folders
from ._packages import distribution_of as distribution_of
from ._packages import extend_search_path as extend_search_path
from ._packages import forget as forget
from ._packages import packages as packages
from ._packages import points as points
from ._packages import trusted as trusted
from ._problems import problems as problems
