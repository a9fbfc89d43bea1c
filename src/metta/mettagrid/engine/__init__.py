"""The world: compiled Python over the arrays of `state.py`. Knows no config and no names.

Read `step.py` first: it is the order of one step.
"""
