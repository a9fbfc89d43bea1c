"""Every option changes something: read from the schema, so that a new dead one fails the suite."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, Literal

import pytest
from pydantic import Field

import option_agents
import option_runs
import option_training
import option_worlds
from metta.common.config import Config
from metta.rl.trainer_config import CheckpointConfig, KickstartConfig, PPOConfig, VTraceConfig
from option_schema import Kind, Probe, Refused, Watch, check, complaints, config_classes, options, other

KINDS = config_classes()
PROBES = option_worlds.PROBES | option_agents.PROBES | option_training.PROBES | option_runs.PROBES


@pytest.fixture(scope="module")
def watch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watch]:
    """Remembers over all tests; the current folder is one that holds the teachers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("options"))
        option_training.save_teachers()
        option_runs.register()
        yield Watch()


def test_every_option_has_a_probe_and_every_probe_an_option() -> None:
    said = complaints(PROBES, KINDS)
    assert not said, "\n".join(said)


@pytest.mark.parametrize(
    ("kind", "name"),
    [pytest.param(kind, name, id=f"{kind.__name__}.{name}") for kind, name in options(KINDS)],
)
def test_the_option_changes_something(kind: Kind, name: str, watch: Watch) -> None:
    assert kind in PROBES, f"{kind.__name__} has no probes: add them to tests/options."
    check(kind, name, PROBES[kind], watch)


# --- the gate itself ---------------------------------------------------------------------------------------------


class Alive(Config):
    """Two options and, as the discriminator of a union, none."""

    kind: Literal["alive"] = "alive"
    size: int = 1
    shape: Literal["round", "square"] | None = "round"


class Nest(Config):
    """Holds another class in a union inside a list."""

    inside: list[Alive | int] = Field(default_factory=list)


SIZE_AND_SHAPE = Probe(
    (lambda config: [config.size, config.shape],), {"size": other(2), "shape": other("square", None)}
)
NESTED = Probe((lambda config: len(config.inside),), {"inside": other([3])})


def test_the_schema_is_walked_to_its_leaves() -> None:
    kinds = config_classes(SimpleNamespace(Nest=Nest, text="no class"))
    assert kinds == [Alive, Nest]
    assert options(kinds) == [(Alive, "size"), (Alive, "shape"), (Nest, "inside")]
    assert complaints({Alive: SIZE_AND_SHAPE, Nest: NESTED}, kinds) == []
    for name in SIZE_AND_SHAPE.others:
        check(Alive, name, SIZE_AND_SHAPE, Watch())


def test_an_option_without_a_probe_and_a_probe_without_an_option_are_told() -> None:
    lacking = replace(SIZE_AND_SHAPE, others={"size": other(2), "colour": other(1)})
    said = complaints({Alive: lacking}, [Alive, Nest])
    assert [text.split(":")[0] for text in said] == [
        "Alive.shape has no probe",
        "Nest.inside has no probe",
        "Alive.colour is probed but is no option (any more)",
    ]


CLOCK = itertools.count()


def never_the_same(config: Alive) -> int:
    """As if the clock decided."""
    return next(CLOCK)


@pytest.mark.parametrize(
    ("name", "probe", "sentence"),
    [
        (
            "size",
            replace(SIZE_AND_SHAPE, sees=(lambda config: config.shape,)),
            "Alive.size = 2 changes nothing",
        ),
        ("size", replace(SIZE_AND_SHAPE, sees=(never_the_same,)), "the same twice is not the same"),
        ("size", replace(SIZE_AND_SHAPE, others={"size": other(2, 2)}), "Alive.size = 2 changes nothing"),
        ("shape", replace(SIZE_AND_SHAPE, others={"shape": other("square")}), "can also be {None}"),
        ("shape", replace(SIZE_AND_SHAPE, others={"shape": other(None)}), "can also be {'square'}"),
        ("size", replace(SIZE_AND_SHAPE, others={"size": other(Refused(2, "too large"))}), "DID NOT RAISE"),
    ],
)
def test_a_dead_option_and_a_probe_that_shows_nothing_fail(name: str, probe: Probe, sentence: str) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception), match=re.escape(sentence)):
        check(Alive, name, probe, Watch())


PLANTED: dict[str, tuple[Kind, str, str, Callable[..., Any]]] = {
    "target_kl": (PPOConfig, "target_kl", "metta.rl.losses.Losses.exceeds", lambda *a: False),
    "l2_reg": (
        PPOConfig,
        "l2_reg_loss_coef",
        "metta.agent.metta_agent.MettaAgent.l2_reg_loss",
        lambda a: a.reference.sum() * 0,
    ),
    "vtrace": (
        VTraceConfig,
        "vtrace_rho_clip",
        "metta.rl.losses.vtrace_advantages",
        lambda minibatch, *a: minibatch.advantages,
    ),
    "fade": (KickstartConfig, "anneal_ratio", "metta.rl.kickstarter.Kickstarter.coefficient", lambda *a: 1.0),
    "due": (CheckpointConfig, "checkpoint_interval", "metta.rl.checkpoint.due", lambda *a: False),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_an_option_that_dies_in_the_library_fails(
    fault: str, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, name, place, dead = PLANTED[fault]
    monkeypatch.setattr(place, dead)
    with pytest.raises(AssertionError, match=f"{kind.__name__}.{name} = .* changes nothing"):
        check(kind, name, PROBES[kind], Watch())
