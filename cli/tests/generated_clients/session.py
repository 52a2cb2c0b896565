"""A session with the client that openapi-python-client generates from the document of a running server."""

import os
import time

from chat_client import AuthenticatedClient
from chat_client.api.apps import create_app, list_apps, rename_app, show_app
from chat_client.api.audit import list_events
from chat_client.api.chats import create_chat, list_chats
from chat_client.api.events import follow_app, follow_chat
from chat_client.api.messages import create_message, delete_message, edit_message, list_messages, show_history
from chat_client.api.messages import show_message
from chat_client.api.projections import list_projections
from chat_client.api.search import search_app, search_chat_by_url
from chat_client.api.system import ready
from chat_client.models import CreateAppRequest, CreateMessageRequest, EditMessageRequest, ErrorCode, HealthStatus
from chat_client.models import Problem, RenameAppRequest, SearchOrder, SearchRequest
from chat_client.types import UNSET

client = AuthenticatedClient(
    base_url=os.environ["CHAT_API_URL"], token="any: the server has none", raise_on_unexpected_status=True
)


def ok(reply, status=200):
    assert reply.status_code == status, (reply.status_code, reply.content)
    return reply.parsed


def problem(reply, status, code):
    found = ok(reply, status)
    assert isinstance(found, Problem) and found.code == code, found
    return found


def pages(list_page):
    """Follows the pages of any list: `Next-Cursor` of a page is the `cursor` of the next one."""
    cursor = UNSET
    while cursor is not None:
        reply = list_page(cursor)
        yield ok(reply)
        cursor = reply.headers.get("Next-Cursor")


def until_ready():
    """Asks until the process is ready: on a busy machine, an engine may not answer in time."""
    for _ in range(100):
        reply = ready.sync_detailed(client=client)
        if reply.status_code == 200:
            break
        time.sleep(0.1)
    return ok(reply)


assert until_ready().status == HealthStatus.OK

# Commands. A chat needs no body, and a repeated key creates nothing.
created = create_app.sync_detailed(client=client, body=CreateAppRequest(name="an app"), idempotency_key="one")
app = ok(created, 201).data.app_token
assert created.parsed.data.name == "an app"
for number in [1, 2, 3]:
    assert ok(create_chat.sync_detailed(app, client=client), 201).chat_number == number
texts = ["a fox", "a dog", "two foxes", "a cat", "one more fox"]
for number, text in enumerate(texts, start=1):
    reply = create_message.sync_detailed(
        app, 1, client=client, body=CreateMessageRequest(body=text), idempotency_key=f"key-{number}"
    )
    assert ok(reply, 201).message_number == number
repeated = create_message.sync_detailed(
    app, 1, client=client, body=CreateMessageRequest(body=texts[4]), idempotency_key="key-5"
)
assert ok(repeated, 201).message_number == 5 and repeated.headers["Idempotency-Replayed"] == "true"
assert ok(edit_message.sync_detailed(app, 1, 2, client=client, body=EditMessageRequest(body="a wolf"))).status == "success"
deleted = delete_message.sync_detailed(app, 1, 4, client=client)
ok(deleted, 204)
token = deleted.headers["Consistency-Token"]
# On a busy machine, the projections may need longer than a query waits by default.
wait = "wait=10"

# Single resources, with a token to read one's own writes and an ETag to change no newer version.
message = ok(show_message.sync_detailed(app, 1, 2, client=client, consistency_token=token, prefer=wait))
assert (message.body, message.updated_at >= message.created_at) == ("a wolf", True)
shown = show_app.sync_detailed(app, client=client, consistency_token=token, prefer=wait)
assert (ok(shown).name, shown.parsed.chat_count) == ("an app", 3)
etag = shown.headers["ETag"]
ok(show_app.sync_detailed(app, client=client, if_none_match=etag), 304)
renamed = rename_app.sync_detailed(app, client=client, body=RenameAppRequest(name="renamed"), if_match=etag)
ok(renamed)
stale = rename_app.sync_detailed(app, client=client, body=RenameAppRequest(name="again"), if_match=etag)
problem(stale, 412, ErrorCode.PRECONDITION_FAILED)

# Every list is read to its end in the same way.
chats = pages(lambda cursor: list_chats.sync_detailed(app, client=client, limit=2, cursor=cursor))
assert [chat.chat_number for page in chats for chat in page.chats] == [1, 2, 3]
messages = pages(
    lambda cursor: list_messages.sync_detailed(
        app, 1, client=client, limit=2, cursor=cursor, after=0 if cursor is UNSET else UNSET
    )
)
assert [message.message_number for page in messages for message in page.messages] == [1, 2, 3, 5]
versions = pages(lambda cursor: show_history.sync_detailed(app, 1, 2, client=client, limit=1, cursor=cursor))
assert [version.body for page in versions for version in page.versions] == ["a dog", "a wolf"]
rename_token = renamed.headers["Consistency-Token"]
apps = pages(
    lambda cursor: list_apps.sync_detailed(
        client=client, limit=1, cursor=cursor, consistency_token=rename_token, prefer=wait
    )
)
assert [app.name for page in apps for app in page][-1:] == ["renamed"]
hits = pages(
    lambda cursor: search_chat_by_url.sync_detailed(
        app,
        1,
        client=client,
        query="fox",
        sort=SearchOrder.OLDEST,
        limit=1,
        cursor=cursor,
        consistency_token=token,
        prefer=wait,
    )
)
assert [hit.message_number for page in hits for hit in page.messages] == [1, 3, 5]
hits = pages(
    lambda cursor: search_app.sync_detailed(
        app,
        client=client,
        body=SearchRequest(query="fox", limit=2, cursor=cursor),
        consistency_token=token,
        prefer=wait,
    )
)
assert [(hit.chat_number, hit.message_number) for page in hits for hit in page.messages] == [(1, 5), (1, 1), (1, 3)]
events = pages(lambda cursor: list_events.sync_detailed(client=client, app=app, limit=4, cursor=cursor))
assert sum(len(page.data.events) for page in events) == 12
ok(list_projections.sync_detailed(client=client))

# The live feed by long polls.
page = ok(follow_chat.sync_detailed(app, 1, client=client, after=created.headers["Consistency-Token"], prefer="wait=5"))
assert [(event.event, event.data.message_number) for event in page.events][-3:] == [
    ("message.created", 5),
    ("message.edited", 2),
    ("message.deleted", 4),
]
assert ok(follow_chat.sync_detailed(app, 1, client=client, after=page.next_, prefer="wait=0")).events == []
after = created.headers["Consistency-Token"]
page = ok(follow_app.sync_detailed(app, client=client, after=after, types="app.renamed", prefer="wait=5"))
assert [event.data.name for event in page.events] == ["renamed"]

# Errors are problems.
problem(show_message.sync_detailed(app, 1, 4, client=client), 410, ErrorCode.MESSAGE_DELETED)
missing = problem(list_messages.sync_detailed(app, 9, client=client), 404, ErrorCode.CHAT_NOT_FOUND)
assert missing.message == missing.detail
assert Problem.from_dict({**missing.to_dict(), "code": "a_later_code"}).code == "a_later_code"
