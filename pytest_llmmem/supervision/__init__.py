"""Measures, guards and judges one job in a worker.

ranks, rank_total            several workers that run one job at once, each by itself and together
supervisor                   one job step by step: samples and messages in, actions out
decide                       what to do now: pure
sampler, sampling_schedule   reads the worker as often and as closely as it must
guard, window_budgets        budgets beside what was used, and the hard limit
accounting                   what each phase has used
timeline_recorder            the course over time
process_tree, gpus           the worker's children, and its GPU memory
stack_dumps                  stacks at a crossing and at death
plan, listener               what is decided before, and who is told
"""
