"""Files of the Hugging Face hub as entries that are downloaded and checked like those of the registry.

The variable `HF_ENDPOINT` names another server (a mirror); `HF_TOKEN`, if set, is sent to it for repositories that ask
for a licence to be accepted.
"""

from __future__ import annotations

import os
import shlex

from emofuse.specs import HubWeights
from emofuse.weights.registry import WeightsEntry

_ENDPOINT = "https://huggingface.co"


def hub_entry(spec: HubWeights) -> WeightsEntry:
    """Return the file of the hub as an entry. Its name in the folder of weights has its repository and hash."""
    endpoint = (os.environ.get("HF_ENDPOINT") or _ENDPOINT).rstrip("/")
    return WeightsEntry(
        name=f"{spec.repo.replace('/', '--')}--{spec.sha256[:12]}",
        model=spec.repo,
        licence=f"see {_ENDPOINT}/{spec.repo}",
        source=f"Hugging Face hub, {spec.repo} at {spec.revision}",
        url=f"{endpoint}/{spec.repo}/resolve/{spec.revision}/{spec.file}",
        sha256=spec.sha256,
        command=fetch_command(spec),
        token=os.environ.get("HF_TOKEN") or None,
    )


def fetch_command(spec: HubWeights) -> str:
    """Return the command that puts the file into the folder of weights."""
    options = {"--hub": spec.repo, "--file": spec.file, "--revision": spec.revision, "--sha256": spec.sha256}
    return "emofuse weights fetch " + " ".join(f"{name} {shlex.quote(value)}" for name, value in options.items())
