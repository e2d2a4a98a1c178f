"""Sources of models: a folder, the Hub, or a synthetic checkpoint.

source                     ``--llm-model=SOURCE`` to a folder
hub, cache                 downloads, and the folder for synthetic checkpoints
presets, layouts, meta_layout     configs by name, and the tensors of an architecture
synthetic                  sparse files with these tensors
"""
