"""What a checkpoint's files say, read within bounds and without its weights.

checkpoint, checkpoint_folder     the folder as a whole, and which of its files a load opens
safetensors_file, torch_file      headers; torch_pickle, pickle_machine and stored_zip are how a ``.bin`` is read
index_file, model_config          the two JSON files; foreign_json reads both
tensors, findings                 dtypes and sizes; what is wrong with a checkpoint
bounds, regular_files             how much is read of what strangers wrote, and of which kinds of file
"""
