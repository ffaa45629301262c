"""Networks of timm (R. Wightman, PyTorch Image Models), with the preprocessing of their data configuration.

timm is an extra. It is imported when a spec asks for one of its models, and downloads nothing here: weights come from
`emofuse.weights`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from types import ModuleType
from typing import Any

import torch

from emofuse.errors import SpecError, StreamError, WeightsError, did_you_mean
from emofuse.media.libraries import import_library
from emofuse.streams.networks.outputs import Output, PictureNetwork, tokens_to_map
from emofuse.streams.networks.presets import StepsPreset, picture_steps
from emofuse.streams.networks.random_weights import seeded, set_norm_statistics
from emofuse.weights import ResolvedWeights, load_checkpoint


def timm_preprocessing(model: str) -> dict[str, Any]:
    """Return the preprocessing of a timm model by its data configuration, as plain JSON.

    Returns:
        `input_size`, `interpolation`, `mean`, `std`, `crop_pct` and `crop_mode`.

    Raises:
        SpecError: timm has no such model.
        StreamError: timm is not installed.
    """
    timm = _timm()
    _check_model(timm, model)
    config = timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(model).to_dict())
    return {name: list(value) if isinstance(value, tuple) else value for name, value in sorted(config.items())}


def make_timm_network(model: str, weights: ResolvedWeights) -> PictureNetwork:
    """Make a timm model without its classifier, in evaluation mode, on the CPU; see `timm_outputs`.

    Raises:
        SpecError: timm has no such model.
        StreamError: timm is not installed.
        WeightsError: the file's tensors do not fit the network name by name.
    """
    timm = _timm()
    config = timm_preprocessing(model)
    seed = weights.seed or 0
    with seeded(seed):
        network = _make(timm, model, weights).eval()
    network.reset_classifier(0)
    if weights.path is None:
        set_norm_statistics(network, config["input_size"][-1], seed=seed)
    return PictureNetwork(network.eval(), _preset(timm, config), partial(timm_outputs, model=model))


def timm_outputs(
    network: Any, pictures: torch.Tensor, wanted: Collection[Output], *, model: str
) -> Mapping[Output, torch.Tensor]:
    """Return outputs of a timm network without its classifier.

    `pooled` is what timm's forward pass returns; `map` and `tokens` are those of `forward_features`, after its last
    norm.

    Raises:
        StreamError: the network has no such output.
    """
    others = [output for output in wanted if output != "pooled"]
    if not others:
        return {"pooled": network(pictures)}
    if "pooled" not in wanted:
        features = network.forward_features(pictures)
        return {output: output_of_features(network, features, output, model) for output in others}
    pooled, features = passed_features(network, pictures, network)
    return {"pooled": pooled, **{output: output_of_features(network, features, output, model) for output in others}}


def passed_features(network: Any, pictures: torch.Tensor, trunk: Any) -> tuple[Any, torch.Tensor]:
    """Return what a network returns, and what `forward_features` of timm's network in it returns on the way."""
    caught: list[torch.Tensor] = []
    forward_features = trunk.forward_features

    def catch(*args: Any, **options: Any) -> torch.Tensor:
        features: torch.Tensor = forward_features(*args, **options)
        caught.append(features.clone())  # the layers behind it may work in place
        return features

    trunk.forward_features = catch
    try:
        returned = network(pictures)
    finally:
        del trunk.forward_features
    return returned, caught[0] if caught else forward_features(pictures)


def output_of_features(network: Any, features: torch.Tensor, output: Output, model: str) -> torch.Tensor:
    """Return the map (B, C, h, w) or the tokens (B, N, D) in the features of a timm network."""
    if output == "tokens":
        if features.ndim == 3:
            return features
        raise StreamError(f"{model} has no tokens: its features are a map. Use output: map")
    if features.ndim == 4:
        last = str(getattr(network, "output_fmt", "NCHW")) == "NHWC"
        return features.permute(0, 3, 1, 2) if last else features
    patches = features[:, int(getattr(network, "num_prefix_tokens", 0)) :]
    grid = getattr(getattr(network, "patch_embed", None), "grid_size", None)
    if grid is None or grid[0] * grid[1] != patches.shape[1]:
        raise StreamError(f"{model} has {patches.shape[1]} tokens that are no grid of the picture. Use output: tokens")
    return tokens_to_map(patches, *grid)


def _make(timm: ModuleType, model: str, weights: ResolvedWeights) -> Any:
    if weights.path is None:
        return timm.create_model(model, pretrained=False)
    state = {
        name: tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in load_checkpoint(weights.path).items()
    }
    config = timm.get_pretrained_cfg(model)
    classes = _classes_in(state, config.classifier)
    # With as many classes as the file, timm converts the names of published files and then loads strictly.
    overlay = {"state_dict": state, "custom_load": False, "num_classes": classes}
    try:
        return timm.create_model(model, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=classes)
    except (RuntimeError, KeyError, ValueError) as error:
        faults = [line.strip()[:160] for line in str(error).splitlines()]
        raise WeightsError(
            f"{weights.path} holds no weights of timm/{model} as they are needed here: {' | '.join(faults[:6])}"
        ) from None


def _classes_in(state: dict[str, torch.Tensor], classifier: Any) -> int:
    """Return the number of classes of the classifier in a file; 0 for a file without it."""
    names = classifier if isinstance(classifier, tuple | list) else (classifier,)
    heads = [state[f"{name}.weight"] for name in names if f"{name}.weight" in state]
    return len(heads[0]) if heads else 0


def _preset(timm: ModuleType, config: dict[str, Any]) -> StepsPreset:
    transform = timm.data.create_transform(**config, is_training=False)
    _, height, width = config["input_size"]
    middle = config["crop_mode"] == "center"
    return StepsPreset(
        picture_steps(transform), (height, width), tuple(config["mean"]), tuple(config["std"]), cuts_middle=middle
    )


def _check_model(timm: ModuleType, model: str) -> None:
    if timm.is_model(model) and ("." not in model or model in timm.list_pretrained()):
        return
    name, _, tag = model.partition(".")
    if tag and timm.is_model(name):
        tags = [each.partition(".")[2] for each in timm.list_pretrained(f"{name}.*")]
        hint = did_you_mean(tag, tags) or f", expected one of {', '.join(tags)}"
        raise SpecError("backbone", [f"model: timm's {name} has no weights {tag!r}{hint}"])
    hint = did_you_mean(model, timm.list_models()) or ". See timm.list_models()"
    raise SpecError("backbone", [f"model: {model!r} is no model of timm{hint}"])


def _timm() -> ModuleType:
    timm = import_library("timm", extra="timm", purpose="backbones of timm")
    import_library("timm.data", extra="timm", purpose="backbones of timm")
    return timm
