"""Records and measurements as text. Nothing here measures, and no renderer computes a number."""
