"""Everything that a training script needs, under one name.

This module only re-exports: each name lives in the room that its import names, and does the same from there.
"""

from metta.agent.config import AgentModelConfig
from metta.agent.graph_config import AgentGraphConfig
from metta.agent.metta_agent import MettaAgent
from metta.agent.policy import Policy
from metta.agent.policy_record import PolicyRecord
from metta.agent.policy_store import PolicyStore
from metta.agent.remap import remap
from metta.agent.row_parallel import sharing_rows
from metta.common.stopwatch import NullStopwatch, Stopwatch
from metta.eval.report import report_table, write_report
from metta.eval.stats_db import StatsDB
from metta.interface.agent import Agent, make_agent
from metta.interface.directories import (
    DeviceSetup,
    RunDirectories,
    save_experiment_config,
    setup_device_and_distributed,
    setup_run_directories,
)
from metta.interface.environment import Environment, make_environment
from metta.interface.evaluation import (
    ReplayFiles,
    create_evaluation_config_suite,
    create_replay_config,
    evaluate_policy_suite,
    generate_replay_simple,
)
from metta.mettagrid.async_vec import ReceivedBatch
from metta.mettagrid.config import ActionConfig, EnvConfig, GameConfig, MapBuilderConfig, ObjectConfig
from metta.mettagrid.curriculum.base import (
    Curriculum,
    MultiTaskCurriculum,
    SingleTaskCurriculum,
    Task,
    make_curriculum,
)
from metta.mettagrid.curriculum.bucketed import BucketedCurriculum
from metta.mettagrid.curriculum.learning_progress import LearningProgressConfig, LearningProgressCurriculum
from metta.mettagrid.env import MettaGridEnv
from metta.mettagrid.map.config import (
    CylinderWorldConfig,
    MazeConfig,
    MeanDistanceConfig,
    RadialMazeConfig,
    RoomsConfig,
    SectorsConfig,
    VariedTerrainConfig,
)
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
from metta.mettagrid.outcomes import EpisodeOutcome, StepBatch
from metta.mettagrid.registry import (
    curriculum_paths,
    env_paths,
    get_env_config,
    register_curriculum,
    register_env,
    register_yaml,
)
from metta.mettagrid.spec import EnvSpec
from metta.mettagrid.vec import VecEnv
from metta.rl.advantage import compute_advantage, compute_advantages
from metta.rl.checkpoint import load_checkpoint, save_checkpoint
from metta.rl.distributed import (
    LostProcessError,
    any_rank,
    cleanup_distributed,
    explain_lost_process,
    gather_episodes,
    setup_distributed_vars,
    split_seed,
    unwrap_agent,
)
from metta.rl.experience import Experience, make_experience_manager
from metta.rl.initial_policy import load_initial_policy
from metta.rl.kickstarter import Kickstarter
from metta.rl.losses import Losses, process_minibatch_update
from metta.rl.optimizer import Optimizer, compute_gradient_stats, make_lr_scheduler, make_optimizer
from metta.rl.policy_management import wrap_agent_distributed
from metta.rl.profiler import TorchProfiler
from metta.rl.rollout import episode_info, perform_rollout_step, rollout
from metta.rl.trainer_config import (
    CheckpointConfig,
    ExperienceConfig,
    InitialPolicyConfig,
    KickstartConfig,
    KickstartTeacherConfig,
    OptimizerConfig,
    PPOConfig,
    PrioritizedExperienceReplayConfig,
    ScheduleConfig,
    SimulationConfig,
    TorchProfilerConfig,
    TrainerConfig,
    VTraceConfig,
    due,
)
from metta.rl.types import BatchInfo, TrainingState
from metta.rl.update import train_ppo
from metta.sim.config import ReplayConfig, Simulation, SimulationSuite
from metta.sim.learning_curve import write_learning_curve
from metta.sim.replays import record_replay
from metta.sim.scores import Score
from metta.sim.simulation import Evaluation, eval_policy, run_episodes, summarize
from metta.sim.suite import SuiteResult
from metta.stats import accumulate_rollout_stats, process_training_stats
from metta.tracking.metrics_file import MetricsFile, read_metrics
from metta.tracking.tensorboard import TensorBoardTracker
from metta.tracking.tracker import Tracker, Trackers
from metta.tracking.wandb import cleanup_wandb, initialize_wandb

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
    "Agent",
    "AgentGraphConfig",
    "AgentModelConfig",
    "BatchInfo",
    "BucketedCurriculum",
    "CheckpointConfig",
    "Curriculum",
    "CylinderWorldConfig",
    "DeviceSetup",
    "EnvConfig",
    "EnvSpec",
    "Environment",
    "EpisodeOutcome",
    "Evaluation",
    "Experience",
    "ExperienceConfig",
    "GameConfig",
    "InitialPolicyConfig",
    "KickstartConfig",
    "KickstartTeacherConfig",
    "Kickstarter",
    "LearningProgressConfig",
    "LearningProgressCurriculum",
    "Losses",
    "LostProcessError",
    "MapBuilderConfig",
    "MazeConfig",
    "MeanDistanceConfig",
    "MetricsFile",
    "MettaAgent",
    "MettaGridEnv",
    "MultiTaskCurriculum",
    "NullStopwatch",
    "ObjectConfig",
    "Optimizer",
    "OptimizerConfig",
    "PPOConfig",
    "Policy",
    "PolicyRecord",
    "PolicyStore",
    "PrioritizedExperienceReplayConfig",
    "RadialMazeConfig",
    "ReceivedBatch",
    "ReplayConfig",
    "ReplayFiles",
    "RoomsConfig",
    "RunDirectories",
    "ScheduleConfig",
    "Score",
    "SectorsConfig",
    "Simulation",
    "SimulationConfig",
    "SimulationSuite",
    "SingleTaskCurriculum",
    "StatsDB",
    "StepBatch",
    "Stopwatch",
    "SuiteResult",
    "Task",
    "TensorBoardTracker",
    "TorchProfiler",
    "TorchProfilerConfig",
    "Tracker",
    "Trackers",
    "TrainerConfig",
    "TrainingState",
    "VTraceConfig",
    "VariedTerrainConfig",
    "VecEnv",
    "accumulate_rollout_stats",
    "any_rank",
    "cleanup_distributed",
    "cleanup_wandb",
    "compute_advantage",
    "compute_advantages",
    "compute_gradient_stats",
    "create_evaluation_config_suite",
    "create_replay_config",
    "curriculum_paths",
    "due",
    "env_paths",
    "episode_info",
    "eval_policy",
    "evaluate_policy_suite",
    "explain_lost_process",
    "gather_episodes",
    "generate_replay_simple",
    "get_env_config",
    "initialize_wandb",
    "load_checkpoint",
    "load_initial_policy",
    "make_agent",
    "make_curriculum",
    "make_environment",
    "make_experience_manager",
    "make_lr_scheduler",
    "make_optimizer",
    "perform_rollout_step",
    "process_minibatch_update",
    "process_training_stats",
    "read_metrics",
    "record_replay",
    "register_curriculum",
    "register_env",
    "register_yaml",
    "remap",
    "report_table",
    "rollout",
    "run_episodes",
    "save_checkpoint",
    "save_experiment_config",
    "setup_device_and_distributed",
    "setup_distributed_vars",
    "setup_run_directories",
    "sharing_rows",
    "split_seed",
    "summarize",
    "train_ppo",
    "unwrap_agent",
    "wrap_agent_distributed",
    "write_learning_curve",
    "write_report",
]
