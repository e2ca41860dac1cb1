"""`gunfire-fleet`: beside the broker, who belongs to the fleet."""

from __future__ import annotations

import json
import logging
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Final, NoReturn
from urllib.parse import urlsplit

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from node.cli._shared import Level, Utc, printable
from node.deliver import BrokerAddress
from node.errors import BrokerError, GunfireNodeError, ProvisioningError
from node.messages import Status
from node.network import Subscription
from node.network.subscribe import Kind
from provisioning.est import CarriedRequest, read_request
from provisioning.fleet.files import SECRET, locked, now, read, write
from provisioning.fleet.fleet import INVITED_DAYS, Fleet, RefusedError
from provisioning.fleet.inventory import Inventory, Member, Reason
from provisioning.fleet.nats import users
from provisioning.fleet.server import PORT, make_server
from provisioning.fleet.verify import (
    POLL_S,
    READS,
    VERIFIER,
    Proof,
    key_of,
    member_of,
    trust_of,
    wait_for_enrolment,
)
from provisioning.fleet.watch import Watch
from provisioning.invitation import Invitation
from provisioning.update.cli import release

_STATUS: Final[tuple[Kind, ...]] = ("status",)
_WIDTH: Final = 200
"""Of a table that goes into a file or a pipe."""
_STOPPED: Final = 130
VERIFIED_WITHIN_S: Final = 900
"""A receiver that was never on before may need 12.5 minutes to know the leap seconds."""
SETTLES_S: Final = 90
"""chrony needs a minute."""
_WRONG: Final = "what it says is wrong (above) to go away"
_BUSY: Final = "waits until somebody else has verified a node"
"""Since a broker lets each name in once, two would throw each other out."""
_RELOAD: Final = "the broker goes by it once it has the new crl.pem"


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="gunfire-node")
@click.option(
    "--fleet",
    "folder",
    type=click.Path(path_type=Path),
    default="fleet",
    show_default=True,
    envvar="GUNFIRE_FLEET",
    show_envvar=True,
    metavar="FOLDER",
    help="The fleet's folder: its CA, its inventory, its releases.",
)
@click.pass_context
def cli(ctx: click.Context, folder: Path) -> None:
    """Enrol nodes, revoke them, and say who belongs to the fleet.

    Example: gunfire-fleet init --name broker.local --site riverside
    """
    ctx.obj = folder


def _fleet(ctx: click.Context) -> Fleet:
    return Fleet.load(ctx.obj)


@cli.command()
@click.option(
    "--name",
    "names",
    multiple=True,
    required=True,
    metavar="HOST",
    help="How nodes call the broker: its name or address; again for each.",
)
@click.option("--site", type=Level(), required=True, help="Name of the site of most nodes.")
@click.option("--authority", default="gunfire fleet CA", show_default=True, help="The CA's name.")
@click.pass_context
def init(ctx: click.Context, names: tuple[str, ...], site: str, authority: str) -> None:
    """Make a fleet: its CA, the broker's certificate, the list of what is revoked.

    Example: gunfire-fleet init --name broker.local --name 192.0.2.7 --site riverside
    """
    fleet = Fleet.make(ctx.obj, names, site, authority)
    click.echo(f"{fleet.folder}: ca.crt, crl.pem, broker.crt and broker.key for the broker")
    click.echo(f"keep {fleet.folder / 'ca.key'}: whoever has it can make a node")


@cli.command()
@click.argument("name", type=Level())
@click.option(
    "--name",
    "addresses",
    multiple=True,
    metavar="HOST",
    help="For a broker: how it is called; again for each.",
)
@click.option("--peer", is_flag=True, help="For a broker of a cluster, which calls its equals too.")
@click.option(
    "--request",
    "request_file",
    type=click.Path(path_type=Path),
    metavar="PEM",
    help="Certify this request's key; without, a key is made.",
)
@click.pass_context
def issue(
    ctx: click.Context, name: str, addresses: tuple[str, ...], peer: bool, request_file: Path | None
) -> None:
    """Issue a certificate to one who reads (operator, map, auditor, evidence), or to a broker.

    What a name may read, the broker's access list says; any other reads statuses alone.

    Example: gunfire-fleet issue operator
    """
    fleet, request = _fleet(ctx), None
    if request_file is not None:
        try:
            request = read_request(read(request_file, "name a request (PKCS#10, PEM)"))
        except ValueError as error:
            raise ProvisioningError(f"{request_file}: {error}") from None
    file = fleet.issue(name, request=request, addresses=addresses, peer=peer)
    keys = "" if request is not None else f" and {file.with_suffix('.key').name}"
    click.echo(f"{file}{keys}: for {name} of {fleet.settings.site}")


@cli.command()
@click.argument("node_id", type=Level())
@click.option("--site", type=Level(), help="Its site; the one in fleet.toml if absent.")
@click.option(
    "--days",
    type=click.IntRange(1, 365),
    default=INVITED_DAYS,
    show_default=True,
    help="How long the token is good.",
)
@click.option("--by-hand", is_flag=True, help="For a node that cannot reach us: no token.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Where the invitation is written; NODE_ID.json if absent.",
)
@click.pass_context
def invite(
    ctx: click.Context,
    node_id: str,
    site: str | None,
    days: int,
    by_hand: bool,
    output: Path | None,
) -> None:
    """Make a node's way in: a file with a one-time token, for `gunfire-card`.

    Example: gunfire-fleet invite node-0001 --site riverside -o node-0001.json
    """
    fleet = _fleet(ctx)
    member = fleet.inventory.read().members.get(node_id)
    before = member is not None and any(not i.revoked for i in member.certificates)
    unused = member is not None and member.invitation is not None and not member.invitation.keys
    file = output or Path(f"{node_id}.json")

    def give(invitation: Invitation) -> None:
        write(file, invitation.text().encode(), SECRET)

    invitation = fleet.invite(node_id, site, days, by_hand=by_hand, give=give)
    what = "no token: its requests are carried" if by_hand else f"a token, good for {days} days"
    click.echo(f"{file}: {node_id} of {invitation.site}, {what}")
    if unused:
        click.echo(
            "note: its invitation of before does not count any more: a card that has it is refused",
            err=True,
        )
    if before:
        click.echo(
            f"note: the certificates it has stay good; once the new box is enrolled: gunfire-fleet "
            f"revoke {node_id} --old",
            err=True,
        )


@cli.command()
@click.option("--host", default="0.0.0.0", show_default=True, help="Address to listen at.")  # noqa: S104
@click.option("--port", type=click.IntRange(1, 65535), default=PORT, show_default=True)
@click.pass_context
def serve(ctx: click.Context, host: str, port: int) -> None:
    """Enrol nodes that ask, renew their certificates, hand out releases, until told to stop.

    Example: gunfire-fleet --fleet /var/lib/gunfire-fleet serve
    """
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    fleet = _fleet(ctx)
    fleet.renew_brokers()  # a power cut may have come between its key and its certificate
    server = make_server(fleet, host, port)
    fleet.write_revocations()  # a power cut may have come between a revocation and its list
    click.echo(f"gunfire-fleet: serves at https://{host}:{port}", err=True)
    for number in (signal.SIGTERM, signal.SIGINT):
        # Another thread: it waits for those that serve.
        signal.signal(number, lambda *_: threading.Thread(target=server.stop).start())
    server.serve()


@cli.command()
@click.argument("request", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Where the answer is written; gunfire-node-response.json beside the request if absent.",
)
@click.option("--yes", is_flag=True, help="Ask nothing.")
@click.pass_context
def sign(ctx: click.Context, request: Path, output: Path | None, yes: bool) -> None:
    """Answer a request that was carried here from a node's card.

    Example: gunfire-fleet sign /media/GUNFIRE/gunfire-node-request.json
    """
    fleet, carried = _fleet(ctx), CarriedRequest.read(request)
    click.echo(f"{carried.node_id} of {carried.site}, key_id {carried.key_id or 'none'}", err=True)
    if not yes:
        click.confirm("Is this the node whose card it is?", abort=True, err=True)
    try:
        answer = fleet.sign(carried, f"{request}")
    except RefusedError as refusal:
        raise ProvisioningError(f"{request}: {refusal.why}") from None
    file = output or request.with_name("gunfire-node-response.json")
    write(file, answer.text().encode(), 0o644)
    click.echo(f"{file}: put it on the node's card, beside its request")


@cli.command()
@click.argument("name", type=Level())
@click.option(
    "--since",
    type=Utc(),
    metavar="UTC",
    help="From when its keys are not to be believed; what was signed before stands. Now if absent.",
)
@click.option(
    "--reason",
    type=click.Choice(["stolen", "replaced", "ended"]),
    default="stolen",
    show_default=True,
)
@click.option("--old", is_flag=True, help="Only what it had before its last invitation.")
@click.pass_context
def revoke(ctx: click.Context, name: str, since: int | None, reason: Reason, old: bool) -> None:
    """Revoke a name's certificates: the broker's, and the one of its signing key.

    Example: gunfire-fleet revoke node-0001 --since 2026-11-28T12:00:00Z
    """
    fleet = _fleet(ctx)
    moment = None if since is None else datetime.fromtimestamp(since // 10**9, now().tzinfo)
    found = fleet.revoke(name, reason, moment, old=old)
    for issued in found:
        click.echo(f"revoked: {name}, {issued.kind}, serial {issued.serial}")
    if not found:
        click.echo(f"{name}: its invitation does not count any more")
    click.echo(f"{fleet.folder / 'crl.pem'}: {_RELOAD}")


@cli.command()
@click.pass_context
def renew(ctx: click.Context) -> None:
    """Write crl.pem anew, and the broker's certificate where a third of its life is left.

    For a timer, daily: a list that has run out has Mosquitto let nobody in.

    Example: gunfire-fleet --fleet /var/lib/gunfire-fleet renew
    """
    fleet = _fleet(ctx)
    for name in fleet.renew_brokers():
        click.echo(f"{fleet.folder / name}.crt: issued anew; the broker goes by it once it has it")
    click.echo(f"{fleet.write_revocations()}: good for {fleet.settings.crl_days} days")


@cli.command()
@click.argument("name", type=Level())
@click.pass_context
def forgive(ctx: click.Context, name: str) -> None:
    """Forget that a name was seen twice, and what it was refused.

    Example: gunfire-fleet forgive node-0001
    """
    _fleet(ctx).forgive(name)


@cli.command("list")
@click.option("--json", "as_json", is_flag=True, help="The inventory with each one's state.")
@click.pass_context
def list_(ctx: click.Context, as_json: bool) -> None:
    """Say who belongs to the fleet, and how it stands with each.

    Example: gunfire-fleet list
    """
    inventory = _fleet(ctx).inventory.read()
    if as_json:
        values = inventory.model_dump(by_alias=True, exclude_none=True)
        for name, member in inventory.members.items():
            values["members"][name]["state"] = member.state(now())
        click.echo(json.dumps(values, ensure_ascii=False))
        return
    _table(inventory)


def _table(inventory: Inventory) -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("name", "site", "state", "until", "issued", "key_id", "seen", "refused"):
        table.add_column(column, no_wrap=column not in ("seen", "refused"))
    for name, member in sorted(inventory.members.items()):
        kinds = [member.newest(kind) for kind in ("mqtt", "signing", "reader", "broker")]
        ends = [issued.not_after_utc[:10] for issued in kinds if issued is not None]
        signing = member.newest("signing")
        last = f": {member.refusals[-1].why}" if member.refusals else ""
        table.add_row(
            name,
            member.site,
            member.state(now()),
            min(ends, default="–"),
            (member.enrolled_utc or "–")[:10],
            signing.key_id if signing is not None and signing.key_id else "–",
            _seen(member),
            escape(printable(f"{member.refused}{last}")) if member.refused else "–",
        )
    console = Console()
    if not console.is_terminal:
        console.width = _WIDTH
    console.print(table)
    if inventory.strangers_refused:
        stranger = inventory.strangers[-1]
        console.print(
            f"strangers refused: {inventory.strangers_refused}, last on {stranger.utc[:10]}: "
            f"{escape(printable(stranger.who))}"
        )


def _seen(member: Member) -> str:
    if member.cloned_utc:
        return f"twice since {member.cloned_utc}"
    if member.offline_utc:
        return f"offline since {member.offline_utc}"
    return f"online since {member.online_utc}" if member.online_utc else "–"


@cli.command()
@click.option("--broker", metavar="URL", help="The broker; the one in fleet.toml if absent.")
@click.pass_context
def watch(ctx: click.Context, broker: str | None) -> None:
    """Watch the broker for nodes that are there twice or went offline, until told to stop.

    It goes as `fleet`, whose certificate is made if there is none. What it sees stands in `list`.

    Example: gunfire-fleet --fleet /var/lib/gunfire-fleet watch
    """
    fleet = _fleet(ctx)
    address = _address(fleet, "fleet", broker)
    words = Subscription(address, kinds=_STATUS, client_id="fleet")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: words.close())
    seen = Watch(fleet, lambda sentence: click.echo(printable(sentence)))
    with words:
        click.echo(f"gunfire-fleet: watches at {address}", err=True)
        for word in words:
            if isinstance(word.message, Status):
                seen.take(word.message)


def _address(fleet: Fleet, name: str, broker: str | None) -> BrokerAddress:
    """Give the broker with the certificate of one of our own names, issued where it has none."""
    members = fleet.inventory.read().members
    member = members.get(name)
    if member is not None and member.role != "reader":
        raise ProvisioningError(
            f"{name}: is the name of a {member.role} here, and the broker lets this name read what "
            "others say: that one is to have another name, and this one to be taken out of "
            f"{fleet.inventory.path} by hand"
        )
    files = [fleet.folder / f"{name}{ending}" for ending in (".crt", ".key")]
    lacks = member is None or member.state(fleet.clock()) != "enrolled"
    if lacks or not all(file.exists() for file in files):
        fleet.issue(name)
    return BrokerAddress.from_url(
        broker or _nearest(fleet.settings.broker, members),
        ca_file=fleet.folder / "ca.crt",
        cert_file=files[0],
        key_file=files[1],
    )


def _nearest(url: str, members: Mapping[str, Member]) -> str:
    """Give the broker's address from here: nodes may know it by one that does not lead back."""
    port = urlsplit(url).port or 8883
    if "broker" not in members or "localhost" not in members["broker"].addresses:
        return url
    try:
        socket.create_connection(("localhost", port), timeout=2.0).close()
    except OSError:
        return url
    return f"mqtts://localhost:{port}"


@cli.command()
@click.argument("node_id", type=Level())
@click.option("--broker", metavar="URL", help="The broker; the one beside this if absent.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.IntRange(min=1),
    default=VERIFIED_WITHIN_S,
    show_default=True,
    metavar="S",
    help="How long to wait for all of it, seconds.",
)
@click.option(
    "--settle",
    "settle_s",
    type=click.IntRange(min=0),
    default=SETTLES_S,
    show_default=True,
    metavar="S",
    help="How long a node that was heard may say that something is wrong, of that.",
)
@click.pass_context
def verify(
    ctx: click.Context, node_id: str, broker: str | None, timeout_s: int, settle_s: int
) -> None:
    """Wait until a node is enrolled, online, and has signed what it hears; clap once at it.

    May be called before the node is switched on. Ends with 0 and VERIFIED, and what the node says
    is wrong if anything is; with 1 and what is missing; with 2 where it cannot be judged. It goes
    as `verifier`, whose certificate is made if there is none.

    Example: gunfire-fleet verify node-0001
    """
    fleet, until_s = _fleet(ctx), time.monotonic() + timeout_s

    def tell(said: str) -> None:
        click.echo(printable(said))

    def listening(site: str) -> Subscription:
        address = _address(fleet, VERIFIER, broker)
        return Subscription(address, kinds=READS, site=site, node_id=node_id, client_id=VERIFIER)

    lock = fleet.folder / ".verify.lock"
    before, _ = member_of(fleet, node_id)
    with locked(lock, lambda: tell(_BUSY)), listening(before.site):
        pass  # whether the broker lets us in is to be known before anybody waits
    member = wait_for_enrolment(fleet, node_id, until_s, tell)
    if member is None:
        _not_verified(
            node_id,
            "it is not enrolled (above): is it switched on, has it network, does its light count?",
        )
    tell(f"enrolled: {node_id} of {member.site}, key_id {key_of(member)}")
    proof = Proof(key_of(member), lambda: fleet.clock().timestamp(), tell, settle_s)
    with locked(lock, lambda: tell(_BUSY)), listening(member.site) as words:
        _wait(words, proof, until_s, tell)
    if proof.waits_for:
        _not_verified(node_id, f"after {timeout_s} s it still waits for {proof.waits_for}")
    report = proof.report(trust_of(fleet))
    for finding in report.findings:
        tell(f"{finding.kind.upper()}: {finding.sentence}")
    keys = {key.key_id for chain in report.chains.values() for key in chain.keys}
    if not report.holds or keys != {proof.key_id}:
        _not_verified(node_id, "what it sent does not hold (above)")
    member, lacks = member_of(fleet, node_id)
    if lacks or key_of(member) != proof.key_id:
        _not_verified(node_id, lacks or "it was enrolled anew meanwhile: verify it again")
    state = "degraded" if proof.degraded else "online"
    but = f", and says: {proof.degraded}" if proof.degraded else ""
    tell(f"VERIFIED: {node_id} is enrolled, {state}, and signs what it hears{but}")


def _wait(words: Subscription, proof: Proof, until_s: float, tell: Callable[[str], None]) -> None:
    """Take words until nothing is missing, or the time is up.

    Raises
    ------
    BrokerError
        It is up, and the broker is away.
    """
    said = ""
    while (left_s := until_s - time.monotonic()) > 0 and (proof.waits_for or proof.settles):
        word = words.next(min(left_s, POLL_S))
        if word is not None:
            proof.take(word)
            continue
        # Only once it is quiet: what the broker keeps comes at once.
        missing = words.away or proof.waits_for or f"{_WRONG}, {proof.settle_s} s at most"
        if missing != said:
            said = missing
            tell(f"waits for {missing}")
    if proof.waits_for and words.away:
        raise BrokerError(words.away)


def _not_verified(name: str, why: str) -> NoReturn:
    click.echo(f"NOT VERIFIED: {name}: {why}")
    sys.exit(1)


@cli.command("nats-users")
@click.pass_context
def nats_users(ctx: click.Context) -> None:
    """Print users.conf for a cluster of nats-servers.

    Example: gunfire-fleet nats-users > users.conf
    """
    click.echo(users(_fleet(ctx).inventory.read(), now()), nl=False)


cli.add_command(release)


def main() -> None:
    """Run the command line; the entry point of `gunfire-fleet`."""
    logging.getLogger("node").addHandler(logging.NullHandler())
    try:
        code = cli(prog_name="gunfire-fleet", standalone_mode=False)
    except (GunfireNodeError, OSError) as error:
        for line in str(error).splitlines():
            click.echo(f"gunfire-fleet: {line}", err=True)
        sys.exit(2)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo("\ngunfire-fleet: stopped", err=True)
        sys.exit(_STOPPED)
    sys.exit(code)
