"""Build a feature cache with workers that are SLURM jobs.

    python build.py --jobs 20 -- emoset --data /shared/EmoSet-118K --spec paper --cache /shared/features.zarr

The arguments after `--` are those of `emofuse cache build`. The script runs on a login or head node during the whole
build, for example in tmux or screen. When it is interrupted, it cancels its jobs, and the same command continues the
build. It needs dask-jobqueue (pip install dask-jobqueue) and its settings, see jobqueue.yaml beside this file.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

from dask_jobqueue import SLURMCluster


def main() -> int:
    """Start the jobs, build, cancel the jobs, and return the exit status of the build."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, required=True, help="number of jobs")
    parser.add_argument("build", nargs="+", help="arguments of `emofuse cache build`")
    arguments = parser.parse_args()
    with SLURMCluster() as cluster:
        cluster.scale(jobs=arguments.jobs)
        address = cluster.scheduler_address
        sys.stdout.write(f"scheduler: {address}\n")  # workers with a GPU may join it: sbatch gpu-workers.sbatch ADDRESS
        sys.stdout.flush()
        with cluster.get_client() as client:
            client.wait_for_workers(1)  # the others join as SLURM starts them
        command = ["emofuse", "cache", "build", *arguments.build, "--scheduler", address]
        return subprocess.run(command, check=False).returncode  # noqa: S603 - the user's own command


if __name__ == "__main__":
    sys.exit(main())
