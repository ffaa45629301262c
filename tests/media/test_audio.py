"""Sounds of every common format are mono float32; bad files are one-line reasons."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
from media_files import HZ, CountedFile, cut, tone, write_clip, write_sound

from emofuse.datasets.sources import Source
from emofuse.errors import DecodeError
from emofuse.media import files
from emofuse.media.audio import read_sound
from emofuse.specs import DecodeSpec


def read(path, decode=None, **source):
    return read_sound(Source(path, **source), decode)


def hertz(sound):
    """The strongest frequency of a sound."""
    spectrum = np.abs(np.fft.rfft(sound.samples * np.hanning(len(sound.samples))))
    return float(np.argmax(spectrum)) * sound.rate_hz / len(sound.samples)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW"])
def test_wav_of_every_width_is_what_soundfile_reads(tmp_path, subtype):
    path = write_sound(tmp_path / "tone.wav", subtype=subtype)
    sound = read(path)
    assert (sound.rate_hz, sound.samples.dtype, sound.samples.shape) == (16000, np.float32, (16000,))
    np.testing.assert_allclose(sound.samples, soundfile.read(path, dtype="float32")[0], atol=1e-7)


@pytest.mark.parametrize("rate_hz", [8000, 22050, 96000])
def test_a_sound_keeps_its_rate(tmp_path, rate_hz):
    sound = read(write_sound(tmp_path / "tone.wav", rate_hz=rate_hz))
    assert (sound.rate_hz, len(sound.samples)) == (rate_hz, rate_hz)
    np.testing.assert_allclose(sound.samples, tone(1, rate_hz), atol=1e-4)


@pytest.mark.parametrize("suffix", ["wav", "flac"])
@pytest.mark.parametrize("channels", [2, 6])
def test_the_channels_of_stereo_and_surround_are_averaged(tmp_path, suffix, channels):
    path = write_sound(tmp_path / f"tone.{suffix}", channels=channels)
    expected = soundfile.read(path, dtype="float32")[0].mean(axis=1)
    np.testing.assert_allclose(read(path).samples, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("suffix", "subtype", "tolerance"),
    [("flac", "PCM_24", 1e-6), ("flac", "PCM_16", 1e-4), ("ogg", "VORBIS", 0.02), ("mp3", "MPEG_LAYER_III", 0.05)],
)
def test_compressed_sounds_are_the_tone_that_was_written(tmp_path, suffix, subtype, tolerance):
    sound = read(write_sound(tmp_path / f"tone.{suffix}", subtype=subtype))
    assert sound.rate_hz == 16000
    assert abs(sound.duration_s - 1) < 0.02
    np.testing.assert_allclose(sound.samples[2000:14000], tone(1, 16000)[2000:14000], atol=tolerance)


@pytest.mark.parametrize(
    ("suffix", "codec", "encoder", "rate_hz"),
    [
        ("mp4", "libx264", "aac", 44100),
        ("flv", "flv", "libmp3lame", 44100),
        ("webm", "libvpx", "libopus", 48000),
        ("mov", "libx264", "pcm_s16le", 44100),
    ],
)
def test_the_sound_of_a_clip_is_read(tmp_path, suffix, codec, encoder, rate_hz):
    sound = read(write_clip(tmp_path / f"clip.{suffix}", codec=codec, sound=encoder, sound_hz=rate_hz))
    assert sound.rate_hz == rate_hz
    assert abs(sound.duration_s - 2) < 0.06
    assert abs(hertz(sound) - HZ) < 1


@pytest.mark.parametrize(
    ("name", "subtype", "tolerance"),
    [("a.wav", None, 1e-4), ("a.flac", None, 1e-4), ("a.mp3", "MPEG_LAYER_III", 0.05)],
)
def test_of_a_span_exactly_its_samples_are_read(tmp_path, name, subtype, tolerance):
    path = write_sound(tmp_path / name, seconds=4, subtype=subtype)
    sound = read(path, start_s=2.25, end_s=3.0)
    assert len(sound.samples) == 12000
    np.testing.assert_allclose(sound.samples, tone(4, 16000)[36000:48000], atol=tolerance)
    assert len(read(path, start_s=3.5).samples) == pytest.approx(8000, abs=1200)


@pytest.mark.parametrize("rate_hz", [8000, 16000, 44100])
@pytest.mark.parametrize("start", [0.0, 0.25, 2.25])
def test_the_span_of_an_ogg_is_exact(tmp_path, rate_hz, start):
    """FFmpeg counts the times of some files from the packet before the first samples on: they are 16 ms late here."""
    soundfile.write(tmp_path / "a.ogg", sweep(4, rate_hz), rate_hz, subtype="VORBIS")
    sound = read(tmp_path / "a.ogg", start_s=start, end_s=start + 0.75)
    begin, end = round(start * rate_hz), round((start + 0.75) * rate_hz)
    assert len(sound.samples) == end - begin
    assert np.abs(sound.samples - sweep(4, rate_hz)[begin:end]).max() < 0.05


def sweep(seconds, rate_hz):
    """A tone that rises, so that no shift of it fits."""
    times = np.arange(seconds * rate_hz) / rate_hz
    return (0.5 * np.sin(2 * np.pi * (200 + 100 * times) * times)).astype(np.float32)


@pytest.mark.parametrize(
    ("suffix", "codec", "encoder", "rate_hz"),
    [("mp4", "libx264", "aac", 44100), ("flv", "flv", "libmp3lame", 44100), ("mkv", "libx264", "pcm_s16le", 16000)],
)
def test_before_a_sound_that_starts_behind_its_picture_there_is_silence(tmp_path, suffix, codec, encoder, rate_hz):
    clip = {"codec": codec, "sound": encoder, "sound_hz": rate_hz}
    path = write_clip(tmp_path / f"late.{suffix}", sound_from_s=0.8, **clip)
    whole = read(path)
    assert whole.duration_s == pytest.approx(2.8, abs=0.06)
    loud = np.flatnonzero(np.abs(whole.samples) > 0.2)
    assert loud[0] / rate_hz == pytest.approx(0.8, abs=0.06)
    parts = {start: read(path, start_s=start, end_s=start + 0.4).samples for start in (0.1, 0.6, 1.5)}
    assert {len(part) for part in parts.values()} == {round(0.4 * rate_hz)}
    assert not parts[0.1].any()
    for start, part in parts.items():
        shifts = range(-rate_hz // 500, rate_hz // 500) if suffix == "flv" else [0]  # its times are rounded to 1 ms
        begins = [round(start * rate_hz) + shift for shift in shifts]
        assert min(np.abs(part - whole.samples[begin:][: len(part)]).mean() for begin in begins) < 0.01


def test_the_span_of_a_clip_is_that_of_its_picture(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", sound="aac")
    assert len(read(path, start_s=0.5, end_s=1.5).samples) == 44100


def test_of_a_long_file_the_span_alone_is_decoded(tmp_path, monkeypatch):
    path = write_sound(tmp_path / "long.wav", seconds=200, rate_hz=8000)
    counts = []
    monkeypatch.setattr(files, "open_binary", lambda path: CountedFile(path, counts))
    sound = read(path, start_s=150.0, end_s=152.0)
    np.testing.assert_allclose(sound.samples, tone(200, 8000)[1_200_000:1_216_000], atol=1e-4)
    assert sum(counts) < path.stat().st_size / 10


def test_a_sound_apart_from_its_picture_is_read(tmp_path):
    clip = write_clip(tmp_path / "clip.mp4")
    sound = read(clip, audio_path=write_sound(tmp_path / "beside.wav", rate_hz=8000))
    assert (sound.rate_hz, len(sound.samples)) == (8000, 8000)


def test_a_file_without_an_audio_track_is_refused(tmp_path):
    with pytest.raises(DecodeError, match=r"^no audio track \(its tracks: video\)$"):
        read(write_clip(tmp_path / "silent.mp4"))


def test_a_sound_without_samples_is_refused(tmp_path):
    path = tmp_path / "none.wav"
    soundfile.write(path, np.zeros(0), 16000)
    with pytest.raises(DecodeError, match=r"^no sound can be decoded: it has no samples$"):
        read(path)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3"])
@pytest.mark.parametrize("share", [0.01, 0.5])
def test_a_sound_that_was_cut_off_is_refused(tmp_path, name, share):
    with pytest.raises(DecodeError):
        read(cut(write_sound(tmp_path / name, seconds=2), share))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\n",
            "git-lfs pointer text instead of the sound",
        ),
        (b"RIFF\x00\x00\x00\x00WAVE", "no clip or sound of a known format|no audio track|cannot be decoded"),
        (bytes(5000), "no clip or sound of a known format, or damaged or cut off"),
    ],
)
def test_what_is_no_sound_is_refused_with_the_reason(tmp_path, data, reason):
    path = tmp_path / "tone.wav"
    path.write_bytes(data)
    with pytest.raises(DecodeError, match=rf"^({reason})"):
        read(path)


def test_a_span_outside_of_the_file_is_refused(tmp_path):
    path = write_sound(tmp_path / "tone.wav")
    with pytest.raises(DecodeError, match=r"^the span from 2 to 3 s lies outside of the file, which has 1\.00 s$"):
        read(path, start_s=2.0, end_s=3.0)


def test_a_sound_that_is_too_long_is_refused_unless_a_span_is_asked_for(tmp_path):
    path = write_sound(tmp_path / "tone.wav", seconds=3)
    limit = DecodeSpec(max_sound_s=2)
    with pytest.raises(DecodeError, match=r"^longer than decode\.max_sound_s = 2 s\. Give the span of the sample"):
        read(path, limit)
    assert len(read(path, limit, start_s=1.0, end_s=2.0).samples) == 16000


def test_the_limit_of_sounds_is_in_no_digest_unless_it_is_set():
    assert DecodeSpec().model_dump() == {"max_pixels": 100_000_000}
    assert DecodeSpec(max_sound_s=5).model_dump()["max_sound_s"] == 5


def test_real_speech_and_the_sound_of_real_clips_are_read(shared_data):
    speech = sorted((shared_data / "speech" / "ravdess").glob("*.flac"))[:3]
    for path in speech:
        sound = read(path)
        np.testing.assert_allclose(sound.samples, soundfile.read(path, dtype="float32")[0], atol=1e-7)
        assert sound.rate_hz == 16000
    for path in sorted((shared_data / "video").glob("*.m*")):
        assert read(path).duration_s > 2
