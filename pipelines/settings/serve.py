"""Settings of `mats serve`; apart from the pipeline, so that `--help` needs no FastAPI."""

from __future__ import annotations

import ipaddress
import os
from typing import ClassVar

from pydantic import Field, model_validator

from mats_core.errors import SettingsError
from pipelines.settings.base import Address, AllowParts, Device, Settings

TOKEN = "MATS_SERVE_TOKEN"
SHORTEST_TOKEN = 16


class ServeSettings(Settings):
    """Runs → pages and an API over them."""

    GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {
        "What": ("demo", "model", "allow_parts", "device", "address", "replicas"),
        "Who may ask": ("host", "port", "token", "allow_host"),
        "Limits": ("upload_mb", "upload_s"),
    }
    MODELS: ClassVar[tuple[str, ...]] = ("model", "allow_parts")
    runs: list[str] = Field(default_factory=list, description="OUTPUT of `mats caption`, one or several.")
    demo: bool = Field(False, description="A page to drop or record a sound on as well; with it no RUN is needed.")
    model: str | None = Field(None, description='Model that is asked, or "none" (default: the first run\'s).')
    allow_parts: AllowParts = Field(default_factory=list)
    device: Device = Field("auto", description="auto, cpu, cuda.")
    address: Address = None
    replicas: int = Field(1, ge=1, description="With --address: copies of the model on the cluster.")
    host: str = Field("127.0.0.1", description="Where to listen; anything but this machine's own needs a token.")
    port: int = Field(8000, ge=0, le=65535, description="Port; 0 takes a free one.")
    token: str | None = Field(None, description=f"What who asks must know; better in ${TOKEN}, which no list shows.")
    allow_host: list[str] = Field(
        default_factory=list, description="Name by which the server is reached, as behind a proxy; once for each."
    )
    upload_mb: int = Field(50, ge=1, le=1000, description="With --demo: largest sound, in MB.")
    upload_s: float = Field(180, gt=0, le=3600, description="With --demo: how much of a sound is heard, in seconds.")

    @model_validator(mode="after")
    def _consistent(self) -> ServeSettings:
        if not self.runs and not self.demo:
            raise SettingsError("runs", "nothing is to be served", "name the OUTPUT of `mats caption`, or say --demo")
        if self.token is None:
            self.token = os.environ.get(TOKEN) or None
        if not self.local and self.token is None:
            problem = f'"{self.host}" can be reached by others'
            raise SettingsError("token", problem, f"set one in ${TOKEN} (or --token), or leave out --host")
        if self.token is not None and len(self.token) < SHORTEST_TOKEN:
            problem = f"it has {len(self.token)} characters, which can be guessed"
            raise SettingsError("token", problem, f"give at least {SHORTEST_TOKEN}, as of `openssl rand -hex 16`")
        return self

    @property
    def local(self) -> bool:
        """Whether only this machine can reach the server."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False
