"""Tenants' secrets: encrypted in the bucket, versions counted upwards, plain values only on their way to the agent."""

from __future__ import annotations

import hashlib
import secrets as randomness
from collections.abc import Mapping

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from pydantic import SecretStr

from fleet.bucket import Bucket, translated
from fleet.errors import Conflict, FleetError, Invalid
from node.bucket import keys
from node.bucket.cas import Held, new_nonce
from node.bucket.errors import Conflict as Lost
from node.bucket.records import Secret
from node.bucket.spec import SecretRef, TenantSpec

ACCESS_TOKEN = "access-token"  # noqa: S105 - the name of a secret, not one
# Versions that are kept: the newest, those that a spec or its predecessor may name.
KEEP = 8
_ATTEMPTS = 5


def ciphers(key: SecretStr | None) -> MultiFernet | None:
    """Fernet keys, comma-separated: the first encrypts, all decrypt. Raises ValueError when one is malformed."""
    texts = key.get_secret_value().replace(",", " ").split() if key is not None else []
    return MultiFernet([Fernet(t) for t in texts]) if texts else None


class Vault:
    """Reads and writes secrets. Records are cached: a version, once written, never changes."""

    def __init__(self, bucket: Bucket, key: SecretStr | None) -> None:
        """`key` as in `ciphers`."""
        self._bucket = bucket
        self._fernet = ciphers(key)
        self._cache: dict[str, Held[Secret]] = {}

    async def put(self, tenant: str, name: str, value: str) -> SecretRef:
        """The version of a secret that has this value: the newest if it has, else a new one."""
        fernet = self._need(tenant)
        key = keys.secret(tenant, name)
        for _ in range(_ATTEMPTS):
            held = await self._read(key, tenant)
            newest = _newest(held)
            if held is not None and newest and self._open(held.record, newest, tenant) == value:
                return SecretRef(version=newest)
            versions = dict(held.record.versions) if held is not None else {}
            versions[str(newest + 1)] = fernet.encrypt(value.encode()).decode()
            kept = dict(sorted(versions.items(), key=lambda item: int(item[0]))[-KEEP:])
            record = Secret(nonce=new_nonce(), tenant=tenant, name=name, versions=kept)
            try:
                with translated(tenant, writes=True):
                    self._cache[key] = await self._bucket.write(key, record, held.etag if held else None)
                return SecretRef(version=newest + 1)
            except FleetError as e:
                self._cache.pop(key, None)
                if not isinstance(e.__cause__, Lost):
                    raise
        raise Conflict(f"the secret {name} of {tenant} keeps changing; try again", tenant=tenant)

    async def check(self, tenant: str, refs: Mapping[str, SecretRef]) -> None:
        """Raise Invalid if a spec names a secret, or a version of it, that is not there."""
        for name, ref in refs.items():
            if await self._record(tenant, name, ref.version) is None:
                raise Invalid(
                    f"{tenant} has no secret {name} of version {ref.version}; give it with --secret {name}=@FILE",
                    tenant=tenant,
                    field=f"spec.secrets.{name}",
                )

    async def values(self, tenant: str, spec: TenantSpec) -> dict[str, str]:
        """Plain values of the secrets that a spec names, for its assignment."""
        plain = {}
        for name, ref in spec.secrets.items():
            record = await self._record(tenant, name, ref.version)
            if record is None:
                raise Invalid(f"the secret {name} of {tenant} is missing in the bucket; give it again", tenant=tenant)
            plain[name] = self._open(record, ref.version, tenant)
        return plain

    async def access_token(self, tenant: str, *, make: bool = False) -> str | None:
        """The tenant's own bearer token; made when `make` and there is none."""
        held = await self._read(keys.secret(tenant, ACCESS_TOKEN), tenant)
        if held is not None:
            return self._open(held.record, _newest(held), tenant)
        if not make:
            return None
        await self.put(tenant, ACCESS_TOKEN, randomness.token_urlsafe(32))
        return await self.access_token(tenant)

    async def copy(self, source: str, target: str, spec: TenantSpec) -> dict[str, SecretRef]:
        """Give a tenant the secrets that another one's spec names; answers the refs for its own spec."""
        values = await self.values(source, spec)
        return {name: await self.put(target, name, value) for name, value in values.items()}

    async def delete(self, tenant: str) -> None:
        """Delete all secrets of a purged tenant."""
        prefix = keys.secret(tenant, "").removesuffix(".json")
        found = [entry.key for entry in await self._bucket.list(prefix)]
        if found:
            await self._bucket.delete(found)
        for key in [k for k in self._cache if k.startswith(prefix)]:
            del self._cache[key]

    async def _record(self, tenant: str, name: str, version: int) -> Secret | None:
        key = keys.secret(tenant, name)
        held = await self._read(key, tenant)
        if held is not None and str(version) not in held.record.versions:
            self._cache.pop(key, None)
            held = await self._read(key, tenant)
        return held.record if held is not None and str(version) in held.record.versions else None

    async def _read(self, key: str, tenant: str) -> Held[Secret] | None:
        held = self._cache.get(key)
        if held is None:
            with translated(tenant):
                held = await self._bucket.read(key, Secret)
            if held is not None:
                self._cache[key] = held
        return held

    def _open(self, record: Secret, version: int, tenant: str) -> str:
        fernet = self._need(tenant)
        try:
            return fernet.decrypt(record.versions[str(version)]).decode()
        except InvalidToken:
            raise Conflict(
                f"the secret {record.name} of {tenant} was encrypted with another key: set the FLEET_SECRETS_KEY that "
                "this fleet was made with",
                tenant=tenant,
            ) from None

    def _need(self, tenant: str) -> MultiFernet:
        if self._fernet is None:
            raise Conflict(
                f"{tenant} needs secrets, and this controller has no key for them: set FLEET_SECRETS_KEY", tenant=tenant
            )
        return self._fernet


def sha256_of(token: str) -> str:
    """What the gateway is told of an access token."""
    return hashlib.sha256(token.encode()).hexdigest()


def _newest(held: Held[Secret] | None) -> int:
    return max(map(int, held.record.versions), default=0) if held is not None else 0
