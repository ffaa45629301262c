"""The conformance check of datasets."""

from __future__ import annotations

from emofuse.specs.datasets import DatasetSpecBase
from emofuse.testing.faults import raise_faults, spec_faults


def check_dataset(spec: DatasetSpecBase) -> None:
    """Check that a dataset fulfils the contract of a kind of datasets, on your own data.

    The check covers the same rows in the same order twice; a unique id for every row; labels among the classes; splits
    that emofuse knows; groups, if there are any, that are names; and a spec that can be pickled and whose `kind` is
    that of the manifest.

    Args:
        spec: the spec of a dataset with at least one row.

    Raises:
        AssertionError: the contract is broken; the message lists every fault.
    """
    import polars as pl

    from emofuse.datasets.splits import SPLITS

    faults = spec_faults(spec)
    try:
        listing, again = spec.read(), spec.read()
    except Exception as error:  # noqa: BLE001 - any exception is a fault to report
        raise_faults(type(spec).__name__, "a dataset", [*faults, f"read() raised {type(error).__name__}: {error}"])
        return
    manifest = listing.manifest
    if not manifest.table.equals(again.manifest.table) or manifest.classes != again.manifest.classes:
        faults.append("read() returns other rows, or another order, the second time")
    if manifest.table["sample_id"].n_unique() != len(manifest):
        faults.append("sample ids are used twice")
    unknown_splits = sorted(set(manifest.table["split"].drop_nulls().to_list()) - set(SPLITS))
    if unknown_splits:
        faults.append(f"splits must be {', '.join(SPLITS)} or null, got {', '.join(map(repr, unknown_splits))}")
    if manifest.table["group"].dtype not in (pl.String, pl.Null):
        faults.append(f"groups must be names (text) or null, got {manifest.table['group'].dtype}")
    elif (manifest.table["group"].cast(pl.String) == "").any():
        faults.append("a row without a group must have null, got an empty name")
    if len(set(manifest.classes)) != len(manifest.classes):
        faults.append("two classes have one name")
    unknown = sorted(set(manifest.table["label"].drop_nulls().to_list()) - set(manifest.classes))
    if unknown:
        faults.append(f"labels that are not among the classes: {', '.join(map(repr, unknown))}")
    if manifest.info.get("kind") != spec.kind:
        faults.append(f"the manifest has the kind {manifest.info.get('kind')!r}, the spec {spec.kind!r}")
    raise_faults(type(spec).__name__, "a dataset", faults)
