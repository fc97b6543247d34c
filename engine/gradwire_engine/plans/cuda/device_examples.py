"""A set of examples in GPU memory."""

from dataclasses import dataclass
from typing import Any

from gradwire_engine.plans.codes import source_code


@dataclass(frozen=True, eq=False)
class DeviceExamples:
    """A set of examples on the device.

    Attributes:
        inputs: A device array of shape (rows, features).
        targets: A device array of class indices, of shape (rows,), or a matrix of shape (rows, outputs).
    """

    inputs: Any
    targets: Any

    @property
    def input_type(self) -> int:
        """The dtype code of the inputs."""
        return source_code(self.inputs.dtype)

    @property
    def target_type(self) -> int:
        """The dtype code of the targets."""
        return source_code(self.targets.dtype)

    @property
    def is_labels(self) -> bool:
        """Whether the targets are class indices."""
        return bool(self.targets.ndim == 1)
