"""Values and decisions, without I/O: what a budget is, what a peak means, how a worker can end."""
