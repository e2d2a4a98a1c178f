"""Model sources, the contents of checkpoints, and synthetic checkpoints of any size that take no disk space."""
