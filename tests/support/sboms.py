"""Check SBOMs against the schema of CycloneDX, and list their components."""

from typing import Any


def assert_valid(sbom: bytes) -> None:
    # imported here: it takes seconds, and every process of a run collects all tests
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    errors = JsonStrictValidator(SchemaVersion.V1_6).validate_str(sbom.decode(), all_errors=True)
    assert [str(error) for error in errors or ()] == []


def flatten(components: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Map the references of all components of an SBOM, with their parts, to the components."""
    found = {}
    for component in components:
        found[component["bom-ref"]] = component
        found |= flatten(component.get("components", []))
    return found
