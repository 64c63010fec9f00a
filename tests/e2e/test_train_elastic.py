"""`workers: [1, 2]` on a cluster that loses a node and gets another one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.train.run import TrainProgress, run_train
from tests.training_world import make_world, settings

pytestmark = pytest.mark.long


@pytest.fixture
def cluster() -> Iterator[Any]:
    """Two nodes of one CPU each."""
    import ray
    from ray.cluster_utils import Cluster

    ray.shutdown()
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    made.second = made.add_node(num_cpus=1)
    made.wait_for_nodes()
    ray.init(address=made.address)
    yield made
    ray.shutdown()
    made.shutdown()


def test_it_shrinks_and_grows(cluster: Any, tmp_path: Path) -> None:
    world = make_world(tmp_path / "world")
    sizes: list[int] = []

    def follow(progress: TrainProgress) -> None:
        if progress.stage != "training" or progress.step < progress.first_step + 15:
            return
        if not sizes and progress.workers == 2:
            sizes.append(2)
            cluster.remove_node(cluster.second)
        elif sizes == [2] and progress.workers == 1:
            sizes.append(1)
            cluster.add_node(num_cpus=1)
        elif sizes == [2, 1] and progress.workers == 2:
            sizes.append(2)
            raise KeyboardInterrupt

    given = {"workers": [1, 2], "training": {"steps": 1_000_000}, "validate_every": 10**6, "checkpoint_every": 10}
    result = run_train(settings(world, tmp_path / "out", **given), follow)
    assert sizes == [2, 1, 2]
    assert result.status == "interrupted"
    assert result.run["restarts"] >= 2
