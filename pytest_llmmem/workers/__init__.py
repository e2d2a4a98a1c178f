"""Processes that run an opaque body, one job at a time, and how they end. They know nothing of tests.

worker, spawned, served    the parent's side of a worker: a fresh interpreter, or forked from the fork server
fork_server, server        forked from the parent while it is clean; forks workers (Linux)
reaper                     above both: restarts the server, ends what is left
child                      what runs inside a worker
channel, messages          how parent and worker talk
limits, rlimit             hard limits of processes: which there is, and that of Linux
cgroup_limiter             the hard limit of a control group
process_group              commands of ours, and all that they start
memory_queue               which of several sessions may run now
session_files              stacks, load progress and scratch files of the workers
"""
