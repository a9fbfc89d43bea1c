"""The documented verbs: wiring of the rooms below, no algorithm of its own."""

from metta.common.stopwatch import Stopwatch
from metta.interface.agent import Agent
from metta.interface.directories import (
    cleanup_distributed,
    save_experiment_config,
    setup_device_and_distributed,
    setup_distributed_vars,
    setup_run_directories,
)
from metta.interface.environment import Environment
from metta.interface.evaluation import create_evaluation_config_suite, create_replay_config
from metta.rl.advantage import compute_advantage
from metta.rl.checkpoint import load_checkpoint, save_checkpoint
from metta.rl.experience import Experience
from metta.rl.kickstarter import Kickstarter
from metta.rl.losses import Losses, process_minibatch_update
from metta.rl.optimizer import Optimizer
from metta.rl.rollout import perform_rollout_step
from metta.rl.trainer_config import CheckpointConfig, OptimizerConfig, PPOConfig, TrainerConfig
from metta.stats import accumulate_rollout_stats

__all__ = [
    "Agent",
    "CheckpointConfig",
    "Environment",
    "Experience",
    "Kickstarter",
    "Losses",
    "Optimizer",
    "OptimizerConfig",
    "PPOConfig",
    "Stopwatch",
    "TrainerConfig",
    "accumulate_rollout_stats",
    "cleanup_distributed",
    "compute_advantage",
    "create_evaluation_config_suite",
    "create_replay_config",
    "load_checkpoint",
    "perform_rollout_step",
    "process_minibatch_update",
    "save_checkpoint",
    "save_experiment_config",
    "setup_device_and_distributed",
    "setup_distributed_vars",
    "setup_run_directories",
]
