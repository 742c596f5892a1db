"""Running networks over data and measuring what comes out: losses and metrics by name, fitting
checkpoints to modules.

A new measure is one function with ``@metric`` (``_metrics.py``), a new named loss one with
``@loss`` (``_losses.py``).
"""

from ._fitting import as_checkpoint as as_checkpoint
from ._fitting import check_tied as check_tied
from ._fitting import check_values as check_values
from ._fitting import entries as entries
from ._fitting import fit_to as fit_to
from ._flips import Flips as Flips
from ._flips import flips as flips
from ._flips import right_answers as right_answers
from ._losses import LOSSES as LOSSES
from ._losses import Loss as Loss
from ._losses import default_loss as default_loss
from ._losses import find_loss as find_loss
from ._losses import loss as loss
from ._metrics import METRICS as METRICS
from ._metrics import Metric as Metric
from ._metrics import find_metrics as find_metrics
from ._metrics import metric as metric
from ._outputs import classified as classified
from ._outputs import scores_of as scores_of
from ._outputs import target_of as target_of
from ._running import Runner as Runner
from ._running import batch_inputs as batch_inputs
from ._running import cut as cut
from ._running import measure as measure
from ._running import repeatable as repeatable
from ._running import to_device as to_device
from ._samples import check_sample_shape as check_sample_shape
from ._stage import load as load
from ._stage import still_copy as still_copy
from ._stage import wide as wide
from ._stage import wide_dtype as wide_dtype
from ._stage import working_copy as working_copy
from ._task_loss import TaskLoss as TaskLoss
from ._tokens import aligned_target as aligned_target
from ._traced import traced as traced
