"""Each module measures one thing and prints both sides and their ratio: `python -m benchmarks.training --json`."""
