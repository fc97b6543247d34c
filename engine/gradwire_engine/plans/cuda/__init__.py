"""The CUDA plan: data and weights stay on the GPU; epochs are graphs of fused kernels and cuBLAS products."""
