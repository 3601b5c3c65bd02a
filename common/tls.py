"""Who a process of the exchange is to the others: a certificate of the exchange's own authority.

A certificate's subject alternative names hold its role, one of `Role`, as a DNS name. That is what both
sides look at: a server lets roles call it (`common.peers`), and a client wants the role that it means to
talk to, wherever that one runs; so a stolen certificate of market-data does not pass for order-service.
The common name says who holds it, which the audit log keeps of operators.

The authority must sign for this exchange alone: whoever has a certificate of it with a role is believed.

Does not promise: revocation. A certificate that must go is outlived, or the authority is replaced. Files
are read at the start; a new certificate comes with a restart.
"""

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from common.config import BadSetting, Settings

CERT, KEY, AUTHORITY = "EXCHANGE_TLS_CERT", "EXCHANGE_TLS_KEY", "EXCHANGE_TLS_CA"
PUBLIC_CERT, PUBLIC_KEY = "EXCHANGE_PUBLIC_TLS_CERT", "EXCHANGE_PUBLIC_TLS_KEY"


class Role(StrEnum):
    """What a holder of a certificate is to the others."""

    GATEWAY = "gateway"
    ORDER_SERVICE = "order-service"
    MATCHING = "matching"
    MARKET_DATA = "market-data"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Tls:
    """The files of one process, looked at; what they hold is in order."""

    certificate: Path
    key: Path
    authority: Path

    def server_credentials(self) -> grpc.ServerCredentials:
        """For a gRPC port on which every caller shows a certificate of the authority."""
        return grpc.ssl_server_credentials(
            [(self.key.read_bytes(), self.certificate.read_bytes())],
            root_certificates=self.authority.read_bytes(),
            require_client_auth=True,
        )

    def channel_credentials(self) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(
            self.authority.read_bytes(), self.key.read_bytes(), self.certificate.read_bytes()
        )

    def server_context(self) -> ssl.SSLContext:
        """For a plain socket on which every caller shows a certificate of the authority."""
        return self._loaded(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))

    def client_context(self) -> ssl.SSLContext:
        """Pass the server's role as the host name that is expected."""
        return self._loaded(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))

    def _loaded(self, context: ssl.SSLContext) -> ssl.SSLContext:
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(self.authority)
        context.load_cert_chain(self.certificate, self.key)
        return context


def internal_tls(settings: Settings, role: Role) -> Tls | None:
    """What the daemon of this role shows and asks for on the ports between the daemons; None: nothing.

    Without certificates only local mode starts, whose ports are all on loopback. Raises BadSetting, also
    for files that cannot work together.
    """
    named = {CERT: settings.tls_cert, KEY: settings.tls_key, AUTHORITY: settings.tls_ca}
    missing = [name for name, value in named.items() if not value]
    if len(missing) == len(named):
        if settings.local_mode:
            return None
        raise BadSetting(
            f"{CERT}, {KEY} and {AUTHORITY} are empty: outside local mode (EXCHANGE_LOCAL_MODE) the daemons"
            " talk over mutual TLS only; `exchange certs DIR` makes a set, which `exchange up` takes as"
            " EXCHANGE_TLS_DIR"
        )
    if missing:
        raise BadSetting(f"{' and '.join(missing)} must be set too: all of {CERT}, {KEY} and {AUTHORITY}")
    chain = _certificates(CERT, settings.tls_cert)
    authorities = _certificates(AUTHORITY, settings.tls_ca)
    _check_key(KEY, settings.tls_key, CERT, chain[0])
    _check_dates(CERT, chain[0])
    if not any(_has_signed(issuer, chain[0]) for issuer in (*chain[1:], *authorities)):
        raise BadSetting(f"{CERT}: the authority in {AUTHORITY} ({settings.tls_ca}) has not signed it")
    if role not in _dns_names(chain[0]):
        raise BadSetting(f"{CERT}: {settings.tls_cert} is not for {role}, which must be a DNS name in it")
    return Tls(Path(settings.tls_cert), Path(settings.tls_key), Path(settings.tls_ca))


def public_credentials(settings: Settings) -> grpc.ServerCredentials | None:
    """For the public gRPC ports, where callers show no certificate; None: they are plain.

    Raises BadSetting for files that cannot work together.
    """
    certificate, key = settings.public_tls_cert, settings.public_tls_key
    if not (certificate or key):
        return None
    if not (certificate and key):
        raise BadSetting(f"{PUBLIC_CERT} and {PUBLIC_KEY} go together: one of them is empty")
    chain = _certificates(PUBLIC_CERT, certificate)
    _check_key(PUBLIC_KEY, key, PUBLIC_CERT, chain[0])
    _check_dates(PUBLIC_CERT, chain[0])
    return grpc.ssl_server_credentials([(Path(key).read_bytes(), Path(certificate).read_bytes())])


def _read(setting: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise BadSetting(f"{setting}: {path} cannot be read: {error.strerror}") from None


def _certificates(setting: str, path: str) -> list[x509.Certificate]:
    data = _read(setting, path)
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError:
        raise BadSetting(f"{setting}: {path} holds no certificate in PEM form") from None


def _check_key(setting: str, path: str, of: str, certificate: x509.Certificate) -> None:
    data = _read(setting, path)
    try:
        public = load_pem_private_key(data, password=None).public_key()
    except (ValueError, TypeError):  # TypeError: it wants a password.
        raise BadSetting(f"{setting}: {path} holds no private key in PEM form without a password") from None
    form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    if public.public_bytes(*form) != certificate.public_key().public_bytes(*form):
        raise BadSetting(f"{setting}: {path} is not the key of the certificate in {of}")


def _check_dates(setting: str, certificate: x509.Certificate) -> None:
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not begins <= datetime.now(UTC) <= ends:
        raise BadSetting(f"{setting}: the certificate is valid from {begins:%F %T} to {ends:%F %T} UTC only")


def _has_signed(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _dns_names(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return names.get_values_for_type(x509.DNSName)
