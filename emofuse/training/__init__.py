"""Training of fusion heads on cached features: the loop, its data, saved runs. Imports nothing of the extraction."""
