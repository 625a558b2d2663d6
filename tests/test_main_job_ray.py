"""The main job on Ray: on every real and odd file the store that local workers make."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import small_videos as small
from tests.test_main_job import avel, extracted, lay_out

pytestmark = pytest.mark.ray


@pytest.mark.parametrize("name", [pytest.param("real", marks=pytest.mark.slow), "malformed"])
def test_stores_of_both_executors_are_equal_array_for_array(shared: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "media").mkdir()
    media = lay_out(shared, tmp_path / "media")
    made = {executor: extracted(media, name, executor, tmp_path / executor) for executor in ("local", "ray")}
    local = small.arrays(made["local"])
    assert len(local) > 20
    assert small.differences(local, small.arrays(made["ray"])) == []
    done = avel("store", "verify", str(made["ray"]), "--media", str(media / name))
    assert done.returncode == 0, done.stdout + done.stderr
