"""Everything that a training script needs, under one name.

This module only re-exports: each name lives in the room that its import names, and does the same from there.
"""

from metta.agent.config import AgentModelConfig
from metta.agent.metta_agent import MettaAgent
from metta.agent.policy_record import PolicyRecord
from metta.agent.policy_store import PolicyStore
from metta.interface.agent import make_agent
from metta.interface.environment import make_environment
from metta.mettagrid.config import ActionConfig, EnvConfig, GameConfig, MapBuilderConfig, ObjectConfig
from metta.mettagrid.curriculum.base import (
    Curriculum,
    MultiTaskCurriculum,
    SingleTaskCurriculum,
    Task,
    make_curriculum,
)
from metta.mettagrid.env import MettaGridEnv
from metta.mettagrid.objects import (
    TYPE_AGENT,
    TYPE_ALTAR,
    TYPE_ARMORY,
    TYPE_BLOCK,
    TYPE_FACTORY,
    TYPE_GENERATOR_BLUE,
    TYPE_GENERATOR_GREEN,
    TYPE_GENERATOR_RED,
    TYPE_GENERIC_CONVERTER,
    TYPE_LAB,
    TYPE_LASERY,
    TYPE_MINE_BLUE,
    TYPE_MINE_GREEN,
    TYPE_MINE_RED,
    TYPE_TEMPLE,
    TYPE_WALL,
)
from metta.mettagrid.registry import env_paths, get_env_config, register_env
from metta.mettagrid.spec import EnvSpec
from metta.mettagrid.vec import EpisodeOutcome, StepBatch, VecEnv
from metta.rl.advantage import compute_advantage, compute_advantages
from metta.rl.checkpoint import load_checkpoint, save_checkpoint
from metta.rl.experience import Experience, make_experience_manager
from metta.rl.optimizer import compute_gradient_stats, make_lr_scheduler, make_optimizer
from metta.rl.rollout import rollout
from metta.rl.trainer_config import (
    CheckpointConfig,
    ExperienceConfig,
    OptimizerConfig,
    PPOConfig,
    SimulationConfig,
)
from metta.rl.types import BatchInfo, TrainingState
from metta.rl.update import train_ppo
from metta.sim.learning_curve import write_learning_curve
from metta.sim.replays import record_replay
from metta.sim.simulation import Evaluation, eval_policy, run_episodes, summarize

__all__ = [
    "TYPE_AGENT",
    "TYPE_ALTAR",
    "TYPE_ARMORY",
    "TYPE_BLOCK",
    "TYPE_FACTORY",
    "TYPE_GENERATOR_BLUE",
    "TYPE_GENERATOR_GREEN",
    "TYPE_GENERATOR_RED",
    "TYPE_GENERIC_CONVERTER",
    "TYPE_LAB",
    "TYPE_LASERY",
    "TYPE_MINE_BLUE",
    "TYPE_MINE_GREEN",
    "TYPE_MINE_RED",
    "TYPE_TEMPLE",
    "TYPE_WALL",
    "ActionConfig",
    "AgentModelConfig",
    "BatchInfo",
    "CheckpointConfig",
    "Curriculum",
    "EnvConfig",
    "EnvSpec",
    "EpisodeOutcome",
    "Evaluation",
    "Experience",
    "ExperienceConfig",
    "GameConfig",
    "MapBuilderConfig",
    "MettaAgent",
    "MettaGridEnv",
    "MultiTaskCurriculum",
    "ObjectConfig",
    "OptimizerConfig",
    "PPOConfig",
    "PolicyRecord",
    "PolicyStore",
    "SimulationConfig",
    "SingleTaskCurriculum",
    "StepBatch",
    "Task",
    "TrainingState",
    "VecEnv",
    "compute_advantage",
    "compute_advantages",
    "compute_gradient_stats",
    "env_paths",
    "eval_policy",
    "get_env_config",
    "load_checkpoint",
    "make_agent",
    "make_curriculum",
    "make_environment",
    "make_experience_manager",
    "make_lr_scheduler",
    "make_optimizer",
    "record_replay",
    "register_env",
    "rollout",
    "run_episodes",
    "save_checkpoint",
    "summarize",
    "train_ppo",
    "write_learning_curve",
]
