"""``llmmem sweep``: models, loads and environments as cells, each one pytest session, on this machine or on a Ray cluster.

sweep_file   sweep.toml as a frozen value, with every complaint at its line
cells        the cells of a sweep, and the command of each
claims       the memory that a cell reserves
jobs         one command in a process of its own, and its result as plain JSON
placement    which job starts on which node (pure)
driver       runs jobs on an engine until each has a result
local        an engine: this machine
on_ray       an engine: a Ray cluster; the only importer of ray
results      the folder with one file for each result, and the merged record
earlier      the reports of earlier sweeps into that folder
"""
