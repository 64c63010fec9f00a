"""How the training workers of a run's own Ray find one another: through a file, so that torch opens no port to others.

torch's own way is a server that listens on all interfaces and asks nobody for a name.
"""

from __future__ import annotations

import os
import sys
import uuid
from typing import Any

import ray
from ray.train.torch import TorchConfig
from ray.train.torch.config import _set_torch_distributed_env_vars, _setup_torch_process_group, _TorchBackend


class FileTorchConfig(TorchConfig):
    """Ray Train's TorchConfig for workers on one machine."""

    @property
    def backend_cls(self) -> type:
        """What sets the workers up."""
        return _FileBackend


class _FileBackend(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        session = ray._private.worker._global_node.get_session_dir_path()
        place = f"file://{session}/workers-{uuid.uuid4().hex}"
        worker_group.execute(_stay_on_loopback)
        worker_group.execute(_set_torch_distributed_env_vars)
        count = len(worker_group)
        settings = {"backend": backend_config.backend, "init_method": place, "timeout_s": backend_config.timeout_s}
        ray.get(
            [
                worker_group.execute_single_async(
                    rank, _setup_torch_process_group, world_rank=rank, world_size=count, **settings
                )
                for rank in range(count)
            ]
        )


def _stay_on_loopback() -> None:
    """The connections of gloo and NCCL between workers."""
    loopback = "lo0" if sys.platform == "darwin" else "lo"
    os.environ.update(GLOO_SOCKET_IFNAME=loopback, NCCL_SOCKET_IFNAME=loopback)
