"""The training verbs of the documented interface; they live in `metta.rl`."""

from metta.rl.advantage import compute_advantage, compute_advantages
from metta.rl.checkpoint import load_checkpoint, save_checkpoint
from metta.rl.experience import Experience, make_experience_manager
from metta.rl.optimizer import compute_gradient_stats, make_lr_scheduler, make_optimizer
from metta.rl.rollout import rollout
from metta.rl.types import BatchInfo, TrainingState
from metta.rl.update import train_ppo

__all__ = [
    "BatchInfo",
    "Experience",
    "TrainingState",
    "compute_advantage",
    "compute_advantages",
    "compute_gradient_stats",
    "load_checkpoint",
    "make_experience_manager",
    "make_lr_scheduler",
    "make_optimizer",
    "rollout",
    "save_checkpoint",
    "train_ppo",
]
