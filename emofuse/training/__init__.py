"""Training of fusion heads on cached features: metrics, the loop, saved runs. Loads nothing of the building room."""
