"""Metta: train teams of agents in a fast multi-agent grid world.

Importing this package loads neither torch nor numba; `metta.api` is the front door.
"""

__version__ = "0.1.0"
