"""The main job on Ray: on every real and odd file the store that local workers make."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.test_main_job import arrays, extracted, lay_out

pytestmark = pytest.mark.ray


@pytest.mark.parametrize("name", [pytest.param("real", marks=pytest.mark.slow), "malformed"])
def test_stores_of_both_executors_are_equal_array_for_array(shared: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "media").mkdir()
    media = lay_out(shared, tmp_path / "media")
    made = {executor: extracted(media, name, executor, tmp_path / executor) for executor in ("local", "ray")}
    local, on_ray = arrays(made["local"]), arrays(made["ray"])
    assert local.keys() == on_ray.keys()
    assert len(local) > 20
    for path, values in local.items():
        np.testing.assert_array_equal(values, on_ray[path], err_msg=path)
