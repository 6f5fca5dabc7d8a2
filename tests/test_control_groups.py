"""A limit binds from any control group around the process, in either version; none is not a limit."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.control_groups import cpu_limit_cores, throttled_seconds

MOUNT = "sys/fs/cgroup"


def tree(root: Path, membership: str, files: dict[str, str]) -> Path:
    for name, text in {"proc/self/cgroup": membership, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{text}\n")
    return root


def test_the_tightest_of_the_groups_around_the_process_is_its_limit_and_their_throttled_times_add_up(tmp_path: Path) -> None:
    tree(tmp_path, "0::/pod/job", {
        f"{MOUNT}/pod/job/cpu.max": "max 100000", f"{MOUNT}/pod/job/cpu.stat": "usage_usec 9\nthrottled_usec 500000",
        f"{MOUNT}/pod/cpu.max": "150000 100000", f"{MOUNT}/pod/cpu.stat": "throttled_usec 2000000",
        f"{MOUNT}/other/cpu.max": "1000 100000", f"{MOUNT}/other/cpu.stat": "throttled_usec 9000000",
        f"{MOUNT}/cpu.stat": "usage_usec 9",
    })  # fmt: skip
    assert cpu_limit_cores(tmp_path) == 1.5
    assert throttled_seconds(tmp_path) == 2.5


def test_version_1_counts_in_nanoseconds_and_keeps_the_cpu_apart(tmp_path: Path) -> None:
    tree(tmp_path, "5:memory:/job\n4:cpu,cpuacct:/job\n0::/", {
        f"{MOUNT}/cpu/job/cpu.cfs_quota_us": "50000", f"{MOUNT}/cpu/job/cpu.cfs_period_us": "100000",
        f"{MOUNT}/cpu/job/cpu.stat": "nr_throttled 3\nthrottled_time 1500000000",
        f"{MOUNT}/cpu/cpu.cfs_quota_us": "-1", f"{MOUNT}/cpu/cpu.cfs_period_us": "100000",
    })  # fmt: skip
    assert cpu_limit_cores(tmp_path) == 0.5
    assert throttled_seconds(tmp_path) == 1.5


def test_a_container_that_knows_its_group_by_the_hosts_name_finds_it_where_it_is_mounted(tmp_path: Path) -> None:
    tree(tmp_path, "0::/docker/1f2e", {f"{MOUNT}/cpu.max": "200000 100000", f"{MOUNT}/cpu.stat": "throttled_usec 250000"})
    assert cpu_limit_cores(tmp_path) == 2
    assert throttled_seconds(tmp_path) == 0.25


@pytest.mark.parametrize("files", [{}, {f"{MOUNT}/cpu.max": "max 100000", f"{MOUNT}/cpu.stat": "usage_usec 9"}])
def test_no_limit_is_none_and_nothing_counted_is_not_zero(tmp_path: Path, files: dict[str, str]) -> None:
    tree(tmp_path, "0::/", files)
    assert cpu_limit_cores(tmp_path) is None
    with pytest.raises(LookupError):
        throttled_seconds(tmp_path)
