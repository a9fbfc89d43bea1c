"""The training verbs of the documented interface; they live in `metta.rl` and `metta.tracking`."""

from metta.rl.advantage import compute_advantage, compute_advantages
from metta.rl.checkpoint import load_checkpoint, save_checkpoint
from metta.rl.distributed import cleanup_distributed
from metta.rl.experience import Experience, make_experience_manager
from metta.rl.losses import Losses, process_minibatch_update
from metta.rl.optimizer import Optimizer, compute_gradient_stats, make_lr_scheduler, make_optimizer
from metta.rl.rollout import perform_rollout_step, rollout
from metta.rl.types import BatchInfo, TrainingState
from metta.rl.update import train_ppo
from metta.stats import accumulate_rollout_stats
from metta.tracking.wandb import cleanup_wandb, initialize_wandb

__all__ = [
    "BatchInfo",
    "Experience",
    "Losses",
    "Optimizer",
    "TrainingState",
    "accumulate_rollout_stats",
    "cleanup_distributed",
    "cleanup_wandb",
    "compute_advantage",
    "compute_advantages",
    "compute_gradient_stats",
    "initialize_wandb",
    "load_checkpoint",
    "make_experience_manager",
    "make_lr_scheduler",
    "make_optimizer",
    "perform_rollout_step",
    "process_minibatch_update",
    "rollout",
    "save_checkpoint",
    "train_ppo",
]
