"""Simulations: a policy plays episodes, and what happened becomes records, scores and replays."""
