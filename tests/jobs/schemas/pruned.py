"""Makes the schemas beside this file out of KubeRay's CRDs: what the manifests of jobs/configs use, without texts.

    python -m tests.jobs.schemas.pruned KUBERAY_CHECKOUT/helm-chart/kuberay-operator/crds

Names that the manifests do not use are kept as names alone, so that a misspelt one is still known to be none.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
CONFIGS = Path(__file__).parents[3] / "jobs" / "configs"
KEPT = ("type", "required", "enum", "minimum", "maximum", "pattern")


def documents() -> list[dict[str, Any]]:
    """Every document of the manifests for KubeRay."""
    return [each for path in sorted(CONFIGS.glob("kuberay-*.yaml")) for each in yaml.safe_load_all(path.read_text())]


def pruned(schema: dict[str, Any], used: list[Any]) -> dict[str, Any]:
    """A JSON schema of what `used` values have, in which other names of objects may hold anything."""
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    kept: dict[str, Any] = {name: schema[name] for name in KEPT if name in schema}
    if "properties" in schema:
        kept["additionalProperties"] = False
        kept["properties"] = {}
        for name, inner in sorted(schema["properties"].items()):
            values = [value[name] for value in used if isinstance(value, dict) and name in value]
            kept["properties"][name] = pruned(inner, values) if values else {}
    elif isinstance(schema.get("additionalProperties"), dict):
        values = [each for value in used if isinstance(value, dict) for each in value.values()]
        kept["additionalProperties"] = pruned(schema["additionalProperties"], values)
    if "items" in schema:
        kept["items"] = pruned(schema["items"], [each for value in used if isinstance(value, list) for each in value])
    return kept


def main(folder: Path) -> None:
    """Write a schema for each kind of KubeRay's that the manifests have."""
    for kind in sorted({each["kind"] for each in documents() if each["apiVersion"] == "ray.io/v1"}):
        crd = yaml.safe_load((folder / f"ray.io_{kind.lower()}s.yaml").read_text())
        (version,) = [each for each in crd["spec"]["versions"] if each["name"] == "v1"]
        schema = pruned(version["schema"]["openAPIV3Schema"], [each for each in documents() if each["kind"] == kind])
        schema["properties"]["metadata"] = {"type": "object"}
        (HERE / f"{kind}.json").write_text(json.dumps(schema, separators=(",", ":"), sort_keys=True) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
