"""Every rendered object against the schema of its kind, with unknown fields refused."""

import copy

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tree import PLACE, objects, rendered

# The version of Kubernetes the schemas are of; k3s of the same minor version runs on the Pis.
KUBERNETES = "1.35"
BUILT_IN = {"", "apps", "batch", "networking.k8s.io", "policy", "rbac.authorization.k8s.io", "storage.k8s.io"}


def strict(schema):
    """A definition's schema as JSON schema: unknown fields are errors, and the extensions of Kubernetes are spelled out."""
    schema = copy.deepcopy(schema)

    def visit(node):
        if node.get("x-kubernetes-int-or-string"):
            node.pop("type", None)
            node["anyOf"] = [{"type": "integer"}, {"type": "string"}]
        # Go's regular expressions and formats are not all Python's; the API server of test_apiserver.py checks those.
        node.pop("pattern", None)
        node.pop("format", None)
        if node.pop("nullable", False) and "type" in node:
            node["type"] = [node["type"], "null"]
        if "properties" in node and not node.get("x-kubernetes-preserve-unknown-fields"):
            node.setdefault("additionalProperties", False)
        for below in node.get("properties", {}).values():
            visit(below)
        for key in ("items", "additionalProperties"):
            if isinstance(node.get(key), dict):
                visit(node[key])
        # Only constraints stand in these, never names of further fields.

    visit(schema)
    return schema


@pytest.fixture(scope="session")
def definitions():
    """Schemas by group, version and kind."""
    found = {}
    for file in sorted((PLACE / "crds").glob("*.yaml")):
        for crd in yaml.safe_load_all(file.read_text()):
            if not crd or crd["kind"] != "CustomResourceDefinition":
                continue
            spec = crd["spec"]
            for version in spec["versions"]:
                schema = strict(version["schema"]["openAPIV3Schema"])
                schema["properties"]["metadata"] = {"type": "object"}
                found[f"{spec['group']}/{version['name']}", spec["names"]["kind"]] = schema
    return found


def test_every_path_renders(count):
    count("paths rendered", len(rendered()))
    assert all(text.strip() for text in rendered().values())


def test_every_object_fits_its_schema_strictly(definitions, count):
    problems = []
    for thing in objects():
        body = thing.body
        if thing.group in BUILT_IN:
            try:
                kubernetes_validate.validate(body, KUBERNETES, strict=True)
                count("objects valid by Kubernetes' schemas")
            except kubernetes_validate.ValidationError as error:
                problems.append(f"{thing}: {'.'.join(map(str, error.path))}: {error.message[:300]}")
        else:
            schema = definitions.get((body["apiVersion"], thing.kind))
            if schema is None:
                problems.append(f"{thing}: no definition of {body['apiVersion']} {thing.kind}")
                continue
            errors = list(jsonschema.Draft7Validator(schema).iter_errors(body))
            problems += [f"{thing}: {error.json_path}: {error.message[:300]}" for error in errors]
            count("by definitions of their own", 0 if errors else 1)
    assert not problems, "\n".join(problems)


def test_no_two_objects_are_the_same():
    seen = {}
    for thing in objects():
        key = (thing.group, thing.kind, thing.namespace, thing.name)
        assert key not in seen, f"{thing} is in {seen.get(key)} as well"
        seen[key] = thing.path
