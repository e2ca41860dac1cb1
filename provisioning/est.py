"""What passes between a node and the fleet's authority: EST (RFC 7030), or two files by hand.

Of EST: certificates of the authority, enrolment and renewal, in two labels, one for each of a
node's keys. Where the node cannot reach the authority, its requests and the answer are carried:
`CarriedRequest` and `CarriedResponse`, a JSON file each.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, get_args

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import pkcs7
from cryptography.x509.oid import NameOID
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from node.errors import ProvisioningError
from node.messages.signing import key_id
from node.messages.trust import UNREADABLE
from node.settings import TopicLevel
from provisioning.words import authority

Kind = Literal["mqtt", "signing"]
"""Which of a node's keys: the one that the broker knows it by, or the one it signs with."""
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
Operation = Literal["simpleenroll", "simplereenroll"]

ROOT: Final = "/.well-known/est"
CA_CERTIFICATES: Final = f"{ROOT}/cacerts"
REQUEST_TYPE: Final = "application/pkcs10"
CERTIFICATES_TYPE: Final = "application/pkcs7-mime; smime-type=certs-only"
CA_TYPE: Final = "application/pkcs7-mime"
MOST_BYTES: Final = 16 * 1024
"""Of a request or an answer; ours have some 500."""
LEAST_RSA_BITS: Final = 3072

PrivateKey = ec.EllipticCurvePrivateKey | Ed25519PrivateKey


def path(kind: Kind, operation: Operation) -> str:
    """Give the path of an operation under a label."""
    return f"{ROOT}/{kind}/{operation}"


def make_request(key: PrivateKey, node_id: str, site: str) -> x509.CertificateSigningRequest:
    """Ask for a certificate over a key. The name is a courtesy: the authority gives its own."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(name(node_id, site))
    return builder.sign(key, None if isinstance(key, Ed25519PrivateKey) else hashes.SHA256())


def name(common_name: str, organization: str) -> x509.Name:
    """Give the subject of a certificate of the fleet."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def encode_request(request: x509.CertificateSigningRequest) -> bytes:
    """Write a request as EST sends it: base64 of DER, in lines."""
    return base64.encodebytes(request.public_bytes(serialization.Encoding.DER))


def decode_request(body: bytes) -> x509.CertificateSigningRequest:
    """Read a request, and see that whoever made it holds the key.

    Raises
    ------
    ValueError
        It is no request (PKCS#10), or is not signed by its own key.
    """
    try:
        der = base64.b64decode(b"".join(body.split()), validate=True)
        request = x509.load_der_x509_csr(der)
    except UNREADABLE:
        raise ValueError("is no certificate request (PKCS#10, base64)") from None
    return _proven(request)


def read_request(pem: bytes) -> x509.CertificateSigningRequest:
    """Read a request in PEM; raises as `decode_request` does."""
    try:
        request = x509.load_pem_x509_csr(pem)
    except UNREADABLE:
        raise ValueError("is no certificate request (PKCS#10, PEM)") from None
    return _proven(request)


def _proven(request: x509.CertificateSigningRequest) -> x509.CertificateSigningRequest:
    try:
        proven = request.is_signature_valid
    except (InvalidSignature, *UNREADABLE):
        proven = False
    if not proven:
        raise ValueError("is not signed by the key that it asks a certificate for")
    return request


def see_that_fits(request: x509.CertificateSigningRequest, kind: Kind | None) -> None:
    """See that the key is of the kind that is asked for; `None` is whoever is no node.

    Raises
    ------
    ValueError
        It is another, or too short.
    """
    try:
        key = request.public_key()
    except UNREADABLE:
        key = None
    is_p256 = isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)
    if kind == "signing":
        if not isinstance(key, Ed25519PublicKey):
            raise ValueError("is over a key of another kind: a node signs with Ed25519")
    elif kind == "mqtt":
        if not is_p256:
            raise ValueError("is over a key of another kind: a node connects with EC P-256")
    elif not is_p256 and not (isinstance(key, rsa.RSAPublicKey) and key.key_size >= LEAST_RSA_BITS):
        raise ValueError(f"is over a key that is neither EC P-256 nor RSA of {LEAST_RSA_BITS} bits")


def encode_certificates(certificates: Sequence[x509.Certificate]) -> bytes:
    """Write certificates as EST sends them: base64 of PKCS#7 without a signature."""
    return base64.encodebytes(
        pkcs7.serialize_certificates(list(certificates), serialization.Encoding.DER)
    )


def decode_certificates(body: bytes) -> list[x509.Certificate]:
    """Read certificates as EST sends them.

    Raises
    ------
    ValueError
        It holds none.
    """
    try:
        found = pkcs7.load_der_pkcs7_certificates(
            base64.b64decode(b"".join(body.split()), validate=True)
        )
    except UNREADABLE:
        found = []
    if not found:
        raise ValueError("holds no certificate (PKCS#7, base64)")
    return found


def key_print(of: x509.Certificate | x509.CertificateSigningRequest | PrivateKey) -> str:
    """Give the SHA-256 of a public key (SubjectPublicKeyInfo), hexadecimal."""
    public = of.public_key()
    return hashlib.sha256(
        public.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    ).hexdigest()


def pem(of: x509.Certificate | x509.CertificateSigningRequest) -> str:
    """Write a certificate or request as text."""
    return of.public_bytes(serialization.Encoding.PEM).decode("ascii")


def _pem_request(text: str) -> str:
    read_request(text.encode())
    return text


def _pem_certificate(text: str) -> str:
    try:
        x509.load_pem_x509_certificate(text.encode())
    except UNREADABLE:
        raise ValueError("is no certificate (X.509, PEM)") from None
    return text


class _Carried(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read it from its file.

        Raises
        ------
        ProvisioningError
            It cannot be read, or is something else.
        """
        what = f"the file is not whole, or no {cls.model_fields['form'].default}: carry it anew"
        try:
            with path.open("rb") as file:
                data = file.read(4 * MOST_BYTES + 1)
        except OSError as error:
            raise ProvisioningError(f"{path}: cannot be read: {error.strerror}") from None
        try:
            if len(data) > 4 * MOST_BYTES:
                raise ValueError
            values: Any = json.loads(data)
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors(include_input=False)[0]
            where = ".".join(map(str, first["loc"])) or "the whole"
            told = first["msg"].removeprefix("Value error, ")
            raise ProvisioningError(f"{path}: {where}: {told}; {what}") from None
        except (ValueError, RecursionError):
            raise ProvisioningError(f"{path}: {what}") from None

    def text(self) -> str:
        """Write it."""
        return json.dumps(self.model_dump(by_alias=True), indent=2) + "\n"


class CarriedRequest(_Carried):
    """What a node asks for, carried to the fleet by hand; nothing in it is secret."""

    form: Literal["gunfire.request/1"] = Field(default="gunfire.request/1", alias="schema")
    node_id: TopicLevel
    site: TopicLevel
    requests: dict[Kind, Annotated[str, AfterValidator(_pem_request)]]

    @property
    def key_id(self) -> str | None:
        """The short name of the signing key, as `gunfire-node check` says it; None without one."""
        if "signing" not in self.requests:
            return None
        public = read_request(self.requests["signing"].encode()).public_key()
        if not isinstance(public, Ed25519PublicKey):
            return None
        return key_id(public.public_bytes_raw())


class CarriedResponse(_Carried):
    """What the fleet answers."""

    form: Literal["gunfire.response/1"] = Field(default="gunfire.response/1", alias="schema")
    node_id: TopicLevel
    site: TopicLevel
    ca: Annotated[str, AfterValidator(authority)]
    certificates: dict[Kind, Annotated[str, AfterValidator(_pem_certificate)]]
