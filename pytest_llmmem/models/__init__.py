"""Where a model comes from, what its checkpoint holds, and stand-ins of any size that cost no disk."""
