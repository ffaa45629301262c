"""The image towers of open_clip's models (Cherti et al., CVPR 2023), with their own preprocessing.

open_clip is an extra. It is imported when a spec asks for one of its models, and downloads nothing here: weights come
from `emofuse.weights`.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from emofuse.errors import SpecError, StreamError, WeightsError, did_you_mean
from emofuse.media.libraries import import_library
from emofuse.streams.networks.outputs import Output, PictureNetwork, tokens_to_map
from emofuse.streams.networks.presets import StepsPreset, picture_steps
from emofuse.streams.networks.random_weights import seeded, set_norm_statistics
from emofuse.streams.networks.timm_networks import output_of_features, passed_features, timm_outputs
from emofuse.weights import ResolvedWeights, load_checkpoint

_TOWER = "visual."


def open_clip_preprocessing(model: str) -> dict[str, Any]:
    """Return the preprocessing of a model, as plain JSON.

    Args:
        model: the name in open_clip, or NAME/TAG for the preprocessing of these published weights (`ViT-B-16/openai`).
            A name alone has open_clip's defaults.

    Returns:
        `size`, `mean`, `std`, `interpolation`, `resize_mode` and more, as open_clip names them.

    Raises:
        SpecError: open_clip has no such model or tag.
        StreamError: open_clip is not installed.
    """
    library = _open_clip()
    name, tag = _name_and_tag(library, model)
    size = library.get_model_config(name)["vision_cfg"]["image_size"]
    config = vars(library.transform.PreprocessCfg()) | {"size": size}
    published = library.get_pretrained_cfg(name, tag) if tag else {}
    config |= {key: value for key, value in published.items() if key in config and key != "size"}
    plain = {key: list(value) if isinstance(value, tuple | list) else value for key, value in config.items()}
    return dict(sorted(plain.items()))


def make_open_clip_network(model: str, weights: ResolvedWeights) -> PictureNetwork:
    """Make the image tower of a model, in evaluation mode, on the CPU.

    `pooled` is the embedding of the picture in the space that it shares with texts, as `encode_image` returns it
    without normalisation. `tokens` and `map` are those of a vision transformer, without its class token, after its last
    norm.

    Raises:
        SpecError: open_clip has no such model.
        StreamError: open_clip is not installed.
        WeightsError: the file's tensors do not fit the tower name by name.
    """
    library = _open_clip()
    name, tag = _name_and_tag(library, model)
    quick = bool(tag and library.get_pretrained_cfg(name, tag).get("quick_gelu"))
    with seeded(weights.seed or 0), _without_warnings():
        whole = library.create_model(name, pretrained=None, force_quick_gelu=quick, pretrained_text=False)
    tower: Any = whole.visual.eval()
    config = open_clip_preprocessing(model)
    preset = _preset(library, config)
    if weights.path is None:
        set_norm_statistics(tower, preset.size[0], seed=weights.seed or 0)
    else:
        _load_tower(whole, tower, model, weights.path)
    return PictureNetwork(tower.eval(), preset, partial(_outputs, model=model))


def _outputs(
    tower: Any, pictures: torch.Tensor, wanted: Collection[Output], *, model: str
) -> Mapping[Output, torch.Tensor]:
    """Return outputs of an image tower, see `make_open_clip_network`."""
    others = [output for output in wanted if output != "pooled"]
    trunk = getattr(tower, "trunk", None)
    if not others:
        return {"pooled": _first(tower(pictures))}
    if trunk is not None:  # a network of timm
        if "pooled" not in wanted:
            return timm_outputs(trunk, pictures, others, model=model)
        returned, features = passed_features(tower, pictures, trunk)
        parts: dict[Output, torch.Tensor] = {"pooled": _first(returned)}
        return parts | {output: output_of_features(trunk, features, output, model) for output in others}
    if not (hasattr(tower, "output_tokens") and hasattr(tower, "grid_size")):
        raise StreamError(f"{model}: the tower {type(tower).__name__} has no {others[0]} here. Use output: pooled")
    before, tower.output_tokens = tower.output_tokens, True
    try:
        pooled, tokens = tower(pictures)
    finally:
        tower.output_tokens = before
    return {"pooled": pooled, "tokens": tokens, "map": tokens_to_map(tokens, *tower.grid_size)}


def _first(returned: Any) -> torch.Tensor:
    pooled: torch.Tensor = returned[0] if isinstance(returned, tuple) else returned
    return pooled


def _load_tower(whole: Any, tower: nn.Module, model: str, path: Path) -> None:
    """Load the tower strictly from a file of the whole model or of the tower alone."""
    from open_clip.convert import convert_state_dict

    try:
        state = convert_state_dict(whole, load_checkpoint(path))
        parts = {name.removeprefix(_TOWER): value for name, value in state.items() if name.startswith(_TOWER)}
        tower.load_state_dict(parts or state)
    except (RuntimeError, KeyError, ValueError) as error:
        faults = [line.strip()[:160] for line in str(error).splitlines()]
        raise WeightsError(
            f"{path} holds no weights of open_clip/{model} as they are needed here: {' | '.join(faults[:6])}"
        ) from None


def _preset(library: ModuleType, config: dict[str, Any]) -> StepsPreset:
    size = config["size"]
    height, width = (size, size) if isinstance(size, int) else size
    transform = library.image_transform(
        (height, width),
        is_train=False,
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        resize_mode=config["resize_mode"],
        interpolation=config["interpolation"],
        fill_color=config["fill_color"],
    )
    middle = config["resize_mode"] == "shortest"
    return StepsPreset(
        picture_steps(transform), (height, width), tuple(config["mean"]), tuple(config["std"]), cuts_middle=middle
    )


def _name_and_tag(library: ModuleType, model: str) -> tuple[str, str]:
    name, _, tag = model.partition("/")
    known = library.list_models()
    if name not in known:
        hint = did_you_mean(name, known) or f", expected one of {', '.join(known)}"
        raise SpecError("backbone", [f"model: {name!r} is no model of open_clip{hint}"])
    tags = library.list_pretrained_tags_by_model(name)
    if tag and tag not in tags:
        hint = did_you_mean(tag, tags) or f", expected one of {', '.join(tags) or 'none'}"
        raise SpecError("backbone", [f"model: open_clip's {name} has no weights {tag!r}{hint}"])
    return name, tag


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Silence open_clip's warning that a model is random: its weights are loaded afterwards."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _open_clip() -> ModuleType:
    return import_library("open_clip", extra="open_clip", purpose="backbones of open_clip")
