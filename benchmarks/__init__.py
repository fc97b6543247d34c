"""The benchmarks that print every figure in the documentation. `make bench` runs them, except the GPU benchmark."""
