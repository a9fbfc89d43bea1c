"""Seeds, in the custom of the libraries: who gives none gets one at random."""

from __future__ import annotations

import numpy as np


def given_or_drawn(seed: int | None) -> int:
    """A seed as it is, or one drawn from the operating system.

    Libraries make many environments from one recipe, and seed them or do not. With a fixed default those that are not
    seeded would all play the same episodes.
    """
    return int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
