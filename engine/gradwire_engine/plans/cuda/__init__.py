"""The CUDA plan for NVIDIA GPUs: data and weights stay on the GPU.

An epoch is one launch of a persistent kernel, or a sequence of CUDA graphs of fused kernels and cuBLAS products.
"""
