from pathlib import Path

import pytest

from saccade.agents import memory_limit
from saccade.agents.memory_limit import available_memory, check_fits


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


@pytest.fixture
def physical(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(memory_limit, "_physical_memory", lambda: 10_007)
    return 10_007


def test_without_control_groups_there_is_the_machine(tmp_path: Path, physical: int) -> None:
    assert available_memory(tmp_path) == physical


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"sys/fs/cgroup/memory.max": "5003"}, 5003),
        ({"sys/fs/cgroup/memory.max": "max"}, 10_007),
        ({"sys/fs/cgroup/memory.max": "20011"}, 10_007),
        ({"sys/fs/cgroup/a/b/memory.max": "max", "sys/fs/cgroup/a/memory.max": "3001"}, 3001),
        ({"sys/fs/cgroup/a/b/memory.max": "2003", "sys/fs/cgroup/a/memory.max": "3001"}, 2003),
        ({"sys/fs/cgroup/elsewhere/memory.max": "7"}, 10_007),
    ],
)
def test_the_smallest_limit_of_the_groups_above_counts(
    tmp_path: Path, physical: int, files: dict[str, str], expected: int
) -> None:
    assert available_memory(write(tmp_path, {"proc/self/cgroup": "0::/a/b", **files})) == expected


def test_the_first_version_of_control_groups(tmp_path: Path, physical: int) -> None:
    groups = "5:cpu,cpuacct:/x\n4:memory:/docker/123\n0::/y"
    root = write(tmp_path, {"proc/self/cgroup": groups, "sys/fs/cgroup/memory/memory.limit_in_bytes": "6007"})
    assert available_memory(root) == 6007
    write(root, {"sys/fs/cgroup/memory/docker/123/memory.limit_in_bytes": "4001"})
    assert available_memory(root) == 4001
    write(root, {"sys/fs/cgroup/cpu,cpuacct/x/memory.limit_in_bytes": "3"})
    assert available_memory(root) == 4001


def test_this_machine_has_some() -> None:
    assert 2**20 < available_memory() < 2**63


def test_what_fits_passes_and_the_largest_that_would_is_named() -> None:
    def needs(size: int) -> int:
        return 1000 + 7 * (size // 8) * 8

    check_fits("a thing", 135, needs, limit=1000 + 7 * 128)
    with pytest.raises(ValueError, match="a thing with buffer_size=136 .* largest buffer_size that fits is 135"):
        check_fits("a thing", 136, needs, limit=1000 + 7 * 128)
    with pytest.raises(ValueError, match="No buffer_size fits"):
        check_fits("a thing", 136, needs, limit=999)
    with pytest.raises(ValueError, match="needs 3.00 GiB; this process may use 2.00 GiB"):
        check_fits("a thing", 3, lambda size: size * 2**30, limit=2**31)
