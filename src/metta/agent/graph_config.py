"""A network as a graph of named components: the typed form of the customary YAML.

Every component has a `layer`, its `sources` (names of other components) and the sizes that its sources do not
tell. `_value_` and `_action_` are the outputs. A layer is known by its name alone; nothing is imported by name.
"""

from __future__ import annotations

import graphlib
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from metta.agent.config import AgentSettings
from metta.agent.naming import close_first, refusal
from metta.common.config import Config

VALUE = "_value_"
"""Name of the component that gives the expected return."""

ACTION = "_action_"
"""Name of the component that gives one logit per legal action."""

Nonlinearity = Literal["ReLU", "Tanh", "Sigmoid", "GELU", "SiLU", "ELU"]
Size = Annotated[int, Field(ge=1)]


class ComponentConfig(Config):
    """What every component has.

    Attributes:
        layer: name of its layer, one of `LAYERS`.
        sources: the components that it reads, in order.
    """

    layer: str
    sources: tuple[str, ...] = ()
    source_range: ClassVar[tuple[int, int | None]] = (1, 1)
    """Fewest and most sources."""


class TokenPlanesConfig(ComponentConfig):
    """The observation as planes `[planes, height, width]`, as the standard agent sees it.

    Names (kinds, groups, directions, actions) have a plane each, counts a normalised plane and buckets. A
    `Conv2d` directly over it is computed as a sum over tokens, without drawing planes.
    """

    layer: Literal["TokenPlanes"] = "TokenPlanes"
    source_range: ClassVar[tuple[int, int | None]] = (0, 0)


class ObsTokenToBoxShaperConfig(ComponentConfig):
    """The observation as one plane per feature, `[features, height, width]`, holding its raw value."""

    layer: Literal["ObsTokenToBoxShaper"] = "ObsTokenToBoxShaper"
    source_range: ClassVar[tuple[int, int | None]] = (0, 0)


class ObservationNormalizerConfig(ComponentConfig):
    """The planes of an `ObsTokenToBoxShaper`, each divided by its feature's normalisation."""

    layer: Literal["ObservationNormalizer"] = "ObservationNormalizer"


class Conv2dConfig(ComponentConfig):
    """A convolution: `[in_channels, height, width]` to `[out_channels, positions, positions]`.

    Attributes:
        out_channels: channels that it gives.
        kernel_size: rows and columns of the kernel, or one number for both.
        stride: step of the kernel.
        padding: empty cells on every side.
        in_channels: follows from the source; stated, it is checked.
        nonlinearity: applied to the result; None = not any.
    """

    layer: Literal["Conv2d"] = "Conv2d"
    out_channels: Size
    kernel_size: Size | tuple[Size, Size]
    stride: Size = 1
    padding: int = Field(default=0, ge=0)
    in_channels: Size | None = None
    nonlinearity: Nonlinearity | None = "ReLU"


class LinearConfig(ComponentConfig):
    """A linear layer: `[in_features]` to `[out_features]`.

    Attributes:
        out_features: numbers that it gives; follows by itself in `_value_` and `_action_`.
        in_features: follows from the source; stated, it is checked.
        nonlinearity: applied to the result; None = not any, as in `_value_` and `_action_` unless stated.
    """

    layer: Literal["Linear"] = "Linear"
    out_features: Size | None = None
    in_features: Size | None = None
    nonlinearity: Nonlinearity | None = "ReLU"


class FlattenConfig(ComponentConfig):
    """All numbers of its source in one row, channels first."""

    layer: Literal["Flatten"] = "Flatten"


class LayerNormConfig(ComponentConfig):
    """Layer normalisation (Ba et al. 2016) over all numbers of its source, with a gain and a bias for each."""

    layer: Literal["LayerNorm"] = "LayerNorm"


class ActivationConfig(ComponentConfig):
    """A nonlinearity as a component of its own."""

    layer: Nonlinearity


class ConcatConfig(ComponentConfig):
    """Its sources one behind the other, along features or channels."""

    layer: Literal["Concat"] = "Concat"
    source_range: ClassVar[tuple[int, int | None]] = (2, None)


class AddConfig(ComponentConfig):
    """The sum of its sources, which have one shape."""

    layer: Literal["Add"] = "Add"
    source_range: ClassVar[tuple[int, int | None]] = (2, None)


class LSTMConfig(ComponentConfig):
    """The recurrent core; a graph has at most one.

    Attributes:
        hidden_size: width of the state and of the output.
        num_layers: stacked layers.
        input_size: follows from the source; stated, it is checked.
    """

    layer: Literal["LSTM"] = "LSTM"
    hidden_size: Size
    num_layers: Size = 1
    input_size: Size | None = None


Component = Annotated[
    TokenPlanesConfig
    | ObsTokenToBoxShaperConfig
    | ObservationNormalizerConfig
    | Conv2dConfig
    | LinearConfig
    | FlattenConfig
    | LayerNormConfig
    | ActivationConfig
    | ConcatConfig
    | AddConfig
    | LSTMConfig,
    Field(discriminator="layer"),
]

LAYERS: dict[str, type[ComponentConfig]] = {
    "TokenPlanes": TokenPlanesConfig,
    "ObsTokenToBoxShaper": ObsTokenToBoxShaperConfig,
    "ObservationNormalizer": ObservationNormalizerConfig,
    "Conv2d": Conv2dConfig,
    "Linear": LinearConfig,
    "Flatten": FlattenConfig,
    "LayerNorm": LayerNormConfig,
    "ReLU": ActivationConfig,
    "Tanh": ActivationConfig,
    "Sigmoid": ActivationConfig,
    "GELU": ActivationConfig,
    "SiLU": ActivationConfig,
    "ELU": ActivationConfig,
    "Concat": ConcatConfig,
    "Add": AddConfig,
    "LSTM": LSTMConfig,
}
"""Every known layer by its name."""


class AgentGraphConfig(AgentSettings):
    """The network of a `MettaAgent`, component by component.

    A component may be given as its class or as a mapping in the customary form: `layer` (or `_target_`, of which
    the last dotted part counts), `sources` as names or as `{"name": ...}`, sizes beside them or in `nn_params`.

    Attributes:
        components: by name, in any order. `_value_` and `_action_` must be there, and every other component must
            lead to one of them.
    """

    components: dict[str, Component]

    @field_validator("components", mode="before")
    @classmethod
    def _read(cls, value: object) -> object:
        if not isinstance(value, Mapping):
            raise ValueError(f"components is {value!r}; it holds the components by name.")
        return {str(name): read_component(str(name), data) for name, data in value.items()}

    @model_validator(mode="after")
    def _whole(self) -> AgentGraphConfig:
        check_graph(self.components)
        if self.core is None:
            self.refuse_idle(("bptt_horizon",), "there is no LSTM among the components")
        return self

    @property
    def order(self) -> tuple[str, ...]:
        """The names, every component behind its sources."""
        graph = {name: component.sources for name, component in self.components.items()}
        return tuple(graphlib.TopologicalSorter(graph).static_order())

    @property
    def core(self) -> LSTMConfig | None:
        """The recurrent component, if there is one."""
        return next((c for c in self.components.values() if isinstance(c, LSTMConfig)), None)


def label(name: str, component: ComponentConfig) -> str:
    """How messages call a component: `component 'fc1' (Linear)`."""
    return f"component {name!r} ({component.layer})"


def read_component(name: str, data: object) -> ComponentConfig:
    """One component in its typed form.

    Args:
        name: its name in the graph.
        data: a component, or a mapping as `AgentGraphConfig` describes it.

    Raises:
        ValueError: the layer or a field is unknown, or a value is not possible.
    """
    if isinstance(data, ComponentConfig):
        unstated = "nonlinearity" not in data.model_fields_set
        if isinstance(data, LinearConfig) and unstated and name in (VALUE, ACTION):
            return data.model_copy(update={"nonlinearity": None})
        return data
    if not isinstance(data, Mapping):
        raise ValueError(
            f"component {name!r} is {data!r}; describe it by a mapping such as "
            "{'layer': 'Linear', 'sources': ['fc1'], 'out_features': 128}."
        )
    fields = {str(key): value for key, value in data.items()}
    layers = {_last_part(fields.pop(key)) for key in ("layer", "_target_") if key in fields}
    known = ", ".join(LAYERS)
    if len(layers) != 1:
        said = f"says both {' and '.join(sorted(layers))}" if layers else "does not say"
        raise ValueError(f"component {name!r} {said} what its layer is; name one of {known}.")
    (layer,) = layers
    if layer not in LAYERS:
        raise ValueError(
            f"component {name!r} has the unknown layer {layer!r}; known are {close_first(layer, LAYERS)}."
        )
    title = f"component {name!r} ({layer})"
    params = fields.pop("nn_params", None) or {}
    if not isinstance(params, Mapping):
        raise ValueError(f"{title}: nn_params is {params!r}; it holds the layer's sizes by name.")
    for key, value in params.items():
        if key in fields:
            raise ValueError(f"{title} has {key} both in nn_params and beside it; state it once.")
        fields[str(key)] = value
    if layer == "LSTM" and "output_size" in fields and "hidden_size" not in fields:
        fields["hidden_size"] = fields.pop("output_size")  # the customary word
    fields["sources"] = _read_sources(title, fields.get("sources"))
    kind = LAYERS[layer]
    possible = [field for field in kind.model_fields if field != "layer"]
    for key in fields:
        if key not in possible:
            raise ValueError(f"{title} has no field {key!r}; its fields are {close_first(key, possible)}.")
    if "nonlinearity" in fields:
        stated = fields["nonlinearity"]
        fields["nonlinearity"] = None if stated is None else _last_part(stated)
    elif kind is LinearConfig and name in (VALUE, ACTION):
        fields["nonlinearity"] = None
    try:
        return kind.model_validate({"layer": layer, **fields})
    except ValidationError as error:
        raise ValueError(f"{title}: {refusal(error)}") from error


def _last_part(name: object) -> str:
    return str(name).rpartition(".")[2]


def _read_sources(title: str, sources: object) -> list[str]:
    if sources is None:
        return []
    if isinstance(sources, str | Mapping):
        sources = [sources]
    names: list[str] = []
    for source in sources if isinstance(sources, Sequence) else [sources]:
        name: Any = source
        if isinstance(source, Mapping) and list(source) == ["name"]:
            name = source["name"]
        if not isinstance(name, str):
            raise ValueError(f"{title} has the source {source!r}; give the name of a component.")
        names.append(name)
    return names


def check_graph(components: Mapping[str, ComponentConfig]) -> None:
    """Refuse what is no network: see `AgentGraphConfig`.

    Raises:
        ValueError: what is wrong, and with which component.
    """
    for output in (VALUE, ACTION):
        if output not in components:
            raise ValueError(
                f"there is no component {output!r}, which gives "
                f"{'the value' if output == VALUE else 'the logits of the actions'}; add it, for instance as a "
                f"Linear; there are {close_first(output, components) or 'none'}."
            )
    for name, component in components.items():
        title = label(name, component)
        if not re.fullmatch(r"\w+", name):
            raise ValueError(f"{title} has a name that is not made of letters, digits and underscores.")
        for source in component.sources:
            if source not in components:
                others = close_first(source, (other for other in components if other != name))
                raise ValueError(f"{title} has the unknown source {source!r}; there are {others}.")
        fewest, most = component.source_range
        count = len(component.sources)
        if count < fewest or (most is not None and count > most):
            needed = {(0, 0): "none: it reads the observation", (1, 1): "exactly one"}
            raise ValueError(
                f"{title} has {count or 'no'} source{'s' * (count != 1)}; it takes "
                f"{needed.get((fewest, fewest if most is None else most), 'two or more')}."
            )
    try:
        graphlib.TopologicalSorter({name: c.sources for name, c in components.items()}).prepare()
    except graphlib.CycleError as error:
        # The order of the cycle is from source to reader.
        raise ValueError(
            f"the sources go in a circle: {' -> '.join(error.args[1])}; only the LSTM's own state goes round."
        ) from error
    cores = [name for name, component in components.items() if isinstance(component, LSTMConfig)]
    if len(cores) > 1:
        raise ValueError(
            f"components {' and '.join(map(repr, cores))} are both LSTMs; an agent has one recurrent core, "
            "which num_layers makes deeper."
        )
    used = {VALUE, ACTION}
    waiting = list(used)
    while waiting:
        for source in components[waiting.pop()].sources:
            if source not in used:
                used.add(source)
                waiting.append(source)
    for name, component in components.items():
        if name not in used:
            raise ValueError(
                f"{label(name, component)} leads to neither {VALUE} nor {ACTION}; make it a source or leave it out."
            )
