"""Training and inference steps: measured on real tensors, or predicted on fake ones, by one storage tracker.

spec             what a step is: batch, length, optimizer, adapter
tracker          which storages exist, and what each is there for
fake_tracker     the same for fake tensors, which have no values
storages         peaks out of what the tracker has noted
phases           forward, backward, optimizer; prefill, decode
training         the loop that is measured and predicted
generation       the same for inference
fake_model       a model from a config alone, without memory
quantized        stand-ins for quantized layers, which fake tensors do not have
device_rules     what torch does on a card, for fake tensors on the processor
optimizers       optimizers by name
prediction       a step on fake tensors, in this process
predictor        the same in a process of its own, kept for the next time
search           the largest batch that fits
torch_internals  every private name of torch and transformers that this needs
"""
