"""Load a checkpoint as a model in memory, and measure the model.

strategies, request, recipes      ways to load; a request to load; loads that take more than one call
loaded, storage, residency        the loaded model: its bytes by device, and which of its pages are in memory
load_tracing                      the shard and the tensor that are being read
offload, weight_names, ineffective_arguments     details of transformers' and accelerate's loads
"""
