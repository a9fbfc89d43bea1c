"""Maps: what kinds there are, as typed values, and the functions that draw them as grids of cell codes."""
