"""A set of examples in the memory of the device."""

from dataclasses import dataclass
from typing import Any

from gradwire_engine.plans.codes import source_code


@dataclass(frozen=True, eq=False)
class DeviceExamples:
    """Inputs of shape (rows, features), and targets: class indices of shape (rows,) or a matrix (rows, outputs)."""

    inputs: Any
    targets: Any

    @property
    def input_type(self) -> int:
        """The code of the dtype of the inputs."""
        return source_code(self.inputs.dtype)

    @property
    def target_type(self) -> int:
        """The code of the dtype of the targets."""
        return source_code(self.targets.dtype)

    @property
    def is_labels(self) -> bool:
        """Whether the targets are class indices."""
        return bool(self.targets.ndim == 1)
