"""Verifies a service account's token with PyJWT, as a program outside of the cluster does: by the server's discovery document and
keys. Arguments: the server's URL, its CA's file, a file with a bearer token that may read those, one with the token in question.
Each step prints `ok NAME` or `FAIL NAME: why`."""

import json
import ssl
import sys
import traceback
import urllib.parse
import urllib.request

import jwt

URL, CA, READER, TOKEN = sys.argv[1], sys.argv[2], open(sys.argv[3]).read().strip(), open(sys.argv[4]).read().strip()
TLS = ssl.create_default_context(cafile=CA)
HEADERS = {"Authorization": f"Bearer {READER}"}


def discover():
    request = urllib.request.Request(f"{URL}/.well-known/openid-configuration", headers=HEADERS)
    with urllib.request.urlopen(request, context=TLS) as answer:
        return json.load(answer)


def keys(document):
    # The document names the address that the server is advertised under, which need not be the one it is reached at here.
    path = urllib.parse.urlsplit(document["jwks_uri"]).path
    return jwt.PyJWKClient(f"{URL}{path}", headers=HEADERS, ssl_context=TLS)


DOCUMENT = discover()
KEYS = keys(DOCUMENT)


def decode(token, **others):
    options = {
        "algorithms": DOCUMENT["id_token_signing_alg_values_supported"],
        "audience": "vault",
        "issuer": DOCUMENT["issuer"],
        "options": {"require": ["exp", "iat", "nbf", "iss", "sub", "aud", "jti"]},
    }
    return jwt.decode(token, KEYS.get_signing_key_from_jwt(token).key, **{**options, **others})


def token_is_verified():
    claims = decode(TOKEN)
    assert claims["sub"] == "system:serviceaccount:default:robot", claims
    assert claims["kubernetes.io"]["serviceaccount"]["name"] == "robot", claims


def key_is_found_by_its_id():
    key_id = jwt.get_unverified_header(TOKEN)["kid"]
    assert [key.key_id for key in KEYS.get_signing_keys()].count(key_id) == 1


def other_audience_is_refused():
    refused(jwt.InvalidAudienceError, TOKEN, audience="database")


def other_issuer_is_refused():
    refused(jwt.InvalidIssuerError, TOKEN, issuer="https://other.example")


def changed_token_is_refused():
    header, payload, signature = TOKEN.split(".")
    other = ("B" if signature[0] == "A" else "A") + signature[1:]
    refused(jwt.InvalidSignatureError, f"{header}.{payload}.{other}")


def refused(error, token, **others):
    try:
        decode(token, **others)
    except error:
        return
    raise AssertionError(f"no {error.__name__}")


for step in [
    token_is_verified,
    key_is_found_by_its_id,
    other_audience_is_refused,
    other_issuer_is_refused,
    changed_token_is_refused,
]:
    try:
        step()
        print(f"ok {step.__name__}", flush=True)
    except Exception:
        print(f"FAIL {step.__name__}: {traceback.format_exc()}", flush=True)
