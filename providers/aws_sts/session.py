"""Open a session at STS for one grant."""

from __future__ import annotations

import hashlib
import logging
import re
from asyncio import get_running_loop
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

from providers.aws_sts.fields import LONGEST, SHORTEST, BrokerIdentity, WebIdentity
from providers.aws_sts.fields import Keys as OwnKeys
from providers.aws_sts.signer import SessionSigner
from providers.aws_sts.sigv4 import Clock, Keys
from providers.base import Injection, Minted, ProviderError, Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from botocore.config import Config
    from botocore.exceptions import ClientError
    from botocore.session import Session
    from mypy_boto3_sts import STSClient

    from providers.aws_sts.fields import AwsStsScope, AwsStsService
    from providers.base import CredentialRequest, Dependencies

    Vouch = Callable[[str], Secret]

LONGEST_CHAINED: Final = 3_600
"""Seconds that a session lives at most that was opened by another session."""

CONNECT_TIMEOUT: Final = 3.0
READ_TIMEOUT: Final = 5.0
"""Seconds. Two attempts end before whoever waits for a credential gives up (after 20)."""

PARTS: Final = ("AccessKeyId", "SecretAccessKey", "SessionToken")
"""What a session is made of, by AWS's names."""

_AT_ONCE: Final = 4
_FULL: Final = 90
_log: Final = logging.getLogger(__name__)

_SESSION_NAME: Final = re.compile(r"[A-Za-z0-9_+=,.@-]{2,64}")
_UNFIT_IN_NAME: Final = re.compile(r"[^A-Za-z0-9_+=,.@-]+")
_PART: Final = re.compile(rb"[!-~]{1,8192}")
_CODE: Final = re.compile(r"[A-Za-z0-9.]{1,64}")

_OWN_KEYS: Final = "the broker's own AWS credentials are wrong or have expired"
_ADVICE: Final = {
    "AccessDenied": "the role must trust the broker's identity with sts:AssumeRole, "
    "sts:SetSourceIdentity and, for session_tags, sts:TagSession, under the same external id; "
    "and the broker's identity must be allowed these",
    "ExpiredToken": _OWN_KEYS,
    "ExpiredTokenException": _OWN_KEYS,
    "IDPCommunicationError": "AWS could not fetch the issuer's keys; they must be reachable for it",
    "InvalidClientTokenId": _OWN_KEYS,
    "InvalidIdentityToken": "AWS does not take the token that says who the broker is; its issuer "
    "must be an OpenID provider of the account, with the token's audience as client, and "
    "reachable for AWS by https",
    "SignatureDoesNotMatch": _OWN_KEYS,
    "MalformedPolicyDocument": "AWS cannot read the session policy; check its actions, resources "
    "and conditions",
    "RegionDisabledException": "STS is not activated for the broker's account in that region",
    "ValidationError": "a value is out of AWS's bounds; usually max_session is more than the "
    "role's MaxSessionDuration",
}
_TRANSIENT: Final = frozenset(
    {"IDPCommunicationError", "InternalFailure", "RequestLimitExceeded", "ServiceUnavailable"}
    | {"Throttling"}
    | {"ThrottlingException", "TooManyRequestsException"}
)


class AwsSts:
    """Open sessions of one role (`Mints`), or sign requests with them (`Presents`).

    What they are cannot be revoked.
    """

    def __init__(self, config: AwsStsService, dependencies: Dependencies) -> None:
        self._config: Final = config
        self._secrets: Final = dependencies.secrets
        self._vouch: Final = dependencies.vouch
        self._clock: Final = dependencies.clock
        self._stamps: Final = Clock(dependencies.clock)
        # boto3 blocks. In threads of its own an STS that hangs keeps nobody else waiting.
        self._threads: Final = ThreadPoolExecutor(_AT_ONCE, "aws-sts")
        self._opened: tuple[tuple[Secret, ...], STSClient, Session] | None = None

    async def mint(self, request: CredentialRequest) -> Minted:
        """Open a session for this grant, as long as the grant and the role let it live."""
        parameters = self._parameters(request)
        credentials = self._config.credentials
        keys: tuple[Secret, ...] = ()
        if isinstance(credentials, OwnKeys):
            references = (credentials.access_key_id, credentials.secret_access_key)
            keys = tuple([await self._secrets.read(reference) for reference in references])
        answer = await get_running_loop().run_in_executor(
            self._threads, self._assume, parameters, request.lifetime, keys
        )
        if answer.get("PackedPolicySize", 0) >= _FULL:
            used = answer["PackedPolicySize"]
            _log.warning("scope %s uses %d%% of AWS's room for policies", request.scope, used)
        return _minted(answer, request)

    def present(self, minted: Minted, request: CredentialRequest) -> Injection:
        """Return what signs the requests of a grant; the session itself stays here."""
        api, scope = self._config.api, request.constraints
        if api is None:
            raise ProviderError("the service does not say which api its sessions sign for")
        key_id, secret, token = (minted.fields[name] for name in PARTS)
        if not all(_PART.fullmatch(part.reveal()) for part in (key_id, secret, token)):
            raise ProviderError("AWS STS gave a session that no request can be signed with")
        keys = Keys(key_id.reveal(), secret, token.reveal())
        copies = scope.copy_source
        signer = SessionSigner(keys, api, self._config.region, self._stamps, copies=copies)
        return Injection(signer=signer, secrets=(secret, token))

    def _parameters(self, request: CredentialRequest) -> dict[str, Any]:
        scope: AwsStsScope = request.constraints
        ends_at = self._clock() + request.lifetime if request.lifetime < SHORTEST else None
        tags = [{"Key": key, "Value": value} for key, value in (scope.session_tags or {}).items()]
        parameters = {
            "RoleArn": self._config.role_arn,
            "RoleSessionName": session_name(request.agent, request.task),
            "SourceIdentity": _source_identity(request.grant),
            "ExternalId": self._config.external_id,
            "Policy": scope.policy(ends_at),
            "PolicyArns": [{"arn": arn} for arn in scope.policy_arns or ()],
            "Tags": tags,
            "TransitiveTagKeys": list(scope.transitive_tags or ()),
        }
        return {name: value for name, value in parameters.items() if value}

    def _assume(
        self, parameters: dict[str, Any], lifetime: int, keys: tuple[Secret, ...]
    ) -> Mapping[str, Any]:
        """Call STS; runs in a thread."""
        from botocore import exceptions  # noqa: PLC0415 - see _open

        try:
            client, session = self._client(keys)
            own = session.get_credentials()
            chained = own is not None and own.get_frozen_credentials().token is not None
            longest = min(self._config.max_session, LONGEST_CHAINED if chained else LONGEST)
            duration = max(SHORTEST, min(lifetime, longest))
            return client.assume_role(**parameters, DurationSeconds=duration)
        except exceptions.ClientError as error:
            raise _refusal(error) from None
        except (exceptions.ConnectionError, exceptions.HTTPClientError) as error:
            raise ProviderError(
                f"AWS STS cannot be reached at {self._config.endpoint} ({type(error).__name__})",
                retryable=True,
            ) from None
        except (exceptions.BotoCoreError, OSError) as error:
            raise ProviderError(
                f"the broker has no AWS credentials of its own ({type(error).__name__}); see "
                "`credentials` of the service"
            ) from None
        except ProviderError:
            raise
        except Exception as error:  # noqa: BLE001 - whose text may quote request or answer
            raise ProviderError(
                f"the answer of {self._config.endpoint} is none of AWS STS "
                f"({type(error).__name__})",
                retryable=True,
            ) from None

    def _client(self, keys: tuple[Secret, ...]) -> tuple[STSClient, Session]:
        opened = self._opened
        if opened is None or opened[0] != keys:
            opened = self._opened = (keys, *_open(self._config, keys, self._vouch))
        return opened[1], opened[2]


def session_name(agent: str, task: str | None) -> str:
    """Return the RoleSessionName of a task: `agent@task`, or as much as AWS takes of it.

    What AWS does not take is replaced, and a digest of the whole keeps tasks apart. Control
    characters are refused: nothing that holds any was meant as a name.
    """
    whole = agent if task is None else f"{agent}@{task}"
    if not whole.isprintable():
        raise ProviderError("agent or task holds a control character and can name no AWS session")
    if _SESSION_NAME.fullmatch(whole):
        return whole
    digest = hashlib.sha256(whole.encode(errors="surrogatepass")).hexdigest()[:10]
    return f"{_UNFIT_IN_NAME.sub('-', whole)[:53]}-{digest}"


def _source_identity(grant: str) -> str:
    if not _SESSION_NAME.fullmatch(grant):
        raise ProviderError("the grant's id can be no AWS source identity")
    return grant


def _open(
    config: AwsStsService, keys: tuple[Secret, ...], vouch: Vouch | None
) -> tuple[STSClient, Session]:
    """Return a client of STS, and the session that holds the broker's own credentials.

    All that environment variables could change of where it connects and whom it trusts is set
    here.
    """
    # Half a second of imports, which a broker without AWS does not need.
    import boto3  # noqa: PLC0415
    import botocore.session  # noqa: PLC0415
    from botocore.config import Config  # noqa: PLC0415

    # Of a refresh that failed it would log what AWS said.
    logging.getLogger("botocore.credentials").setLevel(logging.CRITICAL)
    session = botocore.session.Session()
    options: dict[str, Any] = {
        "region_name": config.region,
        "endpoint_url": config.endpoint,
        "verify": config.ca_file or True,
        "config": Config(
            connect_timeout=CONNECT_TIMEOUT,
            read_timeout=READ_TIMEOUT,
            retries={"mode": "standard", "total_max_attempts": 2},
            max_pool_connections=_AT_ONCE,
            proxies={},
        ),
    }
    if isinstance(config.credentials, OwnKeys):
        session.set_credentials(*(_key(key) for key in keys))
    elif isinstance(config.credentials, WebIdentity | BrokerIdentity):
        _identify(session, config.credentials, options, vouch)
    return boto3.Session(botocore_session=session).client("sts", **options), session


def _identify(
    session: Session,
    identity: WebIdentity | BrokerIdentity,
    options: dict[str, Any],
    vouch: Vouch | None,
) -> None:
    """Have `session` exchange a token for credentials, anew before they expire.

    The token is in a file, or one that the broker makes about itself.
    """
    from botocore import credentials  # noqa: PLC0415

    def client(service: str, config: Config) -> Any:
        return session.create_client(
            service, **{**options, "config": options["config"].merge(config)}
        )

    fetcher = credentials.AssumeRoleWithWebIdentityCredentialFetcher(
        client,
        _token_of(identity, vouch, credentials.FileWebIdentityTokenLoader),
        identity.role_arn,
        extra_args={"RoleSessionName": "agent-token-broker"},
    )

    class Provider(credentials.CredentialProvider):
        METHOD = CANONICAL_NAME = "assume-role-with-web-identity"

        def load(self) -> credentials.Credentials:
            return credentials.DeferredRefreshableCredentials(
                fetcher.fetch_credentials, self.METHOD
            )

    session.register_component("credential_provider", credentials.CredentialResolver([Provider()]))


def _token_of(
    identity: WebIdentity | BrokerIdentity, vouch: Vouch | None, from_file: Callable[[str], Any]
) -> Callable[[], str]:
    if isinstance(identity, WebIdentity):
        loader: Callable[[], str] = from_file(identity.token_file)
        return loader
    if vouch is None:
        raise ProviderError("nothing here makes tokens about the broker itself")
    return lambda: vouch(identity.audience).reveal().decode()


def _key(secret: Secret) -> str:
    value = secret.reveal()
    if not re.fullmatch(rb"[!-~]{1,256}", value):
        raise ProviderError(
            "the broker's AWS access key is empty or holds a character that no such key has; a "
            "trailing line break is the usual cause: store it again without"
        )
    return value.decode()


def _minted(answer: Mapping[str, Any], request: CredentialRequest) -> Minted:
    try:
        own = answer["Credentials"]
        fields = {name: Secret(own[name].encode()) for name in PARTS}
        expires_at = own["Expiration"].timestamp()
        source = answer.get("SourceIdentity", request.grant)
    except (KeyError, AttributeError):
        raise ProviderError("AWS STS answered without a session", untouched=False) from None
    if source != request.grant:
        raise ProviderError(
            "AWS STS opened the session under another source identity", untouched=False
        )
    return Minted(fields, expires_at)


def _refusal(error: ClientError) -> ProviderError:
    """Return what AWS's answer means, by its code alone: its text may quote the request."""
    detail = error.response.get("Error", {})
    code = detail.get("Code", "")
    code = code if _CODE.fullmatch(code) else "unknown"
    how = error.response.get("ResponseMetadata", {})
    status = how.get("HTTPStatusCode", 0)
    advice = _ADVICE.get(code)
    if code == "PackedPolicyTooLarge":
        percent = re.search(r"([0-9]{1,4})%", detail.get("Message", ""))
        used = f"{percent[1]}%" if percent else "more than 100%"
        advice = (
            f"session policy, policy_arns and session tags take {used} of AWS's room for them "
            "(PackedPolicySize); put statements into a managed policy, or drop tags"
        )
    return ProviderError(
        f"AWS STS refused ({code})" + (f": {advice}" if advice else ""),
        retryable=code in _TRANSIENT or status >= 500,  # noqa: PLR2004 - RFC 9110, 15.6
        code=code,
        # Of an attempt before this one nobody knows what became.
        untouched=status < 500 and not how.get("RetryAttempts"),  # noqa: PLR2004 - the same
    )
