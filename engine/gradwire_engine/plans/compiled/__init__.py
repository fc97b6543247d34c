"""The compiled plan for the CPU: LLVM code for this processor's vector units, made by Numba (extra `fast`).

`availability` says whether it can be used here, and needs nothing. All else imports Numba and is loaded after that.
"""
