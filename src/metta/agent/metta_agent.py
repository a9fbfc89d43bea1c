"""The policy: observation tokens in, actions and values out, with a recurrent memory."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from metta.agent.acting import Tick, is_watched, of_weights
from metta.agent.analysis import flatten, weight_statistics
from metta.agent.compiled import CompiledFunction, compilation_wanted
from metta.agent.config import AgentModelConfig
from metta.agent.core import LSTMCore
from metta.agent.encoder import Encoder
from metta.agent.graph import ComponentGraph
from metta.agent.graph_config import AgentGraphConfig
from metta.agent.heads import POLICY_GAIN, ActionTable, Head, draw, entropy, sample
from metta.agent.legality import Legality
from metta.agent.outputs import ActOutput, EvalOutput
from metta.agent.paths import ComputePath, use_fast
from metta.agent.row_parallel import RowThreads, by_rows, row_parts
from metta.agent.state import PolicyState
from metta.agent.translation import NEVER, Translation
from metta.mettagrid.spec import EnvSpec


class MettaAgent(nn.Module):
    """A recurrent policy with a value estimate. A final class: options are in its config.

    An `AgentModelConfig` gives the standard network: encoder, LSTM core, action head and value head. An
    `AgentGraphConfig` gives any other around the same core.

    Args:
        spec: the world as agents see it. Its feature table may be a part of the world's, in any order: a feature is
            known by its `id`, not its place, and tokens of other features are not seen.
        config: the architecture; None = the defaults of `AgentModelConfig`.
        trained_on: the spec whose ids the weights follow, where that is not `spec`; None = it is. See
            `metta.agent.remap.remap`.
        generator: source of the initial weights; None = torch's own.
        path: how the token layer and the core compute. `auto` chooses by device and dtype, `plain` is the
            slow reference, `fast` insists. All compute the same function.

    Attributes:
        spec, config: as given.
        trained_on: as given, or `spec`.
        core: the recurrent core; None without one.
        encoder, action_head, value_head: the other parts of a standard network.
        graph: the network of an `AgentGraphConfig`; None in a standard one, which has the parts above instead.

    Raises:
        ValueError: the config hides everything that the world shows, its sizes do not fit each other or the world, or
            the worlds of `spec` and `trained_on` have too little in common.
    """

    reference: torch.Tensor
    encoder: Encoder
    action_head: Head
    value_head: Head

    def __init__(
        self,
        spec: EnvSpec,
        config: AgentModelConfig | AgentGraphConfig | None = None,
        *,
        trained_on: EnvSpec | None = None,
        generator: torch.Generator | None = None,
        path: ComputePath = "auto",
    ) -> None:
        super().__init__()
        self.spec = spec
        self.trained_on = trained_on = spec if trained_on is None else trained_on
        self.config = config = AgentModelConfig() if config is None else config
        self.path: ComputePath = path
        self.action_table = ActionTable(spec)
        self.translation = None if trained_on == spec else Translation(trained_on, spec)
        num_actions = len(trained_on.legal_actions)
        legality = Legality(spec, path) if config.mask_actions else None
        self.legality = legality if legality and legality.limits else None
        self.graph: ComponentGraph | None = None
        self.core: LSTMCore | None = None
        if isinstance(config, AgentGraphConfig):
            self.graph = graph = ComponentGraph(trained_on, config, num_actions, path)
            core = config.core
            self._state_width = 0 if core is None else core.hidden_size
            if core is not None:
                self.core = LSTMCore(graph.num_core_inputs, core.hidden_size, core.num_layers, path)
        else:
            self._state_width = hidden = config.hidden_dim
            self.encoder = Encoder(trained_on, config, path)
            if config.forward_lstm:
                self.core = LSTMCore(hidden, hidden, config.lstm_layers, path)
            self.action_head = Head(hidden, num_actions, config.mlp_layers, POLICY_GAIN)
            self.value_head = Head(hidden, 1, config.mlp_layers, 1.0)
        self.register_buffer("reference", torch.empty(sum(p.numel() for p in self.parameters())))
        self._last_features: torch.Tensor | None = None
        self._threads = RowThreads()
        self._compiled = CompiledFunction()
        if config.clip_range > 0:
            clamp = functools.partial(torch.clamp, min=-config.clip_range, max=config.clip_range)
            for parameter in self.parameters():
                parameter.register_hook(clamp)  # type: ignore[no-untyped-call]
        self.init_weights(generator)

    def __deepcopy__(self, memo: dict[int, Any]) -> MettaAgent:
        # Built anew because copied parameters would lose the hooks of `clip_range`.
        copy = self.rebuilt_for(self.spec)
        memo[id(self)] = copy
        return copy

    def rebuilt_for(self, spec: EnvSpec) -> MettaAgent:
        """A copy with the same weights that acts in a world of `spec`; see `metta.agent.remap.remap`."""
        copy = MettaAgent(
            spec, self.config, trained_on=self.trained_on, generator=torch.Generator(), path=self.path
        )
        copy.to(self.device, next(self.parameters()).dtype).load_state_dict(self.state_dict())
        return copy.train(self.training)

    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Draw all weights anew and make them the reference of `l2_init_loss`."""
        parts = (self.graph, self.core) if self.graph is not None else (self.encoder, self.core)
        for part in parts:
            if part is not None:
                part.init_weights(generator)
        if self.graph is None:
            self.action_head.init_weights(generator)
            self.value_head.init_weights(generator)
        self.update_reference()

    def outer_parameters(self) -> Iterator[nn.Parameter]:
        """The weights of the first layers, which read the observation, and of the last, which give the outputs."""
        if self.graph is not None:
            yield from self.graph.outer_parameters()
            return
        yield from self.encoder.tokens.parameters()
        for head in (self.action_head, self.value_head):
            yield from head.layers[-1].parameters()

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.reference.device

    def initial_state(self, batch_size: int) -> PolicyState:
        """The memory of `batch_size` rows at the first tick of an episode: zeros."""
        weight = next(self.parameters())
        num_layers = 0 if self.core is None else self.core.num_layers
        return PolicyState.zeros(num_layers, batch_size, self._state_width, weight.device, weight.dtype)

    @torch.no_grad()
    def act(
        self,
        obs: torch.Tensor,
        state: PolicyState,
        starts: torch.Tensor | None = None,
        *,
        deterministic: bool = False,
        generator: torch.Generator | None = None,
    ) -> ActOutput:
        """Choose an action for each row.

        Args:
            obs: uint8 `[B, K, 3]`.
            state: memory before this observation; not changed.
            starts: bool `[B]`, rows whose observation is the first of an episode: their memory is zeroed
                first.
            deterministic: take the most probable action instead of drawing one.
            generator: source of randomness on the agent's device; None = torch's own.

        Raises:
            ValueError: shapes or dtypes are not these.
        """
        self._check(obs, 3, state)
        if starts is not None:
            state = state.zeroed(starts)
        tick = of_weights(self, self._prepared)
        logprobs, values, state = self._once(tick, obs, state)
        pairs = self.action_table.pairs if self.translation is None else self.translation.pairs
        if tick is not None and not deterministic:
            return ActOutput(*draw(logprobs, pairs, generator), values, state)
        index = logprobs.argmax(-1) if deterministic else sample(logprobs, generator)
        chosen = logprobs.gather(-1, index.unsqueeze(-1)).squeeze(-1)
        return ActOutput(pairs[index], chosen, values, state)

    @torch.no_grad()
    def value(self, obs: torch.Tensor, state: PolicyState) -> torch.Tensor:
        """Expected discounted return from `obs` on.

        Args:
            obs: uint8 `[B, K, 3]`.
            state: memory before this observation; not changed.

        Returns:
            float32 `[B]`.

        Raises:
            ValueError: shapes or dtypes are not these.
        """
        self._check(obs, 3, state)
        return self._once(of_weights(self, self._prepared), obs, state)[1]

    def evaluate(
        self, obs: torch.Tensor, start_state: PolicyState, dones: torch.Tensor, actions: torch.Tensor
    ) -> EvalOutput:
        """Judge recorded segments with the current weights.

        Args:
            obs: uint8 `[B, T, K, 3]`.
            start_state: memory before `obs[:, 0]`, zero where an episode begins there.
            dones: bool `[B, T]`; an episode ended AT that tick, so the memory is zeroed before the next.
            actions: integer `[B, T, 2]`, what was done.

        Raises:
            ValueError: shapes or dtypes are not these, or an action is not legal.
        """
        self._check(obs, 4, start_state)
        for name, tensor, shape in (
            ("dones", dones, obs.shape[:2]),
            ("actions", actions, (*obs.shape[:2], 2)),
        ):
            if tensor.shape != shape:
                raise ValueError(
                    f"{name} is of shape {list(tensor.shape)}, but obs {list(obs.shape)} goes with {list(shape)}: "
                    "pass the same rows and ticks."
                )
        index = self.action_table.index(actions).t()
        resets = torch.cat([torch.zeros_like(dones[:, :1]), dones[:, :-1]], 1).t().contiguous()
        logprobs, values, state = self._forward(
            obs.transpose(0, 1), start_state, resets, self.config.bptt_horizon
        )
        if self.translation is not None:
            logprobs = self.translation.in_world_order(logprobs)
        chosen = logprobs.gather(-1, index.unsqueeze(-1)).squeeze(-1)
        return EvalOutput(
            logprobs=chosen.t(),
            entropies=entropy(logprobs).t(),
            values=values.t(),
            state=state.zeroed(dones[:, -1]),
            all_logprobs=logprobs.transpose(0, 1),
        )

    def forward(
        self, obs: torch.Tensor, start_state: PolicyState, dones: torch.Tensor, actions: torch.Tensor
    ) -> EvalOutput:
        """`evaluate`, under the name that wrappers of modules call."""
        return self.evaluate(obs, start_state, dones, actions)

    def l2_reg_loss(self) -> torch.Tensor:
        """Mean squared weight, a scalar with its graph."""
        return flatten(self.parameters()).square().mean()

    def l2_init_loss(self) -> torch.Tensor:
        """Mean squared distance of the weights to their reference, a scalar with its graph.

        Kumar et al. (2023) pull towards the initial weights to keep a network able to learn. The reference
        is those, or later ones by `l2_init_weight_update_interval`.
        """
        return (flatten(self.parameters()) - self.reference).square().mean()

    @torch.no_grad()
    def update_reference(self) -> None:
        """Make the current weights the reference of `l2_init_loss`."""
        self.reference.copy_(flatten(self.parameters()))

    def after_update(self, update_index: int) -> dict[str, float]:
        """Do what is due after some updates of the weights; the trainer calls it after each.

        Args:
            update_index: updates done so far, 1 after the first.

        Returns:
            Weight statistics (`weight_statistics`) every `analyze_weights_interval` updates, else nothing.
        """
        stats: dict[str, float] = {}
        config = self.config
        if config.weight_clip:
            with torch.no_grad():
                for parameter in self.parameters():
                    if parameter.ndim > 1:
                        parameter.clamp_(-config.weight_clip, config.weight_clip)
        if config.analyze_weights_interval and update_index % config.analyze_weights_interval == 0:
            stats = weight_statistics(dict(self.named_parameters()), self.reference, self._last_features)
        if (
            config.l2_init_weight_update_interval
            and update_index % config.l2_init_weight_update_interval == 0
        ):
            self.update_reference()
        return stats

    def _remember(
        self, obs: torch.Tensor, state: PolicyState, resets: torch.Tensor | None = None, horizon: int = 0
    ) -> tuple[torch.Tensor, PolicyState, torch.Tensor]:
        """Of a standard network: what the core gives, `[T, B, hidden]`, the state after it, and what it reads."""
        features: torch.Tensor = self.encoder(self._rows(obs))
        features = features.view(*obs.shape[:2], -1)
        if self.core is None:
            return features, state, features
        out, state = self.core(features, state, resets, horizon, half=self.config.dtypes_fp16)
        return out, state, features

    def _run_graph(
        self,
        graph: ComponentGraph,
        obs: torch.Tensor,
        state: PolicyState,
        resets: torch.Tensor | None,
        horizon: int,
    ) -> tuple[torch.Tensor, torch.Tensor, PolicyState, torch.Tensor | None]:
        """Logits `[T, B, choices]`, values `[T, B]`, the state after the last tick, and what the core reads."""
        shape = obs.shape[:2]

        def recur(features: torch.Tensor) -> torch.Tensor:
            nonlocal state
            assert self.core is not None
            ticks = features.view(*shape, -1)
            out: torch.Tensor
            out, state = self.core(ticks, state, resets, horizon, half=self.config.dtypes_fp16)
            return out.flatten(0, 1)

        logits, values, features = graph(self._rows(obs), recur)
        if features is not None:
            features = features.view(*shape, -1)
        return logits.view(*shape, -1), values.view(*shape), state, features

    def _rows(self, obs: torch.Tensor) -> torch.Tensor:
        """Observations `[T, B, K, 3]` as the network reads them, `[T * B, K, 3]`."""
        rows = obs.reshape(-1, *obs.shape[2:])
        if self.translation is not None:
            rows = self.translation(rows)
        return rows

    def _forward(
        self, obs: torch.Tensor, state: PolicyState, resets: torch.Tensor | None = None, horizon: int = 0
    ) -> tuple[torch.Tensor, torch.Tensor, PolicyState]:
        """Log probabilities `[T, B, choices]`, values `[T, B]` and the state after the last tick."""
        parts = [slice(0, obs.shape[1])]
        parameters: list[torch.Tensor] = []
        if torch.is_grad_enabled():
            parts = row_parts(self.path, self.reference, obs.shape[1], obs.shape[0] * obs.shape[1])
        if len(parts) > 1:
            parameters = [p for p in self.parameters() if p.requires_grad]
            # A hook (`clip_range` is one, a caller may have others) must see the whole gradient, and a state with a graph is
            # no parameter.
            hooked = any(p._backward_hooks for p in parameters)
            if hooked or state.h.requires_grad or state.c.requires_grad or not parameters:
                parts = [slice(0, obs.shape[1])]

        def compute(rows: slice) -> tuple[torch.Tensor, ...]:
            some = None if resets is None else resets[:, rows].contiguous()
            return self._compute(obs[:, rows], state.index(rows), some, horizon)

        if compilation_wanted():
            results = self._compiled(self._compute, self.path, obs, state, resets, horizon)
        else:
            results = by_rows(self._threads, compute, parts, (1, 1, 1, 1, 1), parameters)
        logprobs, values, h, c, features = results
        if torch.is_grad_enabled():
            self._last_features = features if features.shape[-1] else None
        return logprobs, values, PolicyState(h, c)

    def _prepared(self) -> Tick | None:
        """One tick of the network for acting; None where only the layers themselves can do it."""
        if not use_fast(self.path, self.reference) or is_watched(self):
            return None
        half = self.config.dtypes_fp16
        core = None if self.core is None else self.core.prepared(half=half)

        def recur(features: torch.Tensor, before: PolicyState, after: PolicyState) -> torch.Tensor:
            return features if core is None else core(features, before, after)

        if self.graph is not None:
            graph = self.graph.prepared(half=half)
            return lambda obs, before, after: graph(obs, lambda features: recur(features, before, after))
        encode, act, judge = (
            part.prepared(half=half) for part in (self.encoder, self.action_head, self.value_head)
        )

        def tick(
            obs: torch.Tensor, before: PolicyState, after: PolicyState
        ) -> tuple[torch.Tensor, torch.Tensor]:
            x = recur(encode(obs), before, after)
            return act(x), judge(x).squeeze(-1)

        return tick

    def _once(
        self, tick: Tick | None, obs: torch.Tensor, state: PolicyState
    ) -> tuple[torch.Tensor, torch.Tensor, PolicyState]:
        """Log probabilities `[B, choices]`, values `[B]` and the state after one tick."""
        if tick is None:
            logprobs, values, state = self._forward(obs.unsqueeze(0), state)
            return logprobs[0], values[0], state
        before = PolicyState(state.h.contiguous(), state.c.contiguous())
        after = PolicyState(torch.empty_like(before.h), torch.empty_like(before.c))
        num_rows, num_choices = len(obs), len(self.trained_on.legal_actions)
        logprobs, values = before.h.new_empty(num_rows, num_choices), before.h.new_empty(num_rows)

        inference = torch.is_inference_mode_enabled()

        def compute(rows: slice) -> None:
            with torch.inference_mode(inference), torch.no_grad():  # a thread of its own has modes of its own
                seen = self._rows(obs[rows].unsqueeze(0))
                logits, values[rows] = tick(seen, before.index(rows), after.index(rows))
                logprobs[rows] = self._logprobs(logits.to(logprobs.dtype), obs[rows])

        # Against a row that is trained on it is a third of the work, and products in bfloat16 take a quarter of the time.
        ease = 12 if self.config.dtypes_fp16 else 3
        parts = row_parts(self.path, self.reference, num_rows, num_rows // ease)
        if len(parts) == 1:
            compute(parts[0])
        else:
            self._threads.run([functools.partial(compute, rows) for rows in parts])
        return logprobs, values, after

    def _compute(
        self, obs: torch.Tensor, state: PolicyState, resets: torch.Tensor | None, horizon: int
    ) -> tuple[torch.Tensor, ...]:
        """What `_forward` gives, the state as two tensors, and `[T, B, width]`: what enters the core, of width 0 if unknown."""
        features: torch.Tensor | None
        with self._precision():
            if self.graph is not None:
                logits, values, state, features = self._run_graph(self.graph, obs, state, resets, horizon)
            else:
                x, state, features = self._remember(obs, state, resets, horizon)
                logits, values = self.action_head(x), self.value_head(x).squeeze(-1)
        if features is None:
            features = logits.new_empty(*obs.shape[:2], 0)
        dtype = state.h.dtype
        logprobs = self._logprobs(logits.to(dtype), obs)
        return logprobs, values.to(dtype), state.h, state.c, features.detach()

    def _logprobs(self, logits: torch.Tensor, obs: torch.Tensor) -> torch.Tensor:
        """Normalised over what is possible and, by the world's own observations `[..., K, 3]`, allowed."""
        if self.translation is not None:
            logits = self.translation.only_possible(logits)
        if self.legality is not None:
            allowed = self.legality(obs.reshape(-1, *obs.shape[-2:]), self.reference).view(
                *obs.shape[:-2], -1
            )
            if self.translation is not None:
                allowed = self.translation.in_known_order(allowed)
            logits = logits.masked_fill(~allowed, NEVER)
        return torch.log_softmax(logits, -1)

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        if self.config.dtypes_fp16:
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return contextlib.nullcontext()

    def _check(self, obs: torch.Tensor, ndim: int, state: PolicyState) -> None:
        if obs.dtype != torch.uint8 or obs.ndim != ndim or obs.shape[-1] != 3:
            shape = "[B, K, 3]" if ndim == 3 else "[B, T, K, 3]"
            raise ValueError(
                f"obs is {obs.dtype} of shape {list(obs.shape)}, but this agent reads observation tokens, "
                f"torch.uint8 {shape}: pass what the environment's observation buffer holds."
            )
        if state.batch_size != obs.shape[0]:
            raise ValueError(
                f"state holds {state.batch_size} rows of memory but obs has {obs.shape[0]}: "
                "pass the state of the same rows, at first agent.initial_state(rows)."
            )
