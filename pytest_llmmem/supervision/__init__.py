"""Measures, guards and judges one job in a worker.

supervisor             the loop
accounting             what each phase has used, and which budgets apply
process_tree, gpus     the worker's children, and its GPU memory
sampling_schedule      when to look, and how closely
stack_dumps            stacks at a crossing and at death
plan                   what is known of a job before it runs
"""
