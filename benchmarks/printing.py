"""Prints figures."""


def line(figure: str, value: str, aim: str) -> None:
    """Print a figure's name, its value, and the aim or a remark."""
    print(f"{figure:<58}{value:>22}   {aim}", flush=True)
