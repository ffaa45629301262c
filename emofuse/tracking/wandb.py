"""Log to Weights & Biases: the project `emofuse`, or that of WANDB_PROJECT; offline with WANDB_MODE=offline."""

from __future__ import annotations

import json
import os
from functools import cached_property
from pathlib import Path
from typing import Any

# Errors of wandb itself are not for its makers: they may hold paths and names, and sending them needs a network.
os.environ.setdefault("WANDB_ERROR_REPORTING", "false")

import wandb

from emofuse.errors import TrackingError
from emofuse.tracking.logged import Logged

PROJECT = "emofuse"
_ID_CHARACTERS = 32
_LOGGED = "emofuse-logged.jsonl"
_UPLOAD_S = 300.0
_OFFLINE = {"offline", "dryrun"}


class OpenTracker:
    """A project of Weights & Biases.

    A run's id is its key, so that the project has it once. What was logged where is listed in
    `OUT/wandb/emofuse-logged.jsonl`, because a run that is offline cannot be asked for.

    Raises:
        TrackingError: nobody is logged in, or wandb is switched off.
    """

    def __init__(self, out: Path) -> None:
        self.name = "wandb"
        self._out = out
        self._project = os.environ.get("WANDB_PROJECT") or PROJECT
        # `wandb.setup` has the same and starts a process, which would wait through the whole training.
        settings = wandb.api.settings()
        mode = os.environ.get("WANDB_MODE") or settings.get("mode") or "online"
        if mode == "disabled":
            raise TrackingError("--log-to wandb: WANDB_MODE=disabled logs nothing. Set it to offline or online")
        self._is_offline = mode in _OFFLINE
        if not self._is_offline and not wandb.api.api_key:
            raise TrackingError(
                "--log-to wandb: nobody is logged in. Log in with `wandb login`, or set WANDB_MODE=offline and upload "
                "later with `wandb sync`"
            )
        folder = Path(os.environ.get("WANDB_DIR") or out) / "wandb"
        entity = os.environ.get("WANDB_ENTITY") or settings.get("entity")
        project = f"{entity}/{self._project}" if entity else self._project
        self.where = f"project {project}, offline in {folder}" if self._is_offline else f"project {project}"
        self._destination = ["offline" if self._is_offline else str(settings.get("base_url")), project]

    @property
    def _list(self) -> Path:
        return self._out / "wandb" / _LOGGED

    @cached_property
    def _logged(self) -> set[str]:
        """The keys that are logged to this destination. A line that was not written whole is passed over."""
        keys = set()
        lines = self._list.read_text(encoding="utf-8").splitlines() if self._list.is_file() else []
        for line in lines:
            try:
                entry = json.loads(line)
                if entry["to"] == self._destination:
                    keys.add(str(entry["key"]))
            except (ValueError, KeyError, TypeError):
                continue
        return keys

    def has(self, key: str) -> bool:
        """Return whether the entry was logged to this project."""
        return key in self._logged

    def log(self, entry: Logged) -> None:
        """Log an entry as one run."""
        self._list.parent.mkdir(parents=True, exist_ok=True)
        run = wandb.init(
            project=self._project,
            id=entry.key[:_ID_CHARACTERS],
            name=entry.name,
            job_type=entry.kind,
            config=dict(entry.parameters) | {"emofuse": dict(entry.tags)},
            notes="\n".join(entry.notes) or None,
            tags=[tag for tag in (entry.tags.get("dataset", ""),) if 0 < len(tag) <= 64],
            dir=os.environ.get("WANDB_DIR") or str(self._out),
            resume=None if self._is_offline else "allow",
            reinit="create_new",
            settings=wandb.Settings(**_settings()),
        )
        try:
            self._log_values(run, entry)
        except BaseException:
            run.finish(exit_code=1)
            raise
        run.finish()
        with self._list.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"key": entry.key, "to": self._destination}) + "\n")
        self._logged.add(entry.key)

    def _log_values(self, run: wandb.Run, entry: Logged) -> None:
        run.define_metric("epoch", hidden=True)
        run.define_metric("curves/*", step_metric="epoch")
        epochs: dict[int, dict[str, float]] = {}
        for name, points in entry.curves.items():
            for epoch, value in points:
                epochs.setdefault(epoch, {})[f"curves/{name}"] = value
        for epoch, values in sorted(epochs.items()):
            run.log({"epoch": epoch, **values}, step=epoch)
        run.summary.update(dict(entry.metrics))
        if entry.files:
            artifact = wandb.Artifact(f"report-{entry.key[:16]}", type="report")
            for path in entry.files:
                artifact.add_file(str(path), name=path.relative_to(entry.folder).as_posix())
            run.log_artifact(artifact)


def _settings() -> dict[str, Any]:
    """Return the settings of a run: nothing of this process is captured, and an upload is not awaited forever.

    Releases of wandb before 0.28 know no limit for the upload.
    """
    plain = {"silent": True, "console": "off", "disable_code": True, "disable_git": True, "save_code": False}
    plain |= {"x_disable_meta": True, "x_disable_stats": True}
    limits = {"finish_timeout": _UPLOAD_S, "finish_timeout_raises": True}
    return plain | {name: value for name, value in limits.items() if name in wandb.Settings.model_fields}
