"""Settings of `mats compact`; apart from the pipeline, so that `--help` needs no pyarrow."""

from __future__ import annotations

from pydantic import Field

from pipelines.settings.base import Overwrite, Settings


class CompactSettings(Settings):
    """Part files → few large files."""

    input: str = Field(description="OUTPUT of a finished `mats caption` or `mats embed-audio`; only read.")
    output: str = Field(description="Folder of the new data set; run again to continue.")
    file_mb: float = Field(
        256.0, ge=128, le=512, description="Size of a file in MB, 128 to 512; none is larger than 1.5 times it."
    )
    partition_by: str | None = Field(
        None,
        description="A column of the manifest or the list: one folder a value (column=value, as Hive does it).",
    )
    overwrite: Overwrite = False
