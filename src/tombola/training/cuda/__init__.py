"""Training steps on a GPU: CUDA graphs, and Triton kernels that do several passes over memory in one."""
