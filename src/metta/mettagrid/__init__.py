"""MettaGrid: the grid world, its rules, maps and environments. Never imports torch."""
