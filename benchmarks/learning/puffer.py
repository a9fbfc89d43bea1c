"""PufferLib's own trainer as a learner; `.ci/install_pufferlib PYTHON --trainer` installs it."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from benchmarks.learning.learners import Progress, as_policy
from benchmarks.learning.tasks import PufferConfig
from examples.plain_ppo import Net
from metta.agent.policy import Policy
from metta.agent.state import PolicyState
from metta.mettagrid.outcomes import EpisodeOutcome

NEVER = 1 << 60


def import_pufferlib() -> tuple[Any, Any]:
    """`pufferlib.pufferl` and `pufferlib.models`.

    Importing them leaves a link in the working folder, makes Ctrl-C end the process without a word and turns warnings into
    errors, so they are imported from a folder that goes away, and the rest is put back.
    """
    handler, hook, here = signal.getsignal(signal.SIGINT), sys.excepthook, os.getcwd()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        os.chdir(folder)
        try:
            from pufferlib import models, pufferl
        except ImportError as error:
            raise ImportError(
                f"PufferLib's trainer cannot be imported ({error}); .ci/install_pufferlib PYTHON --trainer installs it."
            ) from error
        finally:
            os.chdir(here)
            signal.signal(signal.SIGINT, handler)
            sys.excepthook = hook
    return pufferl, models


def nothing(*arguments: object, **options: object) -> None:
    """Do nothing, whatever is asked."""


class EncoderAndHeads(nn.Module):
    """The network of `examples/plain_ppo.py` in the parts that PufferLib's `LSTMWrapper` asks for."""

    is_continuous = False

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.hidden_size = net.lstm.hidden_size
        self.planes, self.features, self.actor, self.critic = net.planes, net.features, net.actor, net.critic

    def encode_observations(self, observations: torch.Tensor, state: object = None) -> torch.Tensor:  # noqa: ARG002
        """Tokens uint8 `[N, K, 3]` to features `[N, hidden]`; the state is for encoders that want to know it."""
        features: torch.Tensor = self.features(self.planes(observations))
        return features

    def decode_actions(self, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits `[N, actions]` and values `[N, 1]`."""
        return self.actor(hidden), self.critic(hidden)


class PufferLearner:
    """`pufferlib.pufferl.PuffeRL` on `PufferLibEnv`, with PufferLib's LSTM around the network of the plain learner."""

    def __init__(self, env: str, config: PufferConfig, steps: int, seed: int) -> None:
        pufferl, models = import_pufferlib()
        from metta.adapters.pufferlib_env import PufferLibEnv

        class Worlds(PufferLibEnv):
            """Remembers the episodes that ended."""

            ended: list[EpisodeOutcome]

            def step(self, actions: npt.NDArray[np.integer[Any]]) -> Any:
                """As it is."""
                result = super().step(actions)
                self.ended += self.episodes
                return result

        # Without its dashboard and its checkpoints.
        quiet = type("Quiet", (pufferl.PuffeRL,), {"print_dashboard": nothing, "save_checkpoint": nothing})
        options = {"env_config": env, "num_worlds": config.num_worlds, "stagger": True, "collect_stats": True}
        vector = pufferl.pufferlib.vector
        serial = vector.make(Worlds, env_kwargs=options, backend=vector.Serial, num_envs=1, seed=seed)
        self.worlds = serial.envs[0]
        self.worlds.ended = []
        self.hidden_dim = config.hidden_dim
        parts = EncoderAndHeads(Net(self.worlds.vec.spec, config.hidden_dim))
        self.net = models.LSTMWrapper(self.worlds, parts, config.hidden_dim, config.hidden_dim)
        batch_size = self.worlds.num_agents * config.bptt_horizon
        given = config.model_dump(exclude={"num_worlds", "hidden_dim"})
        given |= {
            "batch_size": batch_size,
            "minibatch_size": min(config.minibatch_size, batch_size),
            "max_minibatch_size": min(config.minibatch_size, batch_size),
            "total_timesteps": max(steps, batch_size),
            "seed": seed,
            "device": "cpu",
            "precision": "float32",
            "use_rnn": True,
            "cpu_offload": False,
            "compile": False,
            "torch_deterministic": True,
            "checkpoint_interval": NEVER,
            "data_dir": "",
            "env": env,
            "name": "",
            "project": "",
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it prepares for a GPU and says that there is none
            self.trainer = quiet(given, serial, self.net)

    def advance(self) -> Progress:
        """See `Learner`."""
        before = self.trainer.global_step
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.trainer.evaluate()
            self.trainer.train()
        ended, self.worlds.ended = self.worlds.ended, []
        losses = {name: float(value) for name, value in self.trainer.losses.items()}
        return Progress(self.trainer.global_step - before, ended, losses)

    def policy(self) -> Policy:
        """See `Learner`; its memory runs on over a whole episode, as in PufferLib's own evaluation."""

        def step(tokens: torch.Tensor, state: PolicyState) -> tuple[torch.Tensor, torch.Tensor, PolicyState]:
            memory = {"lstm_h": state.h[0], "lstm_c": state.c[0]}
            logits, values = self.net.forward_eval(tokens, memory)
            after = PolicyState(memory["lstm_h"].unsqueeze(0), memory["lstm_c"].unsqueeze(0))
            return logits, values.flatten(), after

        return as_policy(step, self.worlds.vec.spec, self.hidden_dim)

    def num_weights(self) -> int:
        """See `Learner`."""
        return sum(weights.numel() for weights in self.net.parameters())

    def close(self) -> None:
        """See `Learner`."""
        self.trainer.utilization.stop()
        self.worlds.close()
