"""Predict the memory of a load before it starts.

estimate        the numbers of ``llmmem estimate``
peak_models     the peak of each strategy
conversions     the conversion of each weight by a load
training        gradients and optimizer state by arithmetic
"""
