// A session with the client that @hey-api/openapi-ts generates from the document of a running server.

import assert from "node:assert/strict";
import {
  createApp, createChat, createMessage, deleteMessage, editMessage, followApp, listApps, listChats, listEvents, listMessages,
  listProjections, ready, renameApp, searchApp, searchChatByUrl, showApp, showHistory, showMessage,
} from "./client";
import type { Problem } from "./client";
import { client } from "./client/client.gen";

client.setConfig({ baseUrl: process.env.CHAT_API_URL! });

type Reply<Data> = { data?: Data; error?: unknown; response?: Response };

function ok<Data>(reply: Reply<Data>, status = 200): Data {
  assert.equal(reply.response?.status, status, JSON.stringify(reply.error));
  return reply.data as Data;
}

function problem(reply: { error?: Problem; response?: Response }, status: number, code: string) {
  assert.equal(reply.response?.status, status);
  assert.equal(reply.error?.code, code);
}

/** Follows the pages of any list: `Next-Cursor` of a page is the `cursor` of the next one. */
async function* pages<Data>(listPage: (cursor?: string) => Promise<Reply<Data>>): AsyncGenerator<Data> {
  let cursor: string | undefined;
  do {
    const reply = await listPage(cursor);
    yield ok(reply);
    cursor = reply.response?.headers.get("Next-Cursor") ?? undefined;
  } while (cursor);
}

async function collect<Data, Item>(list: AsyncGenerator<Data>, items: (page: Data) => Item[]): Promise<Item[]> {
  const collected: Item[] = [];
  for await (const page of list) collected.push(...items(page));
  return collected;
}

/** Asks until the process is ready: on a busy machine, an engine may not answer in time. */
async function untilReady() {
  for (let attempt = 1; ; attempt++) {
    const reply = await ready();
    if (reply.response?.status === 200 || attempt === 100) return ok(reply);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

async function session() {
  assert.equal((await untilReady()).status, "ok");

  // Commands. A chat needs no body, and a repeated key creates nothing.
  const created_reply = await createApp({ body: { name: "an app" }, headers: { "Idempotency-Key": "one" } });
  const created = ok(created_reply, 201);
  const app = { app_token: created.data.app_token };
  const chat = { ...app, chat_number: 1 };
  for (const number of [1, 2, 3]) assert.equal(ok(await createChat({ path: app }), 201).chat_number, number);
  const post = (body: string, key: string) =>
    createMessage({ path: chat, body: { body }, headers: { "Idempotency-Key": key } });
  for (const [index, text] of ["a fox", "a dog", "two foxes", "a cat", "one more fox"].entries()) {
    assert.equal(ok(await post(text, `key-${index}`), 201).message_number, index + 1);
  }
  const repeated = await post("one more fox", "key-4");
  assert.equal(ok(repeated, 201).message_number, 5);
  assert.equal(repeated.response?.headers.get("Idempotency-Replayed"), "true");
  ok(await editMessage({ path: { ...chat, message_number: 2 }, body: { body: "a wolf" } }));
  const deleted = await deleteMessage({ path: { ...chat, message_number: 4 } });
  ok(deleted, 204);
  // On a busy machine, the projections may need longer than a query waits by default.
  const upTo = (command: { response?: Response }) =>
    ({ "Consistency-Token": command.response?.headers.get("Consistency-Token")!, Prefer: "wait=10" });
  const headers = upTo(deleted);

  // Single resources: a token reads one's own writes, and an ETag keeps a rename from overwriting a newer version.
  assert.equal(ok(await showMessage({ path: { ...chat, message_number: 2 }, headers })).body, "a wolf");
  const shown = await showApp({ path: app, headers });
  assert.equal(ok(shown).chat_count, 3);
  const etag = shown.response?.headers.get("ETag")!;
  const renamed = await renameApp({ path: app, body: { name: "renamed" }, headers: { "If-Match": etag } });
  ok(renamed);
  problem(await renameApp({ path: app, body: { name: "x" }, headers: { "If-Match": etag } }), 412, "precondition_failed");

  // Every list is read to its end in the same way.
  const chats = pages((cursor) => listChats({ path: app, query: { limit: 2, cursor } }));
  assert.deepEqual(await collect(chats, (page) => page.chats.map((chat) => chat.chat_number)), [1, 2, 3]);
  const messages = pages((cursor) => listMessages({ path: chat, query: cursor ? { limit: 2, cursor } : { limit: 2, after: 0 } }));
  assert.deepEqual(await collect(messages, (page) => page.messages.map((one) => one.message_number)), [1, 2, 3, 5]);
  const versions = pages((cursor) => showHistory({ path: { ...chat, message_number: 2 }, query: { limit: 1, cursor } }));
  assert.deepEqual(await collect(versions, (page) => page.versions.map((one) => one.body)), ["a dog", "a wolf"]);
  const apps = pages((cursor) => listApps({ query: { limit: 1, cursor }, headers: upTo(renamed) }));
  assert.equal((await collect(apps, (page) => page)).at(-1)?.name, "renamed");
  const byUrl = pages((cursor) => searchChatByUrl({ path: chat, query: { query: "fox", sort: "oldest", limit: 1, cursor }, headers }));
  assert.deepEqual(await collect(byUrl, (page) => page.messages.map((hit) => hit.message_number)), [1, 3, 5]);
  const hits = pages((cursor) => searchApp({ path: app, body: { query: "fox", limit: 2, cursor }, headers }));
  assert.deepEqual(await collect(hits, (page) => page.messages.map((hit) => hit.message_number)), [5, 1, 3]);
  const events = pages((cursor) => listEvents({ query: { app: app.app_token, limit: 4, cursor } }));
  assert.equal((await collect(events, (page) => page.data.events)).length, 12);
  ok(await listProjections());

  // The live feed by long polls.
  const after = created_reply.response?.headers.get("Consistency-Token")!;
  const poll = { headers: { Prefer: "wait=5" } };
  const page = ok(await followApp({ ...poll, path: app, query: { after, types: "message.deleted,app.renamed" } }));
  assert.ok(typeof page === "object");
  assert.deepEqual(page.events.map((event) => [event.event, event.data.message_number]), [["message.deleted", 4], ["app.renamed", undefined]]);
  assert.equal(page.next, page.events[1].id);

  // Errors are problems.
  problem(await showMessage({ path: { ...chat, message_number: 4 } }), 410, "message_deleted");
  problem(await listMessages({ path: { ...app, chat_number: 9 } }), 404, "chat_not_found");
}

session().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
