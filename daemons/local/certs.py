"""`exchange certs`: an authority of this exchange's own, and a certificate for each role.

For development and for a first installation. The authority's key lies beside the others; keep it elsewhere,
or let another authority sign certificates of the same form: the role as a DNS name (see `common.tls`).
"""

import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from common.tls import Role
from daemons.local.process import LocalError, Progress

AUTHORITY = "ca"
VALID_DAYS = 825  # What browsers and operating systems take at most.
_SKEW = timedelta(minutes=5)  # Clocks differ.

Key = ec.EllipticCurvePrivateKey


def certificate_settings(folder: Path, role: Role) -> dict[str, object]:
    """The settings of a daemon of this role, for a folder that `make_certificates` has filled."""
    return {
        "tls_cert": str(folder / f"{role}.pem"),
        "tls_key": str(folder / f"{role}.key"),
        "tls_ca": str(folder / f"{AUTHORITY}.pem"),
    }


def make_certificates(folder: Path, hosts: Sequence[str], operator: str, progress: Progress) -> None:
    """Fill the folder: NAME.pem and NAME.key (mode 0600) of the authority and of each role.

    `hosts`: names or addresses that clients will know the public ports by, besides localhost.
    `operator`: who holds the operator's certificate; the audit log names them.
    Raises LocalError, and changes nothing, when one of the files is there already.
    """
    names = [AUTHORITY, *Role]
    paths = [folder / f"{name}.{kind}" for name in names for kind in ("pem", "key")]
    for path in paths:
        if path.exists():
            raise LocalError(f"{path} exists already, and nothing is overwritten: name an empty folder")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    authority_key, authority = _authority()
    _write(folder, AUTHORITY, authority_key, authority)
    for role in Role:
        key = _new_key()
        common_name = operator if role is Role.OPERATOR else role.value
        certificate = _certificate(key, common_name, [role.value, *_HOSTS, *hosts], authority_key, authority)
        _write(folder, role, key, certificate)
    progress(
        f"Made an authority and certificates for {', '.join(Role)} in {folder}, valid for {VALID_DAYS} days."
        f" Use them with EXCHANGE_TLS_DIR={folder}, or daemon by daemon with EXCHANGE_TLS_CERT,"
        " EXCHANGE_TLS_KEY and EXCHANGE_TLS_CA."
    )


_HOSTS = ("localhost", "127.0.0.1", "::1")


def _new_key() -> Key:
    return ec.generate_private_key(ec.SECP256R1())


def _authority() -> tuple[Key, x509.Certificate]:
    key = _new_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "exchange authority")])
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)  # Signs, and no more.
    certificate = (
        _begun(name, name, key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    return key, certificate


def _certificate(
    key: Key, common_name: str, hosts: Sequence[str], authority_key: Key, authority: x509.Certificate
) -> x509.Certificate:
    both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    return (
        _begun(subject, authority.subject, key)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage(both), critical=False)
        .add_extension(x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False)
        .add_extension(issuer, critical=False)
        .sign(authority_key, hashes.SHA256())
    )


def _begun(subject: x509.Name, issuer: x509.Name, key: Key) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + timedelta(days=VALID_DAYS))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _write(folder: Path, name: str, key: Key, certificate: x509.Certificate) -> None:
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for kind, data, mode in (
        ("key", secret, 0o600),
        ("pem", certificate.public_bytes(Encoding.PEM), 0o644),
    ):
        # Created with its mode: at no moment can others read a key.
        descriptor = os.open(folder / f"{name}.{kind}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
