"""The signing key and its certificate: made once, read by us alone, refused with a sentence."""

import os
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID

from node.errors import IdentityError
from node.identity import CertificateWatch, load_identity

DAY_NS = 86_400 * 10**9
ISSUED = datetime(2026, 1, 1, tzinfo=UTC)
ISSUED_NS = round(ISSUED.timestamp()) * 10**9


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    return tmp_path / "state" / "node.key"


def certificate(
    folder: Path, key: Ed25519PrivateKey, node_id: str = "roof-1", site: str | None = "city"
) -> Path:
    """Have some CA certify a key for a year."""
    name = [x509.NameAttribute(NameOID.COMMON_NAME, node_id)]
    if site is not None:
        name.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, site))
    issued = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(name))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fleet")]))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(ISSUED)
        .not_valid_after(ISSUED + timedelta(days=365))
        .sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    )
    file = folder / "node.crt"
    file.write_bytes(issued.public_bytes(serialization.Encoding.PEM))
    return file


def raw(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes_raw()


def test_a_key_is_made_once_private_and_the_same_ever_after(key_file: Path) -> None:
    first = load_identity(key_file, None, "roof-1", "city")
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert [file.name for file in key_file.parent.iterdir()] == ["node.key"]
    assert raw(load_identity(key_file, None, "roof-1", "city").private_key) == raw(
        first.private_key
    )
    assert first.reason(0) == ""


def test_the_mode_does_not_depend_on_the_umask(key_file: Path) -> None:
    key_file.parent.mkdir()
    before = os.umask(0o777)
    try:
        load_identity(key_file, None, "roof-1", "city")
    finally:
        os.umask(before)
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600


def test_openssl_reads_the_key_and_we_read_openssls(key_file: Path, tmp_path: Path) -> None:
    load_identity(key_file, None, "roof-1", "city")
    text = subprocess.run(
        ["openssl", "pkey", "-in", key_file, "-noout", "-text"], capture_output=True, check=True
    ).stdout
    assert text.startswith(b"ED25519 Private-Key")
    theirs = tmp_path / "theirs.key"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", theirs], check=True)
    theirs.chmod(0o600)
    load_identity(theirs, None, "roof-1", "city")


def test_what_a_start_that_was_cut_off_has_left_is_no_hindrance(key_file: Path) -> None:
    key_file.parent.mkdir()
    key_file.with_name("node.key.new").write_bytes(b"-----BEGIN PRIV")
    load_identity(key_file, None, "roof-1", "city")
    assert [file.name for file in key_file.parent.iterdir()] == ["node.key"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o777, 0o620])
def test_a_key_that_others_may_read_is_refused(key_file: Path, mode: int) -> None:
    load_identity(key_file, None, "roof-1", "city")
    key_file.chmod(mode)
    with pytest.raises(IdentityError, match=f"has mode {mode:04o}, so others may read it: .*chmod"):
        load_identity(key_file, None, "roof-1", "city")


@pytest.mark.parametrize(("mode", "good"), [(0o400, True), (0o440, True), (0o444, False)])
def test_a_credential_of_systemd_is_taken_as_systemd_lays_it_down(
    key_file: Path, monkeypatch: pytest.MonkeyPatch, mode: int, good: bool
) -> None:
    load_identity(key_file, None, "roof-1", "city")
    key_file.chmod(mode)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(key_file.parent))
    if good:
        load_identity(key_file, None, "roof-1", "city")
    else:
        with pytest.raises(IdentityError, match="has mode 0444"):
            load_identity(key_file, None, "roof-1", "city")


def test_a_key_of_another_user_is_refused(key_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_identity(key_file, None, "roof-1", "city")
    uid = key_file.stat().st_uid
    if uid == 0:
        os.chown(key_file, 4242, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
    with pytest.raises(IdentityError, match="belongs to another user"):
        load_identity(key_file, None, "roof-1", "city")


PEM_RSA = ["openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]
PEM_ENCRYPTED = ["openssl", "genpkey", "-algorithm", "ed25519", "-aes256", "-pass", "pass:secret"]


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (PEM_RSA, "is a key of another kind; a node signs with Ed25519"),
        (PEM_ENCRYPTED, "is not an unencrypted"),
    ],
)
def test_a_key_of_another_kind_is_refused(key_file: Path, command: list[str], why: str) -> None:
    key_file.parent.mkdir()
    key_file.write_bytes(subprocess.run(command, capture_output=True, check=True).stdout)
    key_file.chmod(0o600)
    with pytest.raises(IdentityError, match=why):
        load_identity(key_file, None, "roof-1", "city")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hunter2hunter2",
        b"\xff\x00" * 99,
        b"-----BEGIN PRIVATE KEY-----\nhunter2hunter2==\n-----END PRIVATE KEY-----\n",
    ],
)
def test_what_is_no_key_is_refused_and_never_quoted_nor_replaced(
    key_file: Path, content: bytes
) -> None:
    key_file.parent.mkdir()
    key_file.write_bytes(content)
    key_file.chmod(0o600)
    with pytest.raises(IdentityError, match="is not an unencrypted private key") as caught:
        load_identity(key_file, None, "roof-1", "city")
    assert "hunter2" not in str(caught.value)
    assert caught.value.__suppress_context__
    assert key_file.read_bytes() == content


def test_a_folder_a_pipe_and_a_device_are_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(IdentityError, match=r"is not a regular file|cannot be read"):
            load_identity(path, None, "roof-1", "city")


def test_a_certificate_that_is_a_pipe_is_refused_without_waiting(
    key_file: Path, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(IdentityError, match=r"key_file .*: is not there, yet integrity\.cert"):
        load_identity(key_file, tmp_path / "pipe", "roof-1", "city")
    load_identity(key_file, None, "roof-1", "city")
    with pytest.raises(IdentityError, match=r"certificate_file .*: is not a regular file; set"):
        load_identity(key_file, tmp_path / "pipe", "roof-1", "city")


def test_a_link_to_nothing_is_told_as_such(key_file: Path) -> None:
    key_file.parent.mkdir(parents=True, exist_ok=True)
    key_file.symlink_to("nothing")
    with pytest.raises(IdentityError, match=r"it is a link to nothing: mend it, or remove it"):
        load_identity(key_file, None, "roof-1", "city")


def test_a_folder_that_cannot_be_written_is_told() -> None:
    with pytest.raises(IdentityError, match=r"is not there and cannot be made .*: let this user"):
        load_identity(Path("/proc/nothing/node.key"), None, "roof-1", "city")


def test_a_certificate_over_this_key_in_this_nodes_name_is_taken_and_its_dates_are_watched(
    key_file: Path, tmp_path: Path
) -> None:
    key = load_identity(key_file, None, "roof-1", "city").private_key
    file = certificate(tmp_path, key)
    identity = load_identity(key_file, file, "roof-1", "city")
    assert identity.certificate == file.read_text()
    assert "not valid yet" in identity.reason(ISSUED_NS - 1)
    assert identity.reason(ISSUED_NS) == ""
    assert identity.reason(ISSUED_NS + 335 * DAY_NS) == ""
    assert "expires in 29 days" in identity.reason(ISSUED_NS + 336 * DAY_NS)
    assert "has expired" in identity.reason(ISSUED_NS + 366 * DAY_NS)


def test_a_certificate_without_a_site_serves_any(key_file: Path, tmp_path: Path) -> None:
    key = load_identity(key_file, None, "roof-1", "city").private_key
    assert load_identity(key_file, certificate(tmp_path, key, site=None), "roof-1", "x").certificate


def test_a_certificate_of_another_key_node_or_site_is_refused(
    key_file: Path, tmp_path: Path
) -> None:
    key = load_identity(key_file, None, "roof-1", "city").private_key
    with pytest.raises(IdentityError, match="is over another key than"):
        load_identity(
            key_file, certificate(tmp_path, Ed25519PrivateKey.generate()), "roof-1", "city"
        )
    for node_id, site in (("roof-2", "city"), ("roof-1", "town")):
        with pytest.raises(
            IdentityError, match=f"names city/roof-1, this node is {site}/{node_id}"
        ):
            load_identity(key_file, certificate(tmp_path, key), node_id, site)


def test_no_new_key_is_made_beside_the_certificate_of_a_lost_one(
    key_file: Path, tmp_path: Path
) -> None:
    key = load_identity(key_file, None, "roof-1", "city").private_key
    file = certificate(tmp_path, key)
    key_file.unlink()
    with pytest.raises(IdentityError, match=r"is not there, yet .*: bring the key back"):
        load_identity(key_file, file, "roof-1", "city")
    assert not key_file.exists()


def test_before_a_node_is_enrolled_it_signs_and_its_certificate_is_taken_up_once_it_comes(
    key_file: Path, tmp_path: Path
) -> None:
    file = tmp_path / "node.crt"
    identity = load_identity(key_file, file, "roof-1", "city")
    assert identity.certificate is None
    assert f"{file} is not there yet" in identity.lacks
    assert identity.reason(0) == identity.lacks
    watch = CertificateWatch(identity, file, "roof-1", "city")
    assert watch.look() is None
    certificate(tmp_path, identity.private_key)
    taken = watch.look()
    assert taken is not None
    assert (taken.certificate, taken.lacks) == (file.read_text(), "")
    assert raw(taken.private_key) == raw(identity.private_key)
    assert watch.look() is None


def test_a_certificate_that_cannot_be_used_is_told_and_the_one_before_is_used_on(
    key_file: Path, tmp_path: Path
) -> None:
    key = load_identity(key_file, None, "roof-1", "city").private_key
    file = certificate(tmp_path, key)
    watch = CertificateWatch(
        load_identity(key_file, file, "roof-1", "city"), file, "roof-1", "city"
    )
    assert watch.look() is None
    for content in (b"rubbish", certificate(tmp_path, Ed25519PrivateKey.generate()).read_bytes()):
        file.unlink()
        file.write_bytes(content)
        assert watch.look() is None
        assert "a new certificate is not taken up: integrity.certificate_file" in watch.trouble
    file.unlink()
    assert (watch.look(), watch.trouble) == (None, "")


@pytest.mark.parametrize("content", [b"", b"rubbish"])
def test_what_is_no_certificate_is_told(key_file: Path, tmp_path: Path, content: bytes) -> None:
    load_identity(key_file, None, "roof-1", "city")
    file = tmp_path / "node.crt"
    file.write_bytes(content)
    with pytest.raises(IdentityError, match=r"certificate_file .*(cannot be read|is not a cert)"):
        load_identity(key_file, file, "roof-1", "city")


KILLED = """
import os, sys
from pathlib import Path
from node.identity import load_identity
calls = int(sys.argv[2])
def cut(event, args):
    global calls
    if event in ("open", "os.link", "os.remove", "os.mkdir") and str(sys.argv[1]) in str(args):
        calls -= 1
        if calls == 0:
            os._exit(9)
sys.addaudithook(cut)
load_identity(Path(sys.argv[1]) / "state" / "node.key", None, "n", "s")
"""


def test_killed_at_any_step_of_the_making_there_is_a_whole_key_or_none(tmp_path: Path) -> None:
    deaths = 0
    for step in range(1, 12):
        folder = tmp_path / str(step)
        folder.mkdir()
        code = subprocess.run(
            [sys.executable, "-c", KILLED, folder, str(step)], check=False
        ).returncode
        deaths += code == 9
        load_identity(folder / "state" / "node.key", None, "n", "s")
    assert deaths >= 4


BOTH = """
import sys
from pathlib import Path
from node.identity import load_identity
print("ready", flush=True)
for line in sys.stdin:
    key = load_identity(Path(line.strip()), None, "n", "s").private_key
    print(key.public_key().public_bytes_raw().hex(), flush=True)
"""


def test_daemon_and_enrolment_that_make_the_key_at_once_have_the_same(tmp_path: Path) -> None:
    makers = [
        subprocess.Popen(
            [sys.executable, "-c", BOTH], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    try:
        for maker in makers:
            assert maker.stdout.readline() == "ready\n"
        for number in range(100):
            folder = tmp_path / str(number)
            folder.mkdir()
            for maker in makers:
                maker.stdin.write(f"{folder / 'node.key'}\n")
                maker.stdin.flush()
            made = {maker.stdout.readline() for maker in makers}
            assert len(made) == 1
            kept = load_identity(folder / "node.key", None, "n", "s").private_key
            assert made == {f"{kept.public_key().public_bytes_raw().hex()}\n"}
            assert [file.name for file in folder.iterdir()] == ["node.key"]
    finally:
        for maker in makers:
            maker.kill()
            maker.communicate()
