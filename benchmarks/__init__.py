"""Scripts that measure emofuse; each writes one file of benchmarks/results."""
