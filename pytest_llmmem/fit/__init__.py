"""``llmmem fit``: the smallest machine that a model loads and runs on.

program      what is measured: load a model, run it a few times (a process of its own)
measuring    runs the program, measured from outside, and within a memory limit if one is given
groups       a memory control group around one process, version 1 and 2
verdict      from peaks to "dies below", "slow below", and a container's request and limit (pure)
verifying    a copy of the checkpoint that is read from disk again
"""
