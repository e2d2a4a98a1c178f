"""Training and inference steps: measured on real tensors, or predicted on fake ones, with one storage tracker.

spec             the settings of a step: batch, length, optimizer, adapter
tracker          the storages that exist, and the purpose of each
fake_tracker     the same for fake tensors, which have no values
tensors          tensors inside of arguments and caches
caching_allocator  a model of the allocator of a GPU
live_storages    the storages that exist
replay           later steps of a prediction, from the first one
storages         peaks from the events of the tracker
phases           forward, backward, optimizer; prefill, decode
batches          random tokens and pictures
training         the loop that is measured and predicted
generation       the same for inference
kv_cache         the size of the cache of keys and values, from a config
first_use        the first use of torch's kernels, before a step is measured
fake_model       a model from a config alone, without memory
quantized        stand-ins for quantized layers, which fake tensors do not have
device_rules     torch's choices on a GPU, for fake tensors on the CPU
optimizers       optimizers by name
prediction       a step on fake tensors, in this process
predictor        the same in a separate process, with a cache
search           the largest batch that fits
torch_internals  every private name of torch and transformers that this package needs
"""
