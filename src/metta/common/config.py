"""The base of every configuration class."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """A configuration value: typed, frozen, compared by its fields, unknown fields refused.

    Change one by copying: `config.model_copy(update={"name": value})` keeps the rest but does not validate;
    constructing anew validates. `model_dump_json` and `model_validate_json` carry it to disk and back.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)
