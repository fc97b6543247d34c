"""How a figure is printed."""


def line(figure: str, value: str, aim: str) -> None:
    """Print what was measured, and what is aimed at or said beside it."""
    print(f"{figure:<58}{value:>22}   {aim}", flush=True)
