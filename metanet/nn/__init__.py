"""Metanetworks: models that read another network's parameter graph."""

from ._architecture import ARCHITECTURE_FEATURES as ARCHITECTURE_FEATURES
from ._architecture import architecture_features as architecture_features
from ._metanet import Graphs as Graphs
from ._metanet import Metanet as Metanet
from ._metanet import NeuralMetanet as NeuralMetanet
from ._registry import MODELS as MODELS
from ._registry import build as build
from ._registry import find as find
from ._registry import reference as reference
from ._registry import register as register
from ._saving import load as load
from ._saving import save as save
from .models.deep_sets import DeepSets as DeepSets
from .models.flat_mlp import FlatMLP as FlatMLP
from .models.gmn import GMN as GMN
from .models.probed_gmn import ProbedGMN as ProbedGMN
from .models.relay import Relay as Relay
from .models.stat import StatNN as StatNN
