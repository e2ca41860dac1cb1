"""The health: what a node's times, directions and verdicts rest on, told once a minute.

For maintainers and dashboards: QoS 0, not retained, so nothing depends on it. What is wrong stands
in words in the status; this is the figures behind it.
"""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field

from node.messages.detection import Clock
from node.messages.fields import Celsius, Decibels, Message, Metres, Seconds, TopicLevel, Utc, Uuid
from node.messages.status import OutboxStatus

HEALTH_SCHEMA: Final = "gunfire.health/1"


class SampleClockHealth(Message):
    """How the sample counter is mapped to UTC."""

    method: Literal["pps", "host"] = Field(
        description="pps: by a pulse a second in a channel of the card; host: by the time stamps "
        "of the blocks."
    )
    rate_ppm: float | None = Field(
        description="The card's rate against nominal, parts per million; null until measured."
    )
    pulses: int | None = Field(ge=0, description="Pulses taken; null where there is no channel.")
    missed: int | None = Field(ge=0, description="Seconds without their pulse; null likewise.")
    refused: int | None = Field(ge=0, description="Pulses that did not fit; null likewise.")
    reason: str | None = Field(
        max_length=256, description="Why the pulse is not used, a sentence; null where it is."
    )
    host_steps: int = Field(ge=0, description="How often the host's clock was seen to be stepped.")


class ChronyHealth(Message):
    """What chrony says of the host's clock (`chronyc tracking`)."""

    reference: str = Field(max_length=64, description="Its reference: a refclock, or an address.")
    stratum: int = Field(ge=0, description="Stratum; 1 beside a reference clock.")
    synchronised: bool = Field(description="Whether it follows its reference.")
    offset_s: Seconds = Field(description="The host's clock against its estimate, seconds.")
    root_delay_s: Seconds = Field(ge=0, description="Root delay (RFC 5905), seconds.")
    root_dispersion_s: Seconds = Field(ge=0, description="Root dispersion, seconds.")


class ReceiverHealth(Message):
    """What the GNSS receiver says, through gpsd."""

    fix: int = Field(ge=0, le=3, description="0 not known, 1 none, 2 without height, 3 with it.")
    satellites_used: int | None = Field(ge=0, description="Satellites in the fix.")
    satellites_seen: int | None = Field(ge=0, description="Satellites in view.")
    utc_valid: bool = Field(description="Whether its UTC is believed.")
    pps_seen: bool = Field(description="Whether gpsd or the kernel sees its pulse.")
    position_sigma_m: Metres | None = Field(
        ge=0, description="Standard error of the averaged position, metres; null before a fix."
    )


class ArrayHealth(Message):
    """How the microphones do."""

    sample_rate_hz: int = Field(ge=1, description="Nominal sample rate, hertz.")
    channels: int = Field(ge=1, description="Microphones heard.")
    lost_samples: int = Field(ge=0, description="Frames lost since this run began.")
    floor_dbfs: tuple[Decibels | None, ...] = Field(
        description="Background of each microphone in the trigger band, decibels re full scale; "
        "null where it is dead."
    )
    order_proven: bool | None = Field(
        description="Whether the channels are proven to be in order; null for one microphone."
    )
    order_reason: str | None = Field(
        max_length=256, description="How it was proven, or why not, a sentence; null likewise."
    )


class CheckHealth(Message):
    """One thing that the node looks at on itself."""

    name: str = Field(max_length=64, description="What is looked at.")
    verdict: Literal["pass", "warn", "fail"] = Field(
        description="pass: well; warn: it hears all the same; fail: it does not hear, or cannot "
        "judge or keep what it hears."
    )
    figure: str = Field(max_length=512, description="What was found, a sentence with its figure.")
    advice: str = Field(max_length=512, description="What to do next; empty where all is well.")


class BoardHealth(Message):
    """What the board says; null is what is not fitted or cannot be read."""

    enclosure_c: Celsius | None = Field(description="Temperature inside, degrees Celsius.")
    processor_c: Celsius | None = Field(
        description="Temperature of the processor, degrees Celsius."
    )
    under_voltage: bool | None = Field(description="Whether the supply has just been too low.")
    throttled: bool | None = Field(description="Whether the processor is slowed down for it.")
    enclosure_open: bool | None = Field(description="Whether the tamper switch is open.")
    maintenance: bool | None = Field(description="Whether somebody works at the node.")


class Health(Message):
    """The figures behind a node's status."""

    message_schema: Literal["gunfire.health/1"] = Field(
        alias="schema", description="Names this form; another number would be another contract."
    )
    site: TopicLevel = Field(description="Name of the site.")
    node_id: TopicLevel = Field(description="Name of the node.")
    boot_id: Uuid = Field(description="Names the run of the node.")
    utc: Utc = Field(description="When this was so, by the node's own clock, UTC.")
    uptime_s: Seconds = Field(ge=0, description="Time since this run began, seconds.")
    clock: Clock = Field(description="The clock now, as a detection would say it.")
    sample_clock: SampleClockHealth = Field(description="The sample counter's way to UTC.")
    chrony: ChronyHealth | None = Field(description="What chrony says; null where it is silent.")
    receiver: ReceiverHealth | None = Field(
        description="What the receiver says; null where there is none."
    )
    array: ArrayHealth = Field(description="The microphones.")
    outbox: OutboxStatus | None = Field(
        description="What waits on the node's disk, as counted last; null from a node without one."
    )
    firmware: str = Field(min_length=1, max_length=64, description="Version of this software.")
    condition: Literal["ok", "degraded", "failed"] | None = Field(
        default=None,
        exclude_if=lambda condition: condition is None,
        description="The worst of the checks: ok, degraded (a warn) or failed (a fail); absent "
        "from a node that says none.",
    )
    checks: tuple[CheckHealth, ...] | None = Field(
        default=None,
        max_length=64,
        exclude_if=lambda checks: checks is None,
        description="What the node looks at on itself, in the order in which a sound passes; "
        "absent likewise.",
    )
    board: BoardHealth | None = Field(
        default=None,
        exclude_if=lambda board: board is None,
        description="Light, lid, supply and temperatures; absent likewise.",
    )
