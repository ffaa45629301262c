"""Solvers of exact heads: logistic regression and kernel ridge regression, to convergence.

    standardised rows -> `kernels` or plain features -> `ridge`, `logistic` -> `temperature`

All functions take and return plain tensors. Nothing here imports runs, caches or splits.
"""
