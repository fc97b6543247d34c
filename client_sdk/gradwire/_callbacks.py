"""The functions that `fit` calls with each epoch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

from gradwire._argument_names import invalid_argument
from gradwire_engine.training import Epoch

# If it returns False, training stops. If it has a method `close`, fit calls it at the end.
EpochCallback: TypeAlias = Callable[[Epoch], Any]


@dataclass(frozen=True)
class Callbacks:
    """Calls several functions with each epoch. As a context manager, it closes them at the end."""

    functions: tuple[EpochCallback, ...]

    @classmethod
    def of(cls, on_epoch: EpochCallback | Sequence[EpochCallback] | None) -> Self:
        """Return the callbacks that the user passed.

        Raises:
            InvalidArgumentError: One of them is not a function.
        """
        functions: list[Any] = [on_epoch] if on_epoch is not None else []
        if isinstance(on_epoch, list | tuple):
            functions = list(on_epoch)
        for function in functions:
            if not callable(function) or isinstance(function, type):
                raise invalid_argument(
                    "on_epoch", f"must be a function of an epoch, or a list of them, got {function!r}"
                )
        return cls(tuple(functions))

    def __call__(self, epoch: Epoch) -> bool:
        """Call all functions, and return whether training continues."""
        results = [function(epoch) for function in self.functions]
        return not any(result is False for result in results)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for function in self.functions:
            close = getattr(function, "close", None)
            if close is not None:
                close()
