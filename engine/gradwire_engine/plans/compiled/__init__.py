"""The compiled plan, which runs vectorized LLVM code on the CPU. It requires Numba (extra `fast`).

`availability` checks whether the plan can run here, and can be imported without Numba. Most other modules need Numba.
"""
