"""What is written of a profile."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

from emofuse.profile.figures import Peak
from emofuse.profile.tables import METHOD, as_markdown, csv_row, write_profile

MIB = 2**20


def table(text, title):
    """Rows of the table under a heading, as lists of cells."""
    lines = text.split(f"## {title}\n\n")[1].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if not line.startswith("|:")]


def test_sizes_are_told_apart_and_what_is_not_counted_is_named(profile):
    header, lbp, fused = table(as_markdown(profile), "Size")
    assert header[-1] == "FLOPs not counted"
    detector = "lbp, face detector (face_mesh)"
    assert lbp == ["LBP", "1.50", "0.00", "6.0", "3.0", "0.003", "not counted", "not counted", detector]
    assert fused == ["LBP + ResNet-50", "1.50", "23.50", "6.0", "93.0", "0.003", "8.20", "4.10", detector]


def test_latency_is_an_image_s(profile):
    header, lbp, _ = table(as_markdown(profile), "Milliseconds an image, median (95th percentile)")
    assert header[1:] == [
        "head, batch 1",
        "head, batch 64",
        "whole path, batch 1",
        "whole path, batch 64",
        "of it extraction, batch 1",
        "of it extraction, batch 64",
    ]
    assert lbp[1:] == ["0.5 (0.75)", "0.05 (0.1)", "20 (30)", "10 (20)", "19", "9"]


def test_memory_is_a_process_s_and_on_a_gpu_its_own_too(profile):
    header, lbp, _ = table(as_markdown(profile), "Memory, MiB")
    assert lbp[1:] == ["600", "700", "800", "610", "650"]
    assert "GPU" not in " ".join(header)

    gpu = Peak(600 * MIB, 50 * MIB)
    first = profile.configurations[0]
    on_gpu = replace(
        first,
        path=replace(first.path, start=gpu, peaks=(gpu, gpu)),
        head=replace(first.head, start=gpu, inference=gpu, training=gpu),
    )
    header, row = table(as_markdown(replace(profile, configurations=(on_gpu,))), "Memory, MiB")
    assert header[6:8] == ["before models on the GPU", "whole path, batch 1 on the GPU"]
    assert row[6:] == ["50"] * 5


def test_training_says_whose_rows_and_how_long_they_take_to_extract(profile):
    _, lbp, _ = table(as_markdown(profile), "Training")
    assert lbp == ["LBP", "synthetic", "1000", "64", "0.25 (0.375)", "4", "9"]


def test_every_extractor_stands_once(profile):
    rows = table(as_markdown(profile), "Extractors")[1:]
    assert rows == [
        ["lbp", "0.00", "0.0", "not counted", "not counted"],
        ["face detector (face_mesh)", "not counted", "3.0", "not counted", "not counted"],
        ["resnet50", "23.50", "90.0", "8.20", "4.10"],
    ]


def test_conditions_and_notes_stand_above_the_numbers(profile):
    text = as_markdown(profile)
    assert text.startswith(
        "# Efficiency of small\n\nA fast one, 2 cores, 16 GiB, Linux x86_64; 2 threads, device cpu, load 0.5 before; "
    )
    assert "64 images (drawn); emofuse 0.1.0, torch 2.6; 2026-01-01" in text
    assert text.index("- resnet50: RANDOM WEIGHTS stand in.") < text.index("## Size")


def test_columns_are_aligned_for_who_reads_them_as_text(profile):
    for block in as_markdown(profile).split("\n\n"):
        if block.startswith("|"):
            assert len({len(line) for line in block.splitlines()}) == 1


def test_csv_has_a_row_a_configuration_with_units_in_its_names(profile, tmp_path):
    write_profile(profile, tmp_path / "new" / "folder")
    with (tmp_path / "new" / "folder" / "profile.csv").open(newline="") as file:
        lbp, fused = csv.DictReader(file)
    assert (lbp["configuration"], lbp["extractor_flops_per_image"]) == ("LBP", "not counted")
    assert fused["extractor_flops_per_image"] == "8200000000"
    assert fused["extractors_not_counted"] == "lbp+face detector (face_mesh)"
    assert (fused["path_batch64_median_ms"], fused["path_batch64_repeats"]) == ("640.0", "5")
    assert fused["head_training_peak_rss_bytes"] == str(650 * MIB)
    assert (fused["epoch_median_s"], fused["extraction_of_rows_s"]) == ("0.25", "9.0")
    assert {name: str(value) for name, value in csv_row(profile.configurations[0]).items() if value is not None} == {
        name: value for name, value in lbp.items() if value
    }


def test_json_holds_everything_and_markdown_says_how_it_was_measured(profile, tmp_path):
    paths = write_profile(profile, tmp_path)
    assert [path.name for path in paths] == ["profile.json", "profile.csv", "profile.md"]
    data = json.loads(paths[0].read_text())
    assert data == json.loads(json.dumps(profile.to_json()))
    assert data["configurations"][1]["path"]["extractors"]["lbp"]["flops"] is None
    assert paths[2].read_text().endswith(METHOD + "\n")
