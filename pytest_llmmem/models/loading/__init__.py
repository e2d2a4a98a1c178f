"""From a checkpoint to a model in memory, and what can be asked of it.

strategies, request, recipes      ways to load; what one is asked for; the code of those that are more than a call
loaded, storage, residency        the loaded model: its bytes by device, and which of its pages are in memory
load_tracing                      which shard and tensor is being read
offload, weight_names, ineffective_arguments     details of transformers' and accelerate's loads
"""
