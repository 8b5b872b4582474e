"""Memory limits of control groups, read from folders laid out as Linux does."""

import pytest

from bayeslmm.runs.memory import _left_of_limits


def group(folder, names, limit, used, cached):
    folder.mkdir(parents=True, exist_ok=True)
    maximum, current, inactive = names
    (folder / maximum).write_text(f"{limit}\n")
    (folder / current).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{inactive} {cached}\nactive_file 3\n")


VERSION_2 = ("memory.max", "memory.current", "inactive_file")
VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


@pytest.fixture
def own(tmp_path):
    def write(*lines):
        path = tmp_path / "cgroup"
        path.write_text("".join(f"{line}\n" for line in lines))
        return path

    return write


def test_version_2_has_a_limit_at_every_level(tmp_path, own):
    root = tmp_path / "sys"
    group(root / "job", VERSION_2, 4000, 1500, 200)
    group(root / "job" / "step", VERSION_2, "max", 1200, 100)
    assert _left_of_limits(root, own("0::/job/step")) == [2700]
    group(root / "job" / "step", VERSION_2, 3000, 1200, 100)
    assert sorted(_left_of_limits(root, own("0::/job/step"))) == [1900, 2700]


def test_version_1(tmp_path, own):
    root = tmp_path / "sys"
    group(root / "memory" / "job", VERSION_1, 4000, 1500, 0)
    assert _left_of_limits(root, own("5:cpu,cpuacct:/other", "4:memory:/job")) == [2500]


def test_inside_a_container_the_top_is_its_own(tmp_path, own):
    root = tmp_path / "sys"
    group(root, VERSION_2, 4000, 1500, 0)
    assert _left_of_limits(root, own("0::/docker/0123")) == [2500]


def test_more_used_than_allowed_leaves_nothing(tmp_path, own):
    root = tmp_path / "sys"
    group(root, VERSION_2, 1000, 1500, 0)
    assert _left_of_limits(root, own("0::/")) == [0]


def test_no_control_groups(tmp_path):
    assert _left_of_limits(tmp_path, tmp_path / "absent") == []
