"""Weights & Biases: live where an API key is configured, else offline in the run's folder."""

from __future__ import annotations

import json
import logging
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from metta.common.files import StrPath, atomic_write_json
from metta.tracking.tracker import Tracker, Trackers

logger = logging.getLogger(__name__)

WandbMode = Literal["online", "offline", "disabled"]

ID_FILE = "wandb_run.json"
"""Where a run's folder keeps the run's id, so that a run that goes on is the same run there."""

STEP = "agent_step"
"""The metric that the others are drawn against. Steps of wandb's own cannot go back, as a resumed run's may."""


class WandbTracker:
    """A run at Weights & Biases. Made by `initialize_wandb`.

    Args:
        run: what `wandb.init` returned.
    """

    def __init__(self, run: Any) -> None:
        self._run: Any = run
        run.define_metric(STEP)
        run.define_metric("*", step_metric=STEP)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Send a point of each metric."""
        self._run.log({STEP: step, **{name: float(value) for name, value in metrics.items()}})

    def log_policy(self, path: StrPath, metadata: Mapping[str, Any]) -> None:
        """Send a saved policy as the next version of the run's artifact `policy-RUN_ID`."""
        import wandb

        artifact = wandb.Artifact(f"policy-{self._run.id}", type="model", metadata=dict(metadata))
        artifact.add_file(str(path))
        self._run.log_artifact(artifact)

    def close(self) -> None:
        """Finish the run; more than once does no harm."""
        if self._run is not None:
            run, self._run = self._run, None
            run.finish()


def initialize_wandb(
    project: str = "metta",
    run_name: str | None = None,
    run_dir: StrPath = ".",
    config: Mapping[str, Any] | None = None,
    *,
    enabled: bool = True,
    mode: WandbMode | None = None,
) -> Trackers:
    """Begin tracking a run at Weights & Biases, or go on with it. Nothing that goes wrong there stops the run.

    Args:
        project: project at Weights & Biases.
        run_name: what the run is called there; None: a name that it makes up.
        run_dir: the run's folder. wandb's files go into `run_dir/wandb`, and the run's id into `run_dir/wandb_run.json`: a later
            call with the same folder goes on with the same run.
        config: settings to show with the run; anything JSON can hold.
        enabled: False: track nothing (for instance in all processes of a distributed run but the first).
        mode: None: as `WANDB_MODE` says, else online if an API key is configured, else offline, without asking for one and
            without a word over the network. What was tracked offline is sent later with `wandb sync`.

    Returns:
        The tracker, for `log` and `cleanup_wandb`. An empty one where tracking is not enabled, wandb is not installed or cannot
        begin; a warning in the log then says why.
    """
    if not enabled:
        return Trackers()
    try:
        return _begin(project, run_name, Path(run_dir), config, mode)
    except ImportError:
        logger.warning("wandb is not installed, so nothing is sent there; say pip install 'metta[tracking]'.")
        return Trackers()
    except Exception as error:
        logger.warning("wandb cannot begin, the run goes on without it: %s: %s", type(error).__name__, error)
        return Trackers()


def cleanup_wandb(tracker: Tracker | None) -> None:
    """Finish what `initialize_wandb` began; more than once, or with None, does no harm.

    Args:
        tracker: what `initialize_wandb` returned.
    """
    if tracker is not None:
        tracker.close()


def _begin(
    project: str,
    run_name: str | None,
    run_dir: Path,
    config: Mapping[str, Any] | None,
    mode: WandbMode | None,
) -> Trackers:
    import wandb

    chosen = mode or _configured_mode(wandb)
    if chosen == "disabled":
        return Trackers()
    if chosen == "offline":
        # wandb's own crash reports would look up a host; there is no other way to do without them.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    run = wandb.init(
        project=project,
        name=run_name,
        dir=str(run_dir),
        config=dict(config or {}),
        id=_run_id(run_dir / ID_FILE),
        # Offline there is nobody to ask; the same id puts the parts together when they are sent.
        resume="allow" if chosen == "online" else None,
        mode=chosen,
        # The terminal belongs to the run's own display.
        settings=wandb.Settings(console="off"),
        reinit="finish_previous",
    )
    return Trackers([WandbTracker(run)])


def _configured_mode(wandb: Any) -> WandbMode:
    """What `WANDB_MODE` and wandb's settings files say, but never online without an API key."""
    configured = wandb.setup().settings.mode
    if configured == "disabled":
        return "disabled"
    if configured not in ("online", "run"):
        return "offline"
    return "online" if wandb.login(prompt=False, verify=False) else "offline"


def _run_id(path: Path) -> str:
    """The id of the folder's run; made up and kept the first time."""
    if path.exists():
        try:
            return str(json.loads(path.read_bytes())["id"])
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{path} holds no run id; remove it to begin another run there.") from None
    run_id = secrets.token_hex(4)
    atomic_write_json(path, {"id": run_id})
    return run_id
