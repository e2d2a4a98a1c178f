"""Baselines: the earlier use of each test, in a file that is reviewed and compared with every run."""
