"""Schemathesis hooks: most requests are for an app that exists, and endless streams of events are cut."""

import os

import requests.adapters
import schemathesis
from schemathesis.core.parameters import ParameterLocation

APP_TOKEN = os.environ["CHAT_APP_TOKEN"]
# A stream is cut after this many seconds without data. The server sends the existing events at once.
STREAM_SECONDS = 0.1

_send = requests.adapters.HTTPAdapter.send


def _send_and_cut_streams(self, request, **options):
    """Sends a request. Cuts a stream of events, and returns a response whose body is what has arrived until then."""
    response = _send(self, request, **{**options, "stream": True})
    if response.headers.get("Content-Type", "").startswith("text/event-stream"):
        connection = response.raw._fp.fp.raw._sock
        connection.settimeout(STREAM_SECONDS)
        chunks = []
        try:
            for chunk in response.iter_content(chunk_size=None):
                chunks.append(chunk)
        except requests.exceptions.RequestException:
            pass
        response._content, response._content_consumed = b"".join(chunks), True
        response.close()
    return response


requests.adapters.HTTPAdapter.send = _send_and_cut_streams


@schemathesis.hook
def before_call(context, case, kwargs):
    """Changes most requests with a valid path to the app that exists and to small numbers, so that they reach the
    handlers. Makes every action a dry run, except verifications: hundreds of rebuilds would take minutes."""
    body = case.body
    if isinstance(body, dict) and body.get("execute") is True and not case.path.endswith("/verifications"):
        body["execute"] = False
    path = case.meta and case.meta.components.get(ParameterLocation.PATH)
    if not path or not path.mode.is_positive:
        return
    parameters = case.path_parameters
    # Tokens that end in 1 to 6, about a tenth, stay as generated: they test apps that don't exist.
    if "app_token" in parameters and parameters["app_token"][-1] not in "123456":
        parameters["app_token"] = APP_TOKEN
        for name in ("chat_number", "message_number"):
            if name in parameters:
                parameters[name] = 1 + int(parameters[name]) % 4
