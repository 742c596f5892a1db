"""Neurons that become one, across networks and within one.

``_roles`` says which tensors make a group's neurons and which read them, ``_free`` which groups may
be merged at all, ``_sites`` what one neuron does; ``_fold`` finds alike neurons of one network,
``_match`` of several, and ``_zip`` merges what was found.
"""

from ._fold import clusters as clusters
from ._fold import distances as distances
from ._free import free_groups as free_groups
from ._match import matched as matched
from ._match import report as report
from ._match import zip_features as zip_features
from ._roles import Roles as Roles
from ._roles import along as along
from ._roles import groups_on as groups_on
from ._roles import narrowed as narrowed
from ._sites import corrections as corrections
from ._sites import sites_of as sites_of
from ._zip import Zip as Zip
