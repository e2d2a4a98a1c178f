"""Measures, guards and judges one job in a worker.

ranks, rank_total            several workers that run one job at once, each by itself and together
job                          one job in a worker, from its start to its end
supervisor                   the same step by step: samples and messages in, actions of ``core.decide`` out
sampler, sampling_schedule   reads the worker as often and as closely as it must
guard                        budgets beside what was used, and the hard limit
accounting                   what each phase has used: its parts are block_budgets and written_bytes
timeline_recorder            the course over time
process_tree, gpus           the worker's children, and its GPU memory
stack_dumps, oom_kills       stacks at a crossing and at death, and the kernel's kills
plan, listener               what is decided before, and who is told
"""
