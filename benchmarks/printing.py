"""Prints benchmark results."""


def line(figure: str, value: str, aim: str) -> None:
    """Print the name and value of a result, and its target value or a remark."""
    print(f"{figure:<58}{value:>22}   {aim}", flush=True)
