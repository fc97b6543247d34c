"""`gradwire bench`: the engine compared with NumPy, PyTorch, JAX and scikit-learn on the same task."""
