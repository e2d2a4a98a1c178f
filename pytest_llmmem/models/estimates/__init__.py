"""What a load will need, before anything is loaded.

estimate        the numbers of ``llmmem estimate``
peak_models     how each strategy's peak follows from the checkpoint
conversions     what a load makes of each weight
training        gradients and optimizer state by arithmetic
"""
