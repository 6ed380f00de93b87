"""Passes over memory made one: Triton kernels for a training step on a GPU, and where they fit a network."""
