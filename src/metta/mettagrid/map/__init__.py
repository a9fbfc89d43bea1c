"""Map builders: from a `MapBuilderConfig` and a random generator to a grid of cell names."""
