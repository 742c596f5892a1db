"""Zoos: sets of trained networks with labels, to learn from. Made here once, or your own
checkpoints."""

from ._blueprint import Blueprint as Blueprint
from ._blueprint import sample_inputs as sample_inputs
from ._errors import DamagedZooError as DamagedZooError
from ._errors import ZooError as ZooError
from ._finite import settle_labels as settle_labels
from ._finite import settle_weights as settle_weights
from ._format import ArchitectureEntry as ArchitectureEntry
from ._population import Population as Population
from ._population import Zoo as Zoo
from ._registry import ZOOS as ZOOS
from ._registry import ZooSource as ZooSource
from ._registry import register as register
from ._store import open_zoo as open_zoo
from .digits_classifiers import DigitsClassifiers as DigitsClassifiers
from .folder import FolderZoo as FolderZoo
from .mnist_sirens import MnistSirens as MnistSirens
from .mnist_sirens import coordinates as coordinates
from .mnist_sirens import psnr as psnr
from .mnist_sirens import render as render
