"""Inside a worker: pytest runs one item there and sends what its hooks hear to the parent."""
