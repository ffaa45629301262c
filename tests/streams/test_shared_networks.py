"""A network of which several streams store outputs runs once on a batch for all, and gives each the same bytes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from emofuse.specs import BackboneSpec, CacheSpec, FileWeights, RandomWeights
from emofuse.specs.audio import MelSettings
from emofuse.streams import make_stream
from emofuse.streams.base import Sample, SampleBatch
from emofuse.streams.extractor import Extractor
from emofuse.streams.networks.random_weights import seeded
from emofuse.streams.shared_networks import shared_network, sharing_networks
from emofuse.streams.speech import SpeechSpec
from emofuse.testing import example_sound


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def passes(streams):
    """Count the forward passes of the networks of streams from now on."""
    counted = []
    for network in {id(stream.network): stream.network for stream in streams}.values():
        network.register_forward_hook(lambda *_: counted.append(1))
    return counted


def made(specs):
    with sharing_networks():
        return [make_stream(spec) for spec in specs]


def check_same_rows(specs, samples):
    """Check that streams which share a network give the rows of streams that have it for themselves."""
    streams = made(specs)
    batch = SampleBatch(samples)
    for spec, stream in zip(specs, streams, strict=True):
        together, alone = stream.extract(batch), make_stream(spec).extract(samples)
        assert np.array_equal(together.features, alone.features)
        assert np.array_equal(together.status, alone.status)
        assert together.mask is None or np.array_equal(together.mask, alone.mask)


@pytest.fixture
def speech(tmp_path):
    """Four streams of one small encoder: its last layer, its second one in two forms, the steps of its first one."""
    transformers = pytest.importorskip("transformers", reason="the extra speech is not installed")
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
    more = {"conv_dim": [16] * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
    with seeded(1):
        network = transformers.HubertModel(transformers.HubertConfig(**sizes, **more))
    network.save_pretrained(tmp_path)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(tmp_path)
    weights = FileWeights(path=tmp_path / "model.safetensors")
    options = ({}, {"layer": 2}, {"layer": 2, "output": "mean_std"}, {"layer": 1, "output": "sequence"})
    return [SpeechSpec(name=f"s{i}", weights=weights, seconds=2, **each) for i, each in enumerate(options)]


def test_layers_and_forms_of_a_speech_encoder_take_one_pass_for_each_sound(speech):
    samples = [Sample(sound=example_sound(0.5)), Sample(), Sample(sound=example_sound(0.7, seed=1))]
    streams = made(speech)
    counted = passes(streams)
    batch = SampleBatch(samples)
    for stream in streams:
        stream.extract(batch)
    assert len(counted) == 2
    check_same_rows(speech, samples)


def test_an_encoder_in_another_precision_or_with_other_weights_is_not_shared(speech):
    one, two = made([speech[0], speech[0].model_copy(update={"precision": "bfloat16"})])
    assert one.network is not two.network
    state = load_file(speech[0].weights.path)
    save_file(
        {name: 2 * tensor for name, tensor in state.items()}, speech[0].weights.path.with_name("twice.safetensors")
    )
    other = FileWeights(path=speech[0].weights.path.with_name("twice.safetensors"))
    one, two = made([speech[0], speech[0].model_copy(update={"weights": other})])
    assert one.network is not two.network


@pytest.mark.parametrize(
    ("model", "outputs"),
    [
        ("squeezenet1_1", ("pooled", "map")),
        ("densenet121", ("pooled", "map")),  # works in place behind its map
        ("timm/vit_tiny_patch16_224", ("pooled", "map", "tokens")),
        ("open_clip/ViT-S-32-alt", ("tokens", "pooled")),
    ],
)
def test_outputs_of_a_backbone_take_one_pass(model, outputs):
    pytest.importorskip(model.partition("/")[0] if "/" in model else "torchvision")
    specs = [BackboneSpec(name=name, model=model, weights=RandomWeights(seed=3), output=name) for name in outputs]
    pictures = [Sample(np.random.default_rng(seed).integers(0, 255, (90, 80, 3), np.uint8)) for seed in range(2)]
    streams = made(specs)
    counted = passes(streams)
    batch = SampleBatch(pictures)
    for stream in streams:
        stream.extract(batch)
    assert len(counted) == 1
    check_same_rows(specs, pictures)


def test_pictures_and_spectrograms_of_one_network_are_kept_apart():
    pictures = BackboneSpec(name="pictures", model="squeezenet1_1", weights=RandomWeights(seed=3))
    sounds = pictures.model_copy(update={"name": "sounds", "input": "mel", "mel": MelSettings(seconds=0.5)})
    halves = sounds.model_copy(update={"name": "halves", "windows": 2})
    image = np.random.default_rng(0).integers(0, 255, (90, 80, 3), np.uint8)
    check_same_rows([pictures, sounds, halves], [Sample(image, sound=example_sound(0.5)), Sample(image)])


def test_the_streams_of_an_extractor_share_their_networks():
    streams = tuple(
        BackboneSpec(name=output, model="squeezenet1_1", weights=RandomWeights(seed=3), output=output)
        for output in ("pooled", "map")
    )
    with Extractor(streams, CacheSpec(streams=streams), device="cpu") as extractor:
        one, two = extractor.streams.values()
        assert one.network is two.network


def test_outside_of_the_context_networks_are_made_anew():
    assert shared_network("key", object) is not shared_network("key", object)
    with sharing_networks():
        inside = shared_network("key", object)
        assert shared_network("key", object) is inside
        assert shared_network("other", object) is not inside
    with sharing_networks():
        assert shared_network("key", object) is not inside
