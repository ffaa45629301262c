"""Heads that are solved and not trained: logistic regression and kernel ridge regression, to convergence.

    standardised rows -> `kernels` or plain features -> `ridge`, `logistic` -> `temperature`

Plain tensors in, plain tensors out: nothing here knows runs, caches or splits.
"""
