"""Predict the memory of a load before it starts.

estimate        the numbers of ``llmmem estimate``
loader_versions the behavior of each version of transformers
load_needs      the way in which each strategy reads the shards
peak_models     the peak of each way
ties            weights that the class allocates in addition
conversions     the conversion of each weight by a load
training        gradients and optimizer state by arithmetic
"""
