"""Checkpoint files, read within bounds and without their weights.

checkpoint, reader                a checkpoint as a value; reading it
checkpoint_folder                 the folder as a whole, and which of its files a load opens
safetensors_file, torch_file      headers; torch_pickle, pickle_machine and stored_zip are how a ``.bin`` is read
index_file, model_config          the two JSON files; foreign_json reads both
tensors, findings                 dtypes and sizes; defects of a checkpoint
bounds, regular_files             limits on how much is read of untrusted files, and on which kinds of file are opened
"""
