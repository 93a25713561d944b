"""The public test suite of Signature Version 4: what was asked, and what AWS signed it with.

The requests and signatures are those that AWS publishes (Apache-2.0) as
`aws-sig-v4-test-suite` and, newer, as `aws-signing-test-suite`: all are signed by the key
`AKIDEXAMPLE` for the service `service` in us-east-1 at 2015-08-30T12:36:00Z. The two differ in
form requests, so those are here twice. A continued header line is here as its values, for no
HTTP message may have one any more (RFC 9112, 5.2).
"""

from __future__ import annotations

from typing import Final, NamedTuple

KEY_ID: Final = b"AKIDEXAMPLE"
SECRET: Final = b"wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
REGION: Final = "us-east-1"
SERVICE: Final = "service"
AT: Final = 1_440_938_160

_TOKEN: Final = (
    b"AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSP"
    b"fIeoIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7"
    b"WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm"
    b"8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA=="
)
_OTHER_TOKEN: Final = b"6e86291e8372ff2a2260956d9b8aae1d763fbf315fa00fa31553b73ebf194267"
_UNRESERVED: Final = b"-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_FORM: Final = b"application/x-www-form-urlencoded"
_FORM_DIGEST: Final = b"9095672bbd1f56dfc5b65f3e153adc8731a4a654192329106275f4c7b24d0b6e"


class Case(NamedTuple):
    """One request, and its signature as a header and as a query parameter.

    `fields` come after Host and before X-Amz-Date, in order, and are all signed. `token` is
    the session's, where the signer adds it. `in_header` or `in_query` is None where the suite
    has none.
    """

    name: str
    target: bytes
    in_header: str | None
    in_query: str | None = None
    method: bytes = b"GET"
    fields: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""
    token: bytes | None = None
    normalized: bool = True


def _my(*values: bytes) -> tuple[tuple[bytes, bytes], ...]:
    return tuple((b"my-header1", value) for value in values)


_VANILLA: Final = "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"
_VANILLA_QUERY: Final = "e93c787ed7f371d5c6b165c1b38ede9550f4dce4144713e844b25b7192d3865d"
_POST: Final = "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"
_POST_PARAM: Final = "28038455d6de14eafc1f9222cf5aa6f1a96197d7deb8263271d420d138af7f11"

_HEADERS: Final = (
    Case(
        "get-header-key-duplicate",
        b"/",
        "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea",
        "3349ee0b81b4b589da0ff28a395c3591e04de515651dd74f298fa992d1507a97",
        fields=_my(b"value2", b"value2", b"value1"),
    ),
    Case(
        "get-header-value-multiline",
        b"/",
        "ba17b383a53190154eb5fa66a1b836cc297cc0a3d70a5d00705980573d8ff790",
        "07f38a7bae261a5b2eec137361e6403c191bbf8e3f75466bb8114a08acd99936",
        fields=_my(b"value1", b"  value2", b"     value3"),
    ),
    Case(
        "get-header-value-order",
        b"/",
        "08c7e5a9acfcfeb3ab6b2185e75ce8b1deb5e634ec47601a50643f830c755c01",
        "313720e71ca6202fdcfa9b20f88de01a4eb0638a83c833b1c184359a4eda864e",
        fields=_my(b"value4", b"value1", b"value3", b"value2"),
    ),
    Case(
        "get-header-value-trim",
        b"/",
        "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
        "e7bb0fd515e125e1aec2ecc4c0c17484fb06f6846b927c35e46005dd3df3acd4",
        fields=((b"my-header1", b" value1"), (b"my-header2", b' "a   b   c"')),
    ),
    Case("post-header-key-case", b"/", _POST, method=b"POST"),
    Case(
        "post-header-key-sort",
        b"/",
        "c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c",
        "c09d07e0d55871f10f2a6d350d994acf6825a3cae70673d7def55616e6119dd7",
        method=b"POST",
        fields=_my(b"value1"),
    ),
    Case(
        "post-header-value-case",
        b"/",
        "cdbc9802e29d2942e5e10b5bccfdd67c5f22c7c4e8ae67b53629efa58b974b7d",
        "0698bc9e4f7f9139065ba2909c0e99da257e8e2a42492a097bcd46d792391fed",
        method=b"POST",
        fields=_my(b"VALUE1"),
    ),
    # A token that a client adds after it has signed is no part of the signature.
    Case("post-sts-header-after", b"/", _POST, method=b"POST"),
    Case(
        "post-sts-header-before",
        b"/",
        "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead",
        "aca67b49ed321f377645504bccbd5a65f9085c536ff1961bc49c835d30827b16",
        method=b"POST",
        fields=((b"x-amz-security-token", _TOKEN),),
    ),
    Case(
        "get-vanilla-with-session-token",
        b"/",
        "07ec1639c89043aa0e3e2de82b96708f198cceab042d4a97044c66dd9f74e7f8",
        "7ff2b50b376cb4d151970630573d6291dc128cc5c2a12ffb237f73cc53f67b6c",
        token=_OTHER_TOKEN,
    ),
)

_PATHS: Final = (
    Case("get-relative-normalized", b"/example/..", _VANILLA, _VANILLA_QUERY),
    Case(
        "get-relative-unnormalized",
        b"/example/..",
        "eca7ead57bb5aa5c8e28007acd4ff04e1ff9a0ff3b237ec1554a184887ff9282",
        "cbcb213b928a077e43275df47b500f1dfaa864ab3f5a18f6b95f4ff0938167ee",
        normalized=False,
    ),
    Case(
        "get-relative-relative-normalized",
        b"/example1/example2/../..",
        _VANILLA,
        _VANILLA_QUERY,
    ),
    Case(
        "get-relative-relative-unnormalized",
        b"/example1/example2/../..",
        "dc33e0856fd4baca4d7aa2146c38958283844764f38c74252a333df5e613003b",
        "b45db0bfd1cf15003493b733e33aa208dd981bd0e63037a6ed953f71d2118a16",
        normalized=False,
    ),
    Case("get-slash-dot-slash-normalized", b"/./", _VANILLA, _VANILLA_QUERY),
    Case(
        "get-slash-dot-slash-unnormalized",
        b"/./",
        "68714168e6557f8f2de0ef956fc24dc2593a4bd2961f8df51898d8a134695145",
        "a9b13e8f3484d9505bf1a6f347219f8f35b0fe8f128ceea597efc146a3dfe90c",
        normalized=False,
    ),
    Case("get-slash-normalized", b"//", _VANILLA, _VANILLA_QUERY),
    Case(
        "get-slash-unnormalized",
        b"//",
        "c88bcd3d312d75078c0cd961d6deae3f4c754924b01669efcfcb439fd5e5b76e",
        "b2a9542809db687769200f56a844a03f2bd0291d6eb90232d5101c6a579446cd",
        normalized=False,
    ),
    Case(
        "get-slash-pointless-dot-normalized",
        b"/./example",
        "ef75d96142cf21edca26f06005da7988e4f8dc83a165a80865db7089db637ec5",
        "35034b1a0bdd969f346975386daf8aedfd4976573b8348cf4f67eaa41c5857de",
    ),
    Case(
        "get-slash-pointless-dot-unnormalized",
        b"/./example",
        "beb03f223f7deae4146464f06e29eebbee9c8afbe15c290cf07aa8b119e14cff",
        "72b11f16d9530b18204bfb71f2d6ab085894c0ed8d352730a6e76234c58b5e10",
        normalized=False,
    ),
    Case(
        "get-slashes-normalized",
        b"//example//",
        "9a624bd73a37c9a373b5312afbebe7a714a789de108f0bdfe846570885f57e84",
        "c1834e8fb0307243711f0f907f6ab7311ed300d87f13792d7ee4da89ab93e082",
    ),
    Case(
        "get-slashes-unnormalized",
        b"//example//",
        "87cca117541a147f6df867677d98a7d80dff226d2bfca9e4ffa899665623c7e5",
        "822a5a9ba28072c5ab2bb4a6307d0c88276d40e49fec6b724c03fb4d4ba60fc2",
        normalized=False,
    ),
    Case(
        "get-space-normalized",
        b"/example space/",
        "652487583200325589f1fba4c7e578f72c47cb61beeca81406b39ddec1366741",
        "7a1f416954786484c9824d93c1f26ef64acb9b1b6c9154d08c9f07d0e394abf6",
    ),
    Case(
        "get-space-unnormalized",
        b"/example space/",
        "652487583200325589f1fba4c7e578f72c47cb61beeca81406b39ddec1366741",
        normalized=False,
    ),
    Case(
        "get-unreserved",
        b"/" + _UNRESERVED,
        "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f",
        "95968482db1b9e0fadef6efc1bd24689f77c77d9ef56919c96a28cc92e0d6005",
    ),
    Case(
        "get-utf8",
        "/\u1234".encode(),
        "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85",
        "10eae3f14a260bd3911cc6d008d3c576d143b05b62f09782a7a4b37f52178e44",
    ),
)

_QUERIES: Final = (
    Case("get-vanilla", b"/", _VANILLA),
    Case("get-vanilla-query", b"/", _VANILLA, _VANILLA_QUERY),
    Case(
        "get-vanilla-empty-query-key",
        b"/?Param1=value1",
        "a67d582fa61cc504c4bae71f336f98b97f1ea3c7a6bfe1b6e45aec72011b9aeb",
        "49096700cbbaa5753443850f40df10f904fc2fdb544dc9512203cc77c471a9de",
    ),
    Case(
        "get-vanilla-query-order-encoded",
        b"/?Param-3=Value3&Param=Value2&%E1%88%B4=Value1",
        "371d3713e185cc334048618a97f809c9ffe339c62934c032af5a0e595648fcac",
        "c5f1848ceec943ac2ca68ee720460c23aaae30a2300586597ada94c4a65e4787",
    ),
    Case(
        "get-vanilla-query-order-key-case",
        b"/?Param2=value2&Param1=value1",
        "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
        "86012e2c9ad4d77369f5d81c11f75158aae4f895a085212cc6d3f923d300bed5",
    ),
    Case(
        "get-vanilla-query-unreserved",
        b"/?%b=%b" % (_UNRESERVED, _UNRESERVED),
        "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197",
        "8e76a88a7433637b12778d5592799b29ad21ecd6cf6325051c21d86f0acda2bf",
    ),
    Case(
        "get-vanilla-utf8-query",
        "/?\u1234=bar".encode(),
        "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04",
        "0bdd809b1519ac4f0c1dc3540e2cc46bd0c7f778eda408b2ebf3b913d21ff600",
    ),
    Case(
        "post-vanilla",
        b"/",
        _POST,
        "2ce6e6d2e0cf2f9d1b55fafec88cd20574c31dc2e7631979f71ba2310083e95b",
        method=b"POST",
    ),
    Case(
        "post-vanilla-empty-query-value",
        b"/?Param1=value1",
        _POST_PARAM,
        "a9ef26247f293bffe40eeff86a0480ba8c14d31503b2e0c3399e3a16bf1a3682",
        method=b"POST",
    ),
    Case("post-vanilla-query", b"/?Param1=value1", _POST_PARAM, method=b"POST"),
    Case(
        "post-vanilla-query-nonunreserved",
        b'/?@#$%^&+=/,?><`";:\\|][{}',
        "66c82657c86e26fb25238d0e69f011edc4c6df5ae71119d7cb98ed9b87393c1e",
        method=b"POST",
    ),
    Case(
        "post-vanilla-query-space",
        b"/?p",
        "e71688addb58a26418614085fb730ba3faa623b461c17f48f2fbdb9361b94a9b",
        method=b"POST",
    ),
)

_BODIES: Final = (
    Case(
        "post-x-www-form-urlencoded (2015)",
        b"/",
        "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
        method=b"POST",
        fields=((b"content-type", _FORM),),
        body=b"Param1=value1",
    ),
    Case(
        "post-x-www-form-urlencoded-parameters (2015)",
        b"/",
        "1a72ec8f64bd914b0e42e42607c7fbce7fb2c7465f63e3092b3b0d39fa77a6fe",
        method=b"POST",
        fields=((b"content-type", _FORM + b"; charset=utf8"),),
        body=b"Param1=value1",
    ),
    Case(
        "post-x-www-form-urlencoded",
        b"/",
        "d3875051da38690788ef43de4db0d8f280229d82040bfac253562e56c3f20e0b",
        "c2348f57d08c84939944d6c878b3f7be56316f8e7fd6817e81eded279a362d69",
        method=b"POST",
        fields=(
            (b"content-type", _FORM),
            (b"content-length", b"13"),
            (b"x-amz-content-sha256", _FORM_DIGEST),
        ),
        body=b"Param1=value1",
    ),
    Case(
        "post-x-www-form-urlencoded-parameters",
        b"/",
        "328d1b9eaadca9f5818ef05e8392801e091653bafec24fcab71e7344e7f51422",
        "1b8d9ac4ab8553a224622753bae7714608a7c61f8994dbd385150e6da12114df",
        method=b"POST",
        fields=(
            (b"content-type", _FORM + b"; charset=utf-8"),
            (b"content-length", b"13"),
            (b"x-amz-content-sha256", _FORM_DIGEST),
        ),
        body=b"Param1=value1",
    ),
)

CASES: Final = (*_HEADERS, *_PATHS, *_QUERIES, *_BODIES)
