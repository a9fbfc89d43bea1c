"""The base of every configuration class."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """A configuration value: typed, frozen, compared by its fields, unknown fields refused.

    Change one by copying: `config.model_copy(update={"name": value})` keeps the rest but does not validate;
    constructing anew validates. `model_dump_json` and `model_validate_json` carry it to disk and back.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    def refuse_idle(self, names: Iterable[str], why: str) -> None:
        """Refuse values that could never matter. Defaults always may stand there, so that a dump can be read again.

        Args:
            names: fields that must be left at their defaults.
            why: the first half of the sentence, up to the comma.

        Raises:
            ValueError: a field has another value.
        """
        for name in names:
            value = getattr(self, name)
            default = type(self).model_fields[name].get_default(call_default_factory=True)
            if value != default:
                raise ValueError(f"{why}, so {name}={value!r} would change nothing: leave it at {default!r}.")
