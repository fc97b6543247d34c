"""The compiled plan for the CPU: LLVM code for the vector units of this processor, made by Numba (extra `fast`).

`availability` says whether the plan can run here, and needs no Numba. Every other module imports Numba.
"""
