"""From observations to features: the token layer and what follows it."""

from __future__ import annotations

import torch
from torch import nn

from metta.agent.acting import Layer, prepare_layer
from metta.agent.config import AgentModelConfig
from metta.agent.facing import TurnToFacing
from metta.agent.layers import dense
from metta.agent.paths import ComputePath
from metta.agent.tokens import TokenLayer, Window, make_plane_table
from metta.mettagrid.spec import EnvSpec

CNN_KERNEL = 5
CNN_STRIDE = 3
CNN_CHANNELS = 64


class Encoder(nn.Module):
    """Tokens `[N, K, 3]` to features `[N, hidden]`.

    `cnn`: convolution, ReLU, one linear layer over all its positions, ReLU. On the usual 11 by 11 window the
    convolution has 3 by 3 positions, so a second convolution over them would be a special case of that layer.
    `mlp`: a linear layer over the whole window, ReLU, another, ReLU.
    """

    def __init__(self, spec: EnvSpec, config: AgentModelConfig, path: ComputePath = "auto") -> None:
        super().__init__()
        pooled = config.obs_process_func == "pool_obs_dict"
        if config.backbone == "cnn":
            window = Window.cover(spec.obs_height, spec.obs_width, CNN_KERNEL, CNN_STRIDE)
            channels = min(CNN_CHANNELS, config.hidden_dim)
        else:
            window = Window.whole(spec.obs_height, spec.obs_width, pooled=pooled)
            channels = config.hidden_dim
        self.pooled = pooled
        turn = TurnToFacing(spec, active=config.egocentric)
        self.tokens = TokenLayer(make_plane_table(spec, config), window, turn, channels, path)
        self.project = dense(channels * (1 if pooled else window.num_positions), config.hidden_dim)

    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """`TokenLayer.init_weights`, then an orthogonal layer with the gain for ReLU."""
        self.tokens.init_weights(generator)
        nn.init.orthogonal_(self.project.weight, 2**0.5, generator=generator)
        nn.init.zeros_(self.project.bias)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Features of each observation, all non-negative."""
        seen = self.tokens(tokens)
        flat = seen.mean(1) if self.pooled else seen.flatten(1)
        features: torch.Tensor = self.project(flat).relu_()
        return features

    def prepared(self, *, half: bool) -> Layer:
        """`forward` for acting; see `metta.agent.acting`."""
        see = prepare_layer(self.tokens, half=half)
        project = prepare_layer(self.project, half=half, nonlinearity=torch.relu)

        def apply(tokens: torch.Tensor) -> torch.Tensor:
            seen = see(tokens)
            return project(seen.mean(1) if self.pooled else seen.flatten(1))

        return apply
