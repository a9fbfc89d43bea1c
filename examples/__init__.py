"""Short scripts, each run by a test."""
