"""Sweeps: the search for the best configurations, and the final runs of those that are chosen.

The modules in the order in which data flows:

- `configurations`: the factors of a sweep -> configurations, each the specification of a run.
- `strategies`, `tpe`: which configurations are tried next (grid, random, tree-structured Parzen estimator).
- `groups`: configurations -> runs by fold and seed -> groups of runs that train together -> rows of results.
- `trainers`, `cluster`: where groups train: in this process, or on the workers of a Dask scheduler.
- `rows`: the folder of rows, which several sweeps can share.
- `search`, `search_progress`: the loop over these, and what it shows while it runs.
- `choice`: rows -> the chosen configurations.
- `final_runs`: the chosen configurations -> runs that are scored on the test rows.
- `summary`: search, choice and final runs as tables and sentences.
- `options`: the options and results of a sweep.
- `searching`: the search on training and validation rows, and the choice.
- `plan`: what a sweep would train, before anything is trained.
- `run`: all of it, from a cache to a report.
- `table`: rows as a table that is filtered, printed and exported.
"""
