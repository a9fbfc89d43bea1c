"""One episode of a policy, recorded."""
