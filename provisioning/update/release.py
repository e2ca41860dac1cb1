"""What a release is, to its owner and to a node: an archive's name, and what is said of it.

A release is a virtual environment that was built for the prefix `/opt/gunfire-node`, packed as
`gunfire-node-<version>-<debian>-<architecture>.tar.zst`.
"""

from __future__ import annotations

import platform
import re
from typing import Annotated, Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from node.deliver.tables import FORMAT
from node.errors import ProvisioningError

_NUMBER: Final = "(?:0|[1-9][0-9]{0,5})"
VERSION: Final = rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}"
_NAME: Final = re.compile(
    rf"gunfire-node-(?P<version>{VERSION})-(?P<debian>[a-z]+)-(?P<architecture>[a-z0-9]+)\.tar\.zst"
)
ARCHITECTURES: Final = {"aarch64": "arm64", "x86_64": "amd64"}
"""Debian's names of what the kernel and Python call otherwise."""
PYTHONS: Final = {"3.11": "bookworm", "3.13": "trixie"}
"""Which Debian a virtual environment is for, by its Python."""
READS: Final = frozenset({FORMAT})
"""Formats of the outbox that this release reads: what a later one writes must be among them, or
going back would leave behind what waits to be sent."""


class Facts(BaseModel):
    """What its owner says of a release, signed; TUF's `custom` of a target."""

    model_config = ConfigDict(frozen=True, extra="ignore")  # later owners may say more

    version: Annotated[str, Field(pattern=rf"^{VERSION}$")]
    debian: Annotated[str, Field(pattern="^[a-z]{1,20}$")]
    architecture: Annotated[str, Field(pattern="^[a-z0-9]{1,20}$")]
    outbox_format: Annotated[int, Field(ge=1, le=10**6)]
    unpacked_bytes: Annotated[int, Field(ge=1, le=2**40)]

    @classmethod
    def of(cls, name: str, custom: Any) -> Self:
        """Read what is said of a target of this name.

        Raises
        ------
        ProvisioningError
            It is no release, or is said to be another than its name says.
        """
        try:
            facts = cls.model_validate(custom)
        except ValidationError as error:
            raise ProvisioningError(
                f"{name}: {error.errors()[0]['msg']} in what its owner says of it; publish it anew"
            ) from None
        if facts.name != name:
            raise ProvisioningError(
                f"{name}: its owner calls it {facts.name}; publish it under that name"
            )
        return facts

    @property
    def name(self) -> str:
        """What its archive is called."""
        return f"gunfire-node-{self.version}-{self.debian}-{self.architecture}.tar.zst"

    @property
    def number(self) -> tuple[int, ...]:
        """Its version, to compare."""
        return number(self.version)


def number(version: str) -> tuple[int, ...]:
    """Give a version as numbers, to compare.

    Raises
    ------
    ProvisioningError
        It is not three numbers.
    """
    if not re.fullmatch(VERSION, version):
        raise ProvisioningError(f"{version!r} is no version; three numbers are, such as 1.4.0")
    return tuple(map(int, version.split(".")))


def parts_of(name: str) -> dict[str, str]:
    """Give version, Debian and architecture by an archive's name.

    Raises
    ------
    ProvisioningError
        It is not called as a release is.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise ProvisioningError(
            f"{name}: is not called gunfire-node-<version>-<debian>-<architecture>.tar.zst, with a "
            "version such as 1.4.0; give the file that the build wrote, under the name it had"
        )
    return match.groupdict()


def architecture_here() -> str:
    """Give Debian's name of this machine's architecture."""
    machine = platform.machine()
    return ARCHITECTURES.get(machine, machine)


def debian_here() -> str:
    """Give the code name of this machine's Debian; nothing where it is another system."""
    try:
        return platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    except OSError:
        return ""
