"""A set of examples on the device, as the kernels take it."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from gradwire_engine.plans.cuda.kernels import typed


@dataclass(frozen=True, eq=False)
class Columns:
    """Inputs, and targets that are class indices (`is_labels`) or a matrix; each in a type that the kernels read."""

    inputs: Any
    targets: Any
    is_labels: bool

    @property
    def target_arguments(self) -> tuple[Any, np.int32, np.int32]:
        """What a kernel is given for the targets: the data, its type, and what it is."""
        return *typed(self.targets), np.int32(self.is_labels)
