"""docs/do/run-a-broker.md: its commands, as they stand there, make a CA that the broker goes by."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography import x509

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "do" / "run-a-broker.md"

pytestmark = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="openssl is not installed; it makes certificates"
)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run every block of shell on the page, in one shell, in order."""
    folder = tmp_path_factory.mktemp("operator")
    (folder / "provisioning").symlink_to(ROOT / "provisioning")
    script = "\n".join(re.findall(r"```sh\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL))
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / "fleet"


@pytest.mark.parametrize(
    ("name", "purpose"),
    [("broker", "sslserver"), ("operator", "sslclient"), ("node-0001", "sslclient")],
)
def test_each_certificate_is_one_of_the_ca_and_for_its_purpose(
    name: str, purpose: str, fleet: Path
) -> None:
    subprocess.run(
        ["openssl", "verify", "-x509_strict", "-CAfile", "ca.crt", "-purpose", purpose,
         f"{name}.crt"],
        cwd=fleet, check=True, capture_output=True,
    )  # fmt: skip
    certificate = x509.load_pem_x509_certificate((fleet / f"{name}.crt").read_bytes())
    (common_name,) = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    assert common_name.value == name


def test_the_stolen_node_is_on_the_list_and_the_operator_is_not(fleet: Path) -> None:
    crl = x509.load_pem_x509_crl((fleet / "crl.pem").read_bytes())

    def listed(name: str) -> bool:
        certificate = x509.load_pem_x509_certificate((fleet / f"{name}.crt").read_bytes())
        return crl.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None

    assert listed("node-0001")
    assert not listed("operator")
