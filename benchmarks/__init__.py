"""The benchmarks that produce the figures in the documentation. `make bench` runs all except the GPU benchmark."""
