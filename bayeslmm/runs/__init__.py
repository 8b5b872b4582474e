"""Long runs and what they leave: parts, checkpoints, clusters, files, provenance."""
