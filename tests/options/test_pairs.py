"""Any two options of training hold together, each still doing its part, or are refused in one sentence."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

import option_training
from metta.rl.trainer_config import TrainerConfig
from option_schema import Refused, Watch
from option_training import FAST, PROBES, trained

PARTS = {name: info.annotation for name, info in TrainerConfig.model_fields.items()}
SAMPLE = 29
"""One in so many of the pairs is run; a prime, so that every option has its turn."""
RATE: dict[str, Any] = {"optimizer": {"learning_rate": 0.03}}
"""As in `FAST`, open to other fields of the same part."""
Fields = dict[str, Any]


def options() -> dict[str, tuple[Fields, Fields]]:
    """Every option of training: the fields that it needs besides, and another value of it."""
    found: dict[str, tuple[Fields, Fields]] = {}
    for part, annotation in PARTS.items():
        kind = next((kind for kind in PROBES if kind is annotation), TrainerConfig)
        cases = PROBES[kind].others
        for name, case in cases.items() if kind is not TrainerConfig else [(part, cases.get(part))]:
            if case is None or isinstance(value := case.values[0], Refused) or name == "compile":
                continue
            if kind is TrainerConfig:
                base = dict(case.base)
                found[part] = base, {name: value}
            else:
                base = {**RATE.get(part, {}), **PROBES[kind].base, **case.base}
                found[f"{part}.{name}"] = {part: base}, {part: {name: value}}
    return found


def together(*parts: Fields) -> TrainerConfig | None:
    """The configuration of several parts, or None where it is refused, in one sentence."""
    fields: Fields = {**FAST, "optimizer": RATE["optimizer"]}
    for name, value in itertools.chain.from_iterable(part.items() for part in parts):
        known = fields.get(name)
        fields[name] = {**known, **value} if isinstance(known, dict) and isinstance(value, dict) else value
    try:
        return TrainerConfig(**fields)
    except ValidationError as error:
        for complaint in error.errors():
            assert complaint["msg"].endswith(".")
            assert "\n" not in complaint["msg"]
        return None


OPTIONS = options()
PAIRS = list(itertools.combinations(OPTIONS, 2))


@pytest.fixture(scope="module")
def watch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watch]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("pairs"))
        option_training.save_teachers()
        yield Watch()


def test_every_pair_is_made_or_refused() -> None:
    refused = []
    for one, other in PAIRS:
        bases, values = zip(OPTIONS[one], OPTIONS[other], strict=True)
        if together(*bases, *values) is None:
            refused.append((one, other))
    assert refused == [
        ("anneal_lr", "lr_schedule"),
        ("anneal_lr", "warmup_steps"),
        ("ppo.vf_clip_coef", "ppo.clip_vloss"),
    ]


@pytest.mark.parametrize("pair", PAIRS[::SAMPLE], ids=" and ".join)
def test_neither_of_two_options_silences_the_other(pair: tuple[str, str], watch: Watch) -> None:
    bases, (one, other) = zip(*(OPTIONS[name] for name in pair), strict=True)
    both = together(*bases, one, other)
    if both is None:
        return
    told = watch.look(trained, both)
    for name, without in zip(pair, (together(*bases, other), together(*bases, one)), strict=True):
        assert without is not None
        assert told != watch.look(trained, without), f"{name} does nothing any more"
