"""Imports packages that are not always installed."""

import importlib
from typing import Any


def required(module: str, user: str, install: str) -> Any:
    """Import a module.

    Args:
        module: The module, for example "matplotlib.figure". The message names its package.
        user: What needs it, for example "history.plot()".
        install: What to install with pip, for example "gradwire[plot]".

    Raises:
        ImportError: The module is not installed. The message says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ImportError(f"{user} needs {package}. Install it with: pip install {install}") from error
