"""A client of the chat API for Python 3.9 or newer, without dependencies."""

import itertools
import json
import os
import re
import time
import uuid
from collections.abc import Iterator
from http.client import HTTPException, HTTPMessage
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen


class ChatClient:
    """Talks to one server. Apps, chats and messages are named by their paths, as in `Location`."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.consistency_token = ""  # The token of the last response.
        self.replays = 0  # Commands that were repeated and that the server had executed already.

    def create(self, path: str, body: dict[str, Any]) -> str:
        """Creates an app, a chat or a message. Returns its path."""
        return self._send("POST", path, body)[0]["Location"]

    def read(self, path: str) -> tuple[str, dict[str, Any]]:
        """Returns the ETag and the body of an app or a message."""
        headers, body = self._send("GET", path)
        return headers["ETag"], body

    def edit(self, message: str, text: str, etag: str) -> None:
        """Replaces the text of a message. Raises a 412 if the message has changed since it was read."""
        try:
            self._send("PUT", message, {"body": text}, etag)
        except HTTPError as error:
            if error.code != 412:
                raise
            # The change can be this edit itself, if its first response was lost.
            self.consistency_token = error.headers["Consistency-Token"]
            if self.read(message)[1]["body"] != text:
                raise

    def messages(self, chat: str, page_size: int = 50) -> Iterator[dict[str, Any]]:
        """Yields the messages of a chat, oldest first. Requests the next page when it is needed."""
        page = f"{chat}/messages?after=0&limit={page_size}"
        while page:
            headers, body = self._send("GET", page)
            yield from body["messages"]
            link = re.search(r'<([^>]*)>; rel="next"', headers.get("Link", ""))
            page = link[1] if link else ""

    def search(self, chat: str, query: str) -> list[dict[str, Any]]:
        """Returns the best matches, each with a snippet of HTML."""
        _, body = self._send("GET", f"{chat}/messages/search?{urlencode({'query': query})}")
        return list(body["messages"])

    def follow(self, path: str, cursor: str) -> Iterator[dict[str, Any]]:
        """Yields the events of an app or a chat after a cursor, each once, and waits for more.

        A cursor is the id of an event or a consistency token. Raises a 410 if the server's log does not know it."""
        while True:
            delay = 0.2
            headers = {"Accept": "text/event-stream", "Last-Event-ID": cursor}
            try:
                # The server sends something every 15 seconds.
                with urlopen(Request(f"{self._url}{path}/events", headers=headers), timeout=30) as lines:
                    fields: dict[str, str] = {}
                    for line in lines:
                        if not line.endswith(b"\n"):
                            break  # The connection was lost within a line.
                        name, _, value = line.decode().rstrip("\n").partition(": ")
                        if name:
                            fields[name] = value
                            continue
                        cursor = fields.get("id", cursor)  # An empty line ends an event.
                        if "data" in fields:
                            yield {"id": cursor, "event": fields["event"], "data": json.loads(fields["data"])}
                        fields = {}
            except (OSError, HTTPException) as error:
                if isinstance(error, HTTPError):
                    delay = float(error.headers.get("Retry-After", 0))
                if not delay:
                    raise
            time.sleep(delay)

    def _send(self, method: str, path: str, body: Any = None, etag: str = "") -> tuple[HTTPMessage, Any]:
        """Sends a request. Repeats it after a lost connection and where the server asks for it."""
        headers = {"Content-Type": "application/json"}
        if method == "POST":  # All attempts carry the same key: the server executes the command once.
            headers["Idempotency-Key"] = f'"{uuid.uuid4()}"'
        if etag:
            headers["If-Match"] = etag
        if self.consistency_token:  # The response includes all that this client has written or read.
            headers["Consistency-Token"] = self.consistency_token
        data = None if body is None else json.dumps(body).encode()
        for attempt in range(10):
            try:
                with urlopen(Request(self._url + path, data, headers, method=method), timeout=30) as response:
                    self.consistency_token = response.headers["Consistency-Token"]
                    self.replays += "Idempotency-Replayed" in response.headers
                    return response.headers, json.load(response)
            except (OSError, HTTPException) as error:
                failure, delay = error, min(0.1 * 2**attempt, 5)
                if isinstance(error, HTTPError):
                    delay = float(error.headers.get("Retry-After", 0))
                    if error.code == 400:  # The log of the server may have been restored: it does not know the token.
                        self.consistency_token = error.headers.get("Consistency-Token", "")
                if not delay:
                    raise
            time.sleep(delay)
        raise failure


if __name__ == "__main__":
    client = ChatClient(os.environ.get("CHAT_API_URL", "http://127.0.0.1:8000"))
    app = client.create("/api/v1/apps", {"name": "example"})
    chat = client.create(f"{app}/chats", {})
    cursor = client.consistency_token
    nadia = {"id": "u-17", "name": "Nadia"}
    question = client.create(f"{chat}/messages", {"body": "Where is the fox?", "sender": nadia})
    for text in ("At the <gate>", "Which gate?", "The north gate", "Quick foxes"):
        client.create(f"{chat}/messages", {"body": text})
    etag, _ = client.read(question)
    client.edit(question, "Where is the quick fox?", etag)
    for message in client.messages(chat, page_size=2):
        print(message["message_number"], message["body"])
    for hit in client.search(chat, "fox"):
        print("found", hit["message_number"], hit["snippet"])
    for event in itertools.islice(client.follow(chat, cursor), 6):
        print(event["event"], event["data"]["message_number"], event["data"]["body"])
    print("repeated commands that the server recognized:", client.replays)
