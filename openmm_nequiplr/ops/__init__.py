"""Operators with several kernels: plain torch, compiled for the processor, and room for CUDA."""
