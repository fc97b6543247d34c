"""gradwire bench: the engine beside NumPy, PyTorch, JAX and scikit-learn, on the user's own machine."""
