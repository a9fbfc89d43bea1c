"""Curricula: which task an environment plays next. They live with the trainer and hear the outcomes."""
