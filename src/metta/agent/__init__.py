"""The agent: network, recurrent state, and its form on disk."""
