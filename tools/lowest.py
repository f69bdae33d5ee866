"""Prints the lowest version of each package that python-reverb needs, for ``make lowest``.

``uv pip install --resolution lowest-direct`` takes later ones where a developers' tool asks for them, and the
lowest versions of those tools, which are nothing to users.
"""

from __future__ import annotations

from importlib.metadata import metadata, requires

from packaging.requirements import Requirement

DISTRIBUTION = "python-reverb"
FOR_DEVELOPERS = {"dev"}
OPENTELEMETRY = "opentelemetry-api", "opentelemetry-sdk"
"""What the package needs, and what tests need beside it, in the same version."""


def lowest() -> list[str]:
    """Return the lower bounds of the package and its extras, as pins."""
    extras = {"", *(metadata(DISTRIBUTION).get_all("Provides-Extra") or ())} - FOR_DEVELOPERS
    found = set()
    for requirement in map(Requirement, requires(DISTRIBUTION) or ()):
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in extras):
            found |= {
                f"{requirement.name}=={bound.version}" for bound in requirement.specifier if bound.operator == ">="
            }
    return sorted(found | {pin.replace(*OPENTELEMETRY) for pin in found})


if __name__ == "__main__":
    print(*lowest(), sep="\n")
