"""What keys, tokens and passwords look like.

Those with a form of their own are found by the detectors of detect-secrets, and by ours for what these do not know. Its
two detectors of high entropy are not among them: hashes, merges of a vocabulary and learned numbers all look random. A
key without a form is known by the name that it is given.
"""

import re
from collections.abc import Iterator
from functools import cache

from detect_secrets.filters import heuristic
from detect_secrets.plugins import (
    artifactory,
    aws,
    azure_storage_key,
    discord,
    github_token,
    gitlab_token,
    jwt,
    mailchimp,
    npm,
    openai,
    pypi_token,
    sendgrid,
    slack,
    square_oauth,
    stripe,
    telegram_token,
    twilio,
)
from detect_secrets.plugins.base import RegexBasedDetector
from detect_secrets.plugins.keyword import CONFIG_DENYLIST_REGEX_TO_GROUP, QUOTES_REQUIRED_DENYLIST_REGEX_TO_GROUP

__all__ = ["has_password", "is_password_in_yaml", "kinds_of_keys", "words_like_keys"]


class RecentFormsDetector(RegexBasedDetector):
    """Forms of keys that detect-secrets does not know, most of them younger than it."""

    secret_type = "API key"  # noqa: S105  # its kind, not itself
    denylist = (
        re.compile(
            r"(?<![A-Za-z0-9_-])(?:github_pat_\w{60,}|sk-(?:proj|svcacct|admin|ant|or-v1)-[\w-]{40,}|sk-[A-Za-z0-9]{32,}"
            r"|AIza[\w-]{35}|GOCSPX-[\w-]{20,}|ya29\.[\w-]{30,}|dapi[0-9a-f]{32}|r8_[A-Za-z0-9]{37}|gsk_[A-Za-z0-9]{40,}"
            r"|xai-[A-Za-z0-9]{60,}|nvapi-[\w-]{60,}|pplx-[A-Za-z0-9]{40,}|KGAT_[0-9a-f]{32}|wandb_v1_\w{20,}"
            r"|(?:npm|dckr_pat|glsa)_\w{24,}|hvs\.[\w-]{24,}|xapp-\d-[\w-]{20,}|xox[cde][.-][\w.%-]{20,})(?![A-Za-z0-9])"
        ),
        re.compile(r"\bBearer\s+([\w.~+/-]{24,}=*)"),
        re.compile(r"\bAuthorization\b.{0,5}\b(?:Basic|Token)\s+([\w+/-]{8,}=*)"),
        re.compile(r"\bwandb login\s+(?:--?\w+\s+)*([0-9a-f]{40})\b"),
    )


class LinkDetector(RegexBasedDetector):
    """Addresses that open a door: with a password or token in them, or signed."""

    secret_type = "address with a password or signature"  # noqa: S105  # its kind, not itself
    denylist = (
        re.compile(r"://[^\s/?#@:\"'<>]*:([^\s/@\"'<>]+)@"),
        re.compile(r"://([^\s/?#@:\"'<>]{20,})@"),
        re.compile(r"//discord(?:app)?\.com/api/webhooks/\d+/([\w-]{20,})"),
        re.compile(r"[?&](?:X-Amz-Signature|X-Goog-Signature|Signature|sig)=([\w%+/-]{16,})", re.IGNORECASE),
    )


class LoginDetector(RegexBasedDetector):
    """Lines of `.netrc`."""

    secret_type = "password of a login"  # noqa: S105  # its kind, not itself
    denylist = (
        re.compile(r"\blogin\s+\S+\s+password\s+(\S+)"),
        re.compile(r"^\s*password\s+(?=\S*\d)(\S{6,})\s*$"),
    )


class KeyBlockDetector(RegexBasedDetector):
    """Heads of private keys, those too that detect-secrets does not know: encrypted ones, PuTTY's third form, age's."""

    secret_type = "private key"  # noqa: S105  # its kind, not itself
    denylist = (re.compile(r"BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY|PuTTY-User-Key-File-\d|AGE-SECRET-KEY-1"),)


class HuggingFaceTokenDetector(RegexBasedDetector):
    """The tokens of the Hub itself, of users and of organisations, which detect-secrets does not know."""

    secret_type = "Hugging Face token"  # noqa: S105  # its kind, not itself
    denylist = (re.compile(r"(?<![A-Za-z0-9_])(?:(?:hf|api_org)_[A-Za-z0-9]{30,}|hf_(?:oauth|jwt)_[\w.-]{30,})"),)


DETECTORS = (
    HuggingFaceTokenDetector,
    RecentFormsDetector,
    KeyBlockDetector,
    artifactory.ArtifactoryDetector,
    aws.AWSKeyDetector,
    azure_storage_key.AzureStorageKeyDetector,
    discord.DiscordBotTokenDetector,
    github_token.GitHubTokenDetector,
    gitlab_token.GitLabTokenDetector,
    jwt.JwtTokenDetector,
    mailchimp.MailchimpDetector,
    npm.NpmDetector,
    openai.OpenAIDetector,
    pypi_token.PypiTokenDetector,
    sendgrid.SendGridDetector,
    slack.SlackDetector,
    square_oauth.SquareOAuthDetector,
    stripe.StripeDetector,
    telegram_token.TelegramBotTokenDetector,
    twilio.TwilioKeyDetector,
    LinkDetector,
    LoginDetector,
)

# A name that ends like that of a secret, and what it is given, in quotes or not; also as an option of a command. What
# is given may itself be such a name.
_NAME = r"(?:key|token|secret|(?<![a-z])pass|passw(?:or)?d|passphrase|pwd|credential|auth)s?"
_GIVEN = re.compile(
    rf"(?:{_NAME}[\"'`\]]{{0,2}}\s*(?:=>|:=|[:=])\s*\[?|--[\w-]*{_NAME}\s+)[\"'`]?(?=([^\s\"'`,;&()<>{{}}\[\]]+))",
    re.IGNORECASE,
)
_PASSWORD = re.compile(r"(?:pass|passw(?:or)?d|passphrase|pwd|secret)s?\W", re.IGNORECASE)


@cache
def _detectors() -> tuple[RegexBasedDetector, ...]:
    return tuple(detector() for detector in DETECTORS)


def kinds_of_keys(line: str) -> list[str]:
    """Of which kinds are the keys in a line that have a form of their own."""
    return [
        detector.secret_type for detector in _detectors() if any(_is_secret(s) for s in detector.analyze_string(line))
    ]


def _is_secret(found: str) -> bool:
    """Not an example in a manual, such as `<token>` or `${TOKEN}`."""
    return not (heuristic.is_templated_secret(found) or heuristic.is_prefixed_with_dollar_sign(found))


def has_password(line: str) -> bool:
    """Whether a name that sounds secret is given a value: in quotes, or one that no word looks like."""
    return any(_is_given(found) for found in _GIVEN.finditer(line)) or any(
        _is_value(found[group]) and not heuristic.is_indirect_reference(found[0])
        for pattern, group in QUOTES_REQUIRED_DENYLIST_REGEX_TO_GROUP.items()
        for found in pattern.finditer(line)  # all of them, where detect-secrets stops at the first
    )


def is_password_in_yaml(line: str) -> bool:
    """Whether a line of YAML gives a key that sounds secret a value; a sentence with a colon has no key."""
    return any(
        _is_value(found[group])
        for pattern, group in CONFIG_DENYLIST_REGEX_TO_GROUP.items()
        if (found := pattern.search(line)) and re.fullmatch(r"[\s\w.-]*", line[: found.start()])
    )


def _is_value(value: str) -> bool:
    value = value.strip()
    nothing = value.lower() in ("", "null", "none", "true", "false", "~") or heuristic.is_not_alphanumeric_string(value)
    return not nothing and _is_secret(value)


def _is_given(found: re.Match[str]) -> bool:
    value = found[1]
    if _looks_random(value):
        return True
    # A password may be short, and a word of a sentence is none.
    return bool(_PASSWORD.search(found[0])) and len(value) >= 6 and _is_value(value) and bool(re.search(r"\d", value))


def _looks_random(text: str) -> bool:
    """Whether a text is long and mixed like a key, and no path, name or version."""
    if not re.fullmatch(r"[\w+/~-]{20,}={0,2}", text):
        return False
    digits, small, large = (len(re.findall(kind, text)) for kind in ("[0-9]", "[a-z]", "[A-Z]"))
    return (digits > 0 and small > 0 and large > 0) or (digits > 1 and small + large > 0)


def words_like_keys(text: str) -> Iterator[str]:
    """The words of a file that holds keys which look like them."""
    return (word for word in re.split(r"[\s\"',;:@]+|=(?!=|\s|$)", text) if _looks_random(word))
