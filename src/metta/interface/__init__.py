"""The documented verbs: wiring of the rooms below, no algorithm of its own."""
