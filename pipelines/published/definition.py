"""What every published set says of itself, and how it is read from its YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import yaml
from pydantic import Field

from mats_core.errors import SettingsError, first_line
from mats_core.storage.uris import Uri, path_of, uri_text
from pipelines.settings.base import Settings, build


class PublishedSet(Settings):
    """Name, files and reader of a set. SETTING: the setting that names sets of this kind, in errors about their files;
    FOLDER: where their definitions lie."""

    SETTING: ClassVar[str]
    FOLDER: ClassVar[Path]

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", description="Short name, as on the command line.")
    title: str = Field(description="Name as its publisher writes it.")
    task: str = Field(description="Task of its records or items.")
    tag: str = Field("", description="Tag put into the prompt.")
    labels: list[str] = Field(
        default_factory=list, description="All its labels as published, where no file lists them."
    )
    spoken: dict[str, str] = Field(
        default_factory=dict, description="Published label → words for it, where they do not follow from the label."
    )
    reader: str = Field(description="Name of the reader of its files.")
    files: dict[str, list[str] | str] = Field(
        default_factory=dict, description="Role → path under its folder; of several the first that is there."
    )
    folder: str = Field("", description="Its folder under the data root (default: its name).")
    split: str = Field(description="Which part is taken.")
    origin: dict[Literal["youtube", "freesound"], str] = Field(
        default_factory=dict,
        description="Where its clips come from → template of a clip's id there, of the fields of its table, or of "
        "`origin_file`.",
    )
    origin_file: str = Field("", description="A table that tells, by file_name, where each clip comes from.")
    options: dict[str, Any] = Field(default_factory=dict, description="Further settings of the reader.")
    licence: str = Field(description="Licence of annotations and audio.")
    source: str = Field(description="Where to get it.")
    note: str = Field("", description="What a user of it must know.")

    def paths(self, role: str) -> list[str]:
        """The paths that the file of a role may have, the preferred one first."""
        given = self.files.get(role, [])
        return [given] if isinstance(given, str) else given


Kind = TypeVar("Kind", bound=PublishedSet)


def list_sets(kind: type[PublishedSet]) -> list[str]:
    """Names of the sets of this kind that come with the code, sorted."""
    return sorted(path.stem for path in kind.FOLDER.glob("*.yaml"))


def load_set(kind: type[Kind], name_or_path: Uri) -> Kind:
    """The definition of a set by name, or from a YAML file of one's own (a path ending in .yaml or .yml).

    Raises:
        SettingsError: for a name or file that is not there, and for wrong fields, by their name.
    """
    name_or_path = uri_text(name_or_path)
    given = path_of(name_or_path) or Path(name_or_path)
    path = given if given.suffix in (".yaml", ".yml") else kind.FOLDER / f"{name_or_path}.yaml"
    if path is not given and name_or_path not in list_sets(kind):
        remedy = f"choose one of {', '.join(list_sets(kind))}, or give the path of a .yaml file"
        raise SettingsError(kind.SETTING, f'"{name_or_path}" is not a data set that comes with the code', remedy)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        problem = f'"{name_or_path}" is not a readable YAML file ({first_line(error)})'
        raise SettingsError(kind.SETTING, problem, "repair the file, or choose another") from None
    if not isinstance(values, dict):
        problem = f'"{name_or_path}" holds no `field: value` lines'
        raise SettingsError(kind.SETTING, problem, f"write a YAML file as those in {kind.FOLDER}")
    try:
        return build(kind, values)
    except SettingsError as error:
        raise SettingsError(f"{kind.SETTING}: {path.name}: {error.setting}", error.problem, error.remedy) from None
