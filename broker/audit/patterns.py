"""What must never be stored: credentials by their shape or their name, personal data by its shape.

Every pattern runs in time linear in the text: a repetition without an upper bound starts where
the character before it cannot belong to it, so that no character is scanned from many starting
points.
"""

from __future__ import annotations

import re
from typing import Final

_ID: Final = r"[A-Za-z0-9]"
_URLSAFE: Final = r"[A-Za-z0-9_-]"
_END: Final = r"(?![A-Za-z0-9])"

_SHAPES: Final[tuple[tuple[str, str], ...]] = (
    ("aws-access-key", rf"A(?:KIA|SIA|BIA|CCA)[A-Z0-9]{{16}}{_END}"),
    ("github-token", rf"g(?:h[pousr]_{_ID}{{20,255}}|ithub_pat_[A-Za-z0-9_]{{22,255}})"),
    ("gitlab-token", r"gl(?:pat|ptt|dt|rt|cbt|ft|soat|imt|agent|oas|ffct)-[A-Za-z0-9_.=-]{20,300}"),
    ("slack-token", r"x(?:ox[a-z](?:\.xox[a-z])?|app)-[A-Za-z0-9-]{10,250}"),
    ("stripe-key", rf"[srp]k_(?:live|test|org)_{_ID}{{10,250}}"),
    ("webhook-secret", r"whsec_[A-Za-z0-9+/=]{20,100}"),
    ("anthropic-key", rf"sk-ant-{_URLSAFE}{{16,250}}"),
    ("openai-key", rf"sk-(?=[A-Za-z_-]{{0,80}}\d){_URLSAFE}{{20,250}}"),
    ("google-key", rf"AIza{_URLSAFE}{{35}}"),
    ("google-token", rf"(?:ya29\.|GOCSPX-|1//0){_URLSAFE}{{20,500}}"),
    ("jwt", rf"ey[JA]{_URLSAFE}{{6,}}\.{_URLSAFE}{{2,}}(?:\.{_URLSAFE}*){{0,3}}"),
    ("sendgrid-key", rf"SG\.{_URLSAFE}{{16,64}}\.{_URLSAFE}{{16,128}}"),
    ("twilio-key", rf"SK[0-9a-f]{{32}}{_END}|AC[0-9a-f]{{32}}(?::|%3A)[0-9a-f]{{32}}"),
    ("npm-token", rf"npm_{_ID}{{30,60}}"),
    ("pypi-token", rf"pypi-Ag{_URLSAFE}{{40,500}}"),
    ("rubygems-key", r"rubygems_[0-9a-f]{40,64}"),
    ("docker-token", rf"dckr_(?:pat|oat)_{_URLSAFE}{{20,80}}"),
    ("huggingface-token", rf"(?:hf|api_org)_{_ID}{{30,60}}"),
    ("replicate-token", rf"r8_{_ID}{{30,60}}"),
    ("groq-key", rf"gsk_{_ID}{{40,80}}"),
    ("xai-key", rf"xai-{_ID}{{40,120}}"),
    ("perplexity-key", rf"pplx-{_ID}{{30,80}}"),
    ("shopify-token", r"shp(?:at|ca|pa|ss|tka|ua)_[0-9A-Fa-f]{30,64}"),
    ("square-token", rf"sq0[a-z]{{3}}-{_URLSAFE}{{20,64}}"),
    ("linear-key", rf"lin_(?:api|oauth|wh)_{_ID}{{30,80}}"),
    ("notion-token", rf"(?:ntn|secret)_{_ID}{{32,64}}"),
    ("atlassian-token", r"AT[ACB][A-Z]{2}3[A-Za-z0-9_=-]{40,300}"),
    ("databricks-token", r"dapi[0-9a-f]{32}(?:-\d)?"),
    ("digitalocean-token", r"do[por]_v1_[0-9a-f]{40,80}"),
    ("telegram-token", rf"(?:bot)?\d{{8,10}}:{_URLSAFE}{{35}}(?![A-Za-z0-9_-])"),
    ("discord-token", rf"[MNO]{_URLSAFE}{{23,27}}\.{_URLSAFE}{{6}}\.{_URLSAFE}{{27,40}}"),
    ("admin-token", r"atbadm_[0-9a-f]{12}_[0-9a-f]{64}"),
    ("vault-token", rf"hv[sbr]\.{_URLSAFE}{{20,300}}|s\.{_ID}{{24}}{_END}"),
    ("terraform-token", rf"{_ID}{{14}}\.atlasv1\.{_URLSAFE}{{40,90}}"),
    ("pulumi-token", r"pul-[0-9a-f]{40}"),
    ("doppler-token", rf"dp\.(?:pt|st|ct|sa|scim|audit)\.(?:[a-z0-9_-]{{1,35}}\.)?{_ID}{{40,44}}"),
    ("supabase-key", rf"sbp_[0-9a-f]{{40}}|sb_secret_{_URLSAFE}{{20,64}}"),
    ("planetscale-token", rf"pscale_(?:tkn|pw|oauth)_{_URLSAFE}{{30,64}}"),
    ("sentry-token", r"sntr[a-z]{2}_[A-Za-z0-9+/=_-]{40,300}"),
    ("grafana-token", rf"gl(?:sa|c)_{_URLSAFE}{{30,100}}"),
    ("new-relic-key", r"NR(?:AK|JS|II|RA)-[A-Za-z0-9_-]{20,48}"),
    ("figma-token", rf"fig(?:d|o|u|or)_{_URLSAFE}{{36,80}}"),
    ("postman-key", r"PMAK-[0-9a-f]{24}-[0-9a-f]{34}"),
    ("mailgun-key", r"key-[0-9a-f]{32}"),
    ("meta-token", rf"EAA{_ID}{{40,400}}"),
    ("fly-token", r"(?:fo1_|fm[12][ar]?_)[A-Za-z0-9+/=_-]{40,800}"),
    ("age-key", r"AGE-SECRET-KEY-1[A-Za-z0-9]{20,100}"),
    ("bearer-token", r"(?i:bearer)[ \t]{1,3}(?=\S{0,256}\d|\S{20})[A-Za-z0-9._~+/=-]{8,}"),
    ("basic-credentials", r"(?i:basic)[ \t]{1,3}(?=\S{0,256}[0-9=])[A-Za-z0-9+/_-]{8,}={0,2}"),
)
"""Kinds of credential, and how each looks from its first character on."""

SHAPE: Final = re.compile("(?<![A-Za-z0-9])(?:" + "|".join(pattern for _, pattern in _SHAPES) + ")")
"""Any of the shapes. Without groups, since then a first character that fits none fails fast."""

_KINDS: Final = tuple((kind, re.compile(pattern)) for kind, pattern in _SHAPES)

PRIVATE_KEY: Final = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?s:.*?)(?:-----END[A-Z0-9 -]{1,60}|\Z)"
)
URL_PASSWORD: Final = re.compile(r"(?<=://)[^\s/@:]{0,128}:[^\s/@]{1,256}@")
SLACK_WEBHOOK: Final = re.compile(r"/services/T[A-Z0-9]{6,20}/B[A-Z0-9]{6,20}/[A-Za-z0-9]{16,48}")

ASSIGNMENT: Final = re.compile(
    r"(?<![A-Za-z0-9_-])(?P<name>[A-Za-z0-9_-]{1,64})(?:\\?[\"'])?"
    r"(?P<sign>[ \t]{0,3}=[ \t]{0,3}|[ \t]{0,3}:[ \t]{1,3}|:)(?:\\?[\"'])?"
)
"""A name and the sign that gives it a value: a parameter, a header, a member, a setting."""

HEADER: Final = re.compile(r"(?i:(?:proxy-)?authorization|(?:set-)?cookie)")
HEADER_VALUE: Final = re.compile(r"(?!\[redacted)[^\r\n\"']{1,8192}")

SENSITIVE: Final = re.compile(
    r"(?i:(?:api|access|account|shared|secret|private|signing|encryption|master)[_-]?key"
    r"(?:[_-]?id)?|token|secret|password|passwd|passphrase|signature|credentials?|assertion"
    r"|code[_-]verifier|(?<![a-z])(?:pwd|sig|otp|pin|key))\Z"
)
"""How a name ends whose value is a credential."""

# A secret reference names a secret and does not hold it.
VALUE: Final = re.compile(r"(?!\[redacted|(?:vault|embedded|env|file):)[^\s\"'&,;<>\\]{1,4096}")
WORD: Final = re.compile(r"[a-z_-]{1,32}(?![A-Za-z0-9])")
"""What follows the colon in names such as `token:read`."""

EMAIL: Final = re.compile(
    r"(?<![A-Za-z0-9._%+-])(?!git@)[A-Za-z0-9._%+-]+(?:@|%40)(?!v?\d+\.\d)"
    r"(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![A-Za-z0-9-])"
)

# E.164 with its plus, the North American form with its separators, and tel: links. A bare run
# of digits is an identifier far more often than a telephone number.
PHONE: Final = re.compile(
    r"(?<![\w.+])(?:\+|%2B)[1-9](?:[ ().-]{0,2}\d){7,14}(?!\w)"
    r"|(?<![\w.+-])(?:\(\d{3}\) ?|\d{3}[-. ])\d{3}[-.]\d{4}(?![\w-])"
    r"|(?<=tel:)\+?[\d().-]{7,20}"
)

CARD: Final = re.compile(
    r"(?<![A-Za-z0-9_.])(?<!\d[ -])\d(?:[ -]?\d){12,18}(?![A-Za-z0-9_]|[ -]\d)"
)
"""Digits that may be a payment card number; `is_card` tells."""

OPAQUE: Final = re.compile(r"(?<![A-Za-z0-9_+-])[A-Za-z0-9_+-]{28,}={0,2}")
"""A run of characters long enough to be a key; it is one where `is_opaque` says so."""

_IDENTIFIER: Final = re.compile(
    r"(?:[0-9a-fA-F]+(?:-[0-9a-fA-F]+)*"  # digests, UUIDs, trace ids
    r"|(?!key|tok|sec|pat|api|auth|pass|cred|priv|[spr]k)[a-z]{2,12}[_-][A-Za-z0-9]{8,32})"
)
"""Identifiers that services hand out and that open nothing: `ch_3Mm...`, `chatcmpl-...`."""

_LETTER_OR_DIGIT_CHANGE: Final = re.compile(r"[a-z](?=[A-Z0-9])|[A-Z](?=[0-9])|[0-9](?=[A-Za-z])")
_OPAQUE_SHARE: Final = 0.24

_CARD_BRANDS: Final = re.compile(
    r"4\d{12}(?:\d{3}(?:\d{3})?)?|(?:5[1-5]|2[2-7])\d{14}|3[47]\d{13}|3(?:0[0-5]|[689]\d)\d{11}"
    r"|6(?:011|4[4-9]\d|5\d\d)\d{12}|35(?:2[89]|[3-8]\d)\d{12}|62\d{14,17}"
)


def kind_at(text: str, position: int) -> str:
    """Return the kind of credential whose shape `SHAPE` has found at this position."""
    return next(kind for kind, pattern in _KINDS if pattern.match(text, position))


def is_opaque(run: str) -> bool:
    """Tell whether a long run of characters looks random, as keys do.

    Words, file names and dates change between letters, capitals and digits at their seams
    alone; random text does at 45 of 100 places (base62). Digests, UUIDs and prefixed object
    identifiers are not keys.
    """
    if _IDENTIFIER.fullmatch(run):
        return False
    if run.islower() or run.isupper() or not any(map(str.isdigit, run)):
        return False
    return len(_LETTER_OR_DIGIT_CHANGE.findall(run)) >= _OPAQUE_SHARE * len(run)


def is_card(text: str) -> bool:
    """Tell whether digits form a payment card number: an issuer's range, and the Luhn sum."""
    digits = re.sub(r"\D", "", text)
    if not _CARD_BRANDS.fullmatch(digits):
        return False
    doubled = (sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (sum(map(int, digits[-1::-2])) + sum(doubled)) % 10 == 0
