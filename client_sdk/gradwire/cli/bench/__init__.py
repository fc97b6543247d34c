"""`gradwire bench`, which compares the engine with NumPy, PyTorch, JAX and scikit-learn on the same task."""
