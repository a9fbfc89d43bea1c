"""The network that an `AgentGraphConfig` describes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn

from metta.agent.acting import Layer, prepare_layer
from metta.agent.facing import TurnToFacing
from metta.agent.graph_config import (
    ACTION,
    VALUE,
    ActivationConfig,
    AgentGraphConfig,
    ComponentConfig,
    Conv2dConfig,
    LinearConfig,
    LSTMConfig,
    Nonlinearity,
    ObservationNormalizerConfig,
    ObsTokenToBoxShaperConfig,
    TokenPlanesConfig,
    label,
)
from metta.agent.graph_layers import (
    GAINS,
    NONLINEARITIES,
    Planes,
    Shape,
    flat_size,
    in_words,
    make_layer,
    make_token_convolution,
)
from metta.agent.heads import POLICY_GAIN
from metta.agent.paths import ComputePath
from metta.agent.tokens import PlaneTable, TokenLayer, Window, make_box_table, make_plane_table
from metta.mettagrid.spec import EnvSpec

TOKENS = "observation tokens"
"""The observation among the inputs of a step; no component can be called so."""


@dataclass(frozen=True)
class Step:
    """One component's turn.

    Attributes:
        name: of the component.
        inputs: names of what it takes: components, or `TOKENS`.
        nonlinearity: applied to what its module gives.
    """

    name: str
    inputs: tuple[str, ...]
    nonlinearity: Nonlinearity | None = None


class ComponentGraph(nn.Module):
    """Every component but the recurrent core, which its owner runs.

    Args:
        spec: the world as agents see it.
        config: the components.
        num_actions: legal actions: the logits that `_action_` has to give.
        path: how token layers compute.

    Attributes:
        components: the modules by component.
        steps: the order of computation.
        core: name of the recurrent component; None without one.
        num_core_inputs: width of what the core reads; 0 without one.
        core_source: name of what the core reads, if a ReLU makes it; else None.

    Raises:
        ValueError: sizes do not fit, the graph sees nothing of this world, or a name cannot be a module's.
    """

    def __init__(
        self, spec: EnvSpec, config: AgentGraphConfig, num_actions: int, path: ComputePath = "auto"
    ) -> None:
        super().__init__()
        self.components = nn.ModuleDict()
        self.steps: list[Step] = []
        self.core: str | None = None
        self.num_core_inputs = 0
        self.core_source: str | None = None
        builder = _Builder(self, spec, config, num_actions, path)
        shapes: dict[str, Shape] = {}
        for name in config.order:
            component = config.components[name]
            shapes[name] = builder.add(name, component, [shapes[source] for source in component.sources])
        for name, shape in ((VALUE, (1,)), (ACTION, (num_actions,))):
            if shapes[name] != shape:
                wanted = (
                    "one value" if name == VALUE else f"a logit for each of the {num_actions} legal actions"
                )
                raise ValueError(
                    f"{label(name, config.components[name])} gives {in_words(shapes[name])} numbers, but it has to give "
                    f"{wanted}; make it a Linear without out_features, which follows by itself."
                )

    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Orthogonal layers with the gain of their nonlinearity, token layers by their own rule, biases 0."""
        for step in self.steps:
            if step.name == self.core:
                continue
            layer = self.components[step.name]
            if isinstance(layer, TokenLayer):
                layer.init_weights(generator)
            elif isinstance(layer, nn.Linear | nn.Conv2d):
                gain = POLICY_GAIN if step.name == ACTION else GAINS.get(step.nonlinearity, 1.0)
                nn.init.orthogonal_(layer.weight, gain, generator=generator)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
            elif isinstance(layer, nn.LayerNorm):
                layer.reset_parameters()

    def forward(
        self, tokens: torch.Tensor, recur: Callable[[torch.Tensor], torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Run the graph.

        Args:
            tokens: uint8 `[N, K, 3]`.
            recur: the recurrent core, `[N, inputs]` to `[N, hidden]`; not called where the graph has none.

        Returns:
            Logits `[N, legal]`, values `[N]`, and what enters the core, `[N, inputs]`, if a ReLU made that.
        """
        results = {TOKENS: tokens}
        for step in self.steps:
            inputs = [results[name] for name in step.inputs]
            out = recur(*inputs) if step.name == self.core else self.components[step.name](*inputs)
            results[step.name] = out if step.nonlinearity is None else NONLINEARITIES[step.nonlinearity](out)
        features = None if self.core_source is None else results[self.core_source]
        return results[ACTION], results[VALUE].squeeze(-1), features

    def prepared(self, *, half: bool) -> Callable[[torch.Tensor, Layer], tuple[torch.Tensor, torch.Tensor]]:
        """`forward` for acting, without what enters the core; see `metta.agent.acting`."""
        layers = {}
        for step in self.steps:
            if step.name != self.core:
                follows = None if step.nonlinearity is None else NONLINEARITIES[step.nonlinearity]
                layers[step.name] = prepare_layer(self.components[step.name], half=half, nonlinearity=follows)

        def apply(tokens: torch.Tensor, recur: Layer) -> tuple[torch.Tensor, torch.Tensor]:
            results = {TOKENS: tokens}
            for step in self.steps:
                layer = layers.get(step.name, recur)
                results[step.name] = layer(*[results[name] for name in step.inputs])
            return results[ACTION], results[VALUE].squeeze(-1)

        return apply

    def outer_parameters(self) -> Iterator[nn.Parameter]:
        """The weights of the first layers, next to the observation, and of the last ones, next to the outputs."""
        inputs = {step.name: step.inputs for step in self.steps}
        outer: dict[str, None] = {}
        unweighted = {TOKENS}
        for name, sources in inputs.items():
            if unweighted.intersection(sources):
                if self._has_weights(name):
                    outer[name] = None
                else:
                    unweighted.add(name)
        waiting = [VALUE, ACTION]
        while waiting:
            name = waiting.pop()
            if self._has_weights(name):
                outer[name] = None
            elif name != self.core:
                waiting += inputs.get(name, ())
        for name in outer:
            yield from self.components[name].parameters()

    def _has_weights(self, name: str) -> bool:
        return name in self.components and any(True for _ in self.components[name].parameters())


class _Builder:
    """Fills a graph, component by component."""

    def __init__(
        self,
        graph: ComponentGraph,
        spec: EnvSpec,
        config: AgentGraphConfig,
        num_actions: int,
        path: ComputePath,
    ) -> None:
        self.graph = graph
        self.spec = spec
        self.config = config
        self.num_outputs = {VALUE: 1, ACTION: num_actions}
        self.path: ComputePath = path
        self.turn = TurnToFacing(spec, active=config.egocentric)
        self.size = (spec.obs_height, spec.obs_width)
        self.tables: dict[str, PlaneTable] = {}

    def add(self, name: str, component: ComponentConfig, sources: list[Shape]) -> Shape:
        """Add a component whose sources give these shapes; returns what it gives."""
        graph, title = self.graph, label(name, component)
        if name in dir(graph.components):
            raise ValueError(f"{title} needs another name: modules of torch use this one themselves.")
        if isinstance(component, TokenPlanesConfig):
            return self._add_planes(name, make_plane_table(self.spec, self.config))
        if isinstance(component, ObsTokenToBoxShaperConfig):
            return self._add_planes(name, make_box_table(self.spec, self.config, normalized=False))
        if isinstance(component, ObservationNormalizerConfig):
            (source,) = component.sources
            if not isinstance(self.config.components[source], ObsTokenToBoxShaperConfig):
                raise ValueError(
                    f"{title} reads {source!r}, but it divides the raw values of an ObsTokenToBoxShaper; "
                    "TokenPlanes are normalised already."
                )
            return self._add_planes(name, make_box_table(self.spec, self.config, normalized=True))
        if isinstance(component, LSTMConfig):
            graph.num_core_inputs = flat_size(title, sources[0], "input_size", component.input_size)
            graph.core = name
            if _is_relu(self.config.components[component.sources[0]]):
                graph.core_source = component.sources[0]
            graph.steps.append(Step(name, component.sources))
            return (component.hidden_size,)
        module: nn.Module
        if isinstance(component, Conv2dConfig) and component.sources[0] in self.tables:
            table = self.tables[component.sources[0]]
            module, shape = make_token_convolution(component, title, table, self.size, self.turn, self.path)
            relu_inside = component.nonlinearity == "ReLU"
            graph.steps.append(Step(name, (TOKENS,), None if relu_inside else component.nonlinearity))
        else:
            if (
                isinstance(component, LinearConfig)
                and component.out_features is None
                and name in self.num_outputs
            ):
                component = component.model_copy(update={"out_features": self.num_outputs[name]})
            module, shape = make_layer(component, title, sources, self.path)
            graph.steps.append(Step(name, component.sources, _nonlinearity(component)))
        graph.components[name] = module
        return shape

    def _add_planes(self, name: str, table: PlaneTable) -> Shape:
        self.tables[name] = table
        # Convolutions read the tokens themselves, and normalisers have planes of their own.
        readers = [component for component in self.config.components.values() if name in component.sources]
        if not all(isinstance(reader, Conv2dConfig | ObservationNormalizerConfig) for reader in readers):
            self.graph.components[name] = Planes(table, Window.whole(*self.size, pooled=False), self.turn)
            self.graph.steps.append(Step(name, (TOKENS,)))
        return (len(table.names), *self.size)


def _nonlinearity(component: ComponentConfig) -> Nonlinearity | None:
    if isinstance(component, LinearConfig | Conv2dConfig):
        return component.nonlinearity
    return component.layer if isinstance(component, ActivationConfig) else None


def _is_relu(component: ComponentConfig) -> bool:
    return _nonlinearity(component) == "ReLU"
