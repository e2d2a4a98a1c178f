"""Training and inference steps: measured on real tensors, or predicted on fake ones, with one storage tracker.

spec               the settings of a step: batch, length, optimizer, adapter; each kind of step is a class here
batches            random tokens and pictures
training           the loop that is measured and predicted
generation         the same for inference
kv_cache           the size of the cache of keys and values, from a config
optimizers         optimizers by name
adapters           preparation of a model: its dtype, an adapter, checkpointing
first_use          the first use of torch's kernels, before a step is measured

tracker            records each tensor that an operation makes, with its purpose, until its memory is released
live_storages      the storages that exist now, by address
storages           peaks from the tracker's log
phases             forward, backward, optimizer; prefill, decode
module_paths       the module that an operation belongs to
tensors            tensors inside of arguments and caches
weights_here       the weights of this process, of a model over ranks

prediction         a step on fake tensors, in this process
program            the program that predicts in a process of its own
predictor          asks that program, with a cache
search             the largest batch that fits
replay             later steps of a prediction, from the first one
fake_model         a model from a config alone, without memory
fake_tracker       the tracker for fake tensors, which have no values
fake_failures      what fails on fake tensors, in one sentence
quantized          stand-ins for quantized layers, which fake tensors do not have
device_rules       torch's choices on a GPU, for fake tensors on the CPU
caching_allocator  a model of the allocator of a GPU

checks             checks of training and generation, on fake tensors
laboratory         the small model that they use
torch_internals    every private name of torch and transformers that this package needs
"""
