"""Whether W&B's server answers and takes the key: asked once, before a training waits for it. Source: own."""

import http.client
import json
import os
import re
import ssl
import threading
import urllib.error
import urllib.request
from base64 import b64encode
from netrc import NetrcParseError, netrc
from urllib.parse import urlsplit

#: A server that needs longer than this for a line of JSON is not one to train with.
PATIENCE = 3.0
UNREACHABLE = "W&B cannot be reached: this run stays offline (`wandb sync RUN/wandb/offline-run-*` sends it later)"
WRONG_KEY = "W&B does not take the API key: this run stays offline (`wandb login --relogin` mends that)"


def logged_in_to_wandb() -> bool:
    """Whether W&B has credentials, without asking anybody for them."""
    import wandb

    try:
        return bool(os.environ.get("WANDB_API_KEY")) or bool(wandb.login(prompt=False, verify=False))
    except Exception:  # a login that cannot be read must not keep anybody from training
        return False


def server_trouble(patience: float = PATIENCE) -> str | None:
    """Why nothing can be sent, in one line; None where the server answers.

    Args:
        patience: seconds until a server that has not answered counts as away, whatever it does meanwhile: a time-out of a
            socket begins anew with every byte.
    """
    told: list[str | None] = []
    asking = threading.Thread(target=lambda: told.append(_ask(patience)), daemon=True)
    asking.start()
    asking.join(patience)
    return told[0] if told else UNREACHABLE


def _ask(patience: float) -> str | None:
    url = base_url()
    key = _api_key(url)
    request = urllib.request.Request(
        f"{url}/graphql",
        json.dumps({"query": "query Viewer { viewer { id } }"}).encode(),
        {"Content-Type": "application/json", "User-Agent": "meddiff"},
    )
    if key is not None:
        request.add_header("Authorization", "Basic " + b64encode(f"api:{key}".encode()).decode())
    try:
        with urllib.request.urlopen(request, timeout=patience) as answer:
            found = json.load(answer)
    except urllib.error.HTTPError as error:
        if key is not None and error.code in (401, 403):
            return WRONG_KEY
        return UNREACHABLE if error.code >= 500 else None
    except urllib.error.URLError as error:
        # somebody answers, with a certificate that W&B may know and Python does not
        return None if isinstance(error.reason, ssl.SSLCertVerificationError) else UNREACHABLE
    except ValueError:  # a page instead of JSON: a portal that wants a login first
        return UNREACHABLE
    except (OSError, http.client.HTTPException):  # or it speaks another language
        return UNREACHABLE
    data = found.get("data") if isinstance(found, dict) else None
    unknown = key is not None and isinstance(data, dict) and "viewer" in data and data["viewer"] is None
    return WRONG_KEY if unknown else None


def why_not(error: Exception) -> str:
    """Why W&B did not begin a run online, in one line.

    Example:
        >>> why_not(RuntimeError("Run ab was deleted;\\n take another id")).partition(":")[0]
        'W&B refuses this run (Run ab was deleted; take another id)'
        >>> why_not(TimeoutError("Run initialization has timed out after 5.0 sec")) == UNREACHABLE
        True
    """
    import wandb

    said = " ".join(str(error).split())
    if said in ("", "<no message>"):  # so it says of a server that answers 401, too: asked once more
        return server_trouble(1.0) or UNREACHABLE
    if isinstance(error, wandb.errors.AuthenticationError) or re.search(r"api.?key|permission|401|403", said, re.I):
        return WRONG_KEY
    if re.search(r"timed? ?out|connection|unreachable|no such host|dial|network|50[0-9]", said, re.I):
        return UNREACHABLE
    return f"W&B refuses this run ({said.removesuffix('.')}): it stays offline, and metrics.jsonl has everything"


def base_url() -> str:
    """Where W&B's server is, as W&B itself finds it."""
    import wandb

    return str(os.environ.get("WANDB_BASE_URL") or wandb.setup().settings.base_url).rstrip("/")


def _api_key(url: str) -> str | None:
    """The key of a server: of the environment, or as ``wandb login`` has written it; None where W&B has it elsewhere."""
    if key := os.environ.get("WANDB_API_KEY"):
        return key
    try:
        entry = netrc(os.environ.get("NETRC")).authenticators(urlsplit(url).hostname or "")
    except (OSError, NetrcParseError):
        return None
    return entry[2] if entry else None
