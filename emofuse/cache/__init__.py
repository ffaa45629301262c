"""The feature cache, the only thing that passes from extraction to training."""
