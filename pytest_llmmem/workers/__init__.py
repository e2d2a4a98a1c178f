"""Processes that run an opaque body, one job at a time, and how they end. They know nothing of tests.

zygote   forked from the parent while it is clean; forks workers (Linux)
spawned  a fresh interpreter per worker (everywhere)
child    what runs inside either kind
limits   rlimit and control groups
wire     what is said between worker and parent
"""
