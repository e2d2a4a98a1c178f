"""Where a model comes from: a folder, the Hub, or a synthetic checkpoint.

source                     ``--llm-model=SOURCE`` to a folder
hub, cache                 fetching, and where it is kept
presets, layouts, meta_layout     configs by name, and the tensors of an architecture
synthetic                  sparse files with these tensors
"""
