// A client of the chat API for Node 20 or newer, without dependencies.

declare const process: { env: Record<string, string | undefined> };

type Message = { message_number: number; body: string; created_at: string; updated_at: string };
type Hit = Message & { snippet: string; score: number };
type FeedEvent = { id: string; event: string; data: { message_number: number; body: string } };
type Answer<T> = { headers: Headers; body: T };

class ChatApiError extends Error {
  declare readonly cause: Response;
}

/** Talks to one server. Apps, chats and messages are named by their paths, as in `Location`. */
class ChatClient {
  readonly #url: string;
  consistencyToken: string | null = null; // The token of the last response.
  replays = 0; // Commands that were repeated and that the server had executed already.

  constructor(url: string) {
    this.#url = url;
  }

  /** Creates an app, a chat or a message. Returns its path. */
  async create(path: string, body: object): Promise<string> {
    const { headers } = await this.#send("POST", path, body);
    return headers.get("Location")!;
  }

  /** Returns the ETag and the text of a message. */
  async read(path: string): Promise<{ etag: string; text: string }> {
    const { headers, body } = await this.#send<Message>("GET", path);
    return { etag: headers.get("ETag")!, text: body.body };
  }

  /** Replaces the text of a message. Throws a 412 if the message has changed since it was read. */
  async edit(message: string, text: string, etag: string): Promise<void> {
    try {
      await this.#send("PUT", message, { body: text }, { "If-Match": etag });
    } catch (error) {
      if (!(error instanceof ChatApiError) || error.cause.status !== 412) throw error;
      // The change can be this edit itself, if its first response was lost.
      this.consistencyToken = error.cause.headers.get("Consistency-Token");
      if ((await this.read(message)).text !== text) throw error;
    }
  }

  /** Yields the messages of a chat, oldest first. Requests the next page when it is needed. */
  async *messages(chat: string, pageSize = 50): AsyncGenerator<Message> {
    let page: string | undefined = `${chat}/messages?after=0&limit=${pageSize}`;
    while (page) {
      const { headers, body }: Answer<{ messages: Message[] }> = await this.#send("GET", page);
      yield* body.messages;
      page = headers.get("Link")?.match(/<([^>]*)>; rel="next"/)?.[1];
    }
  }

  /** Returns the best matches, each with a snippet of HTML. */
  async search(chat: string, query: string): Promise<Hit[]> {
    const path = `${chat}/messages/search?${new URLSearchParams({ query })}`;
    return (await this.#send<{ messages: Hit[] }>("GET", path)).body.messages;
  }

  /**
   * Yields each event of an app or a chat after a cursor once, and waits for more. A cursor is the id of an event or a
   * consistency token. Throws a 410 if the server's log does not know it.
   */
  async *follow(path: string, cursor: string): AsyncGenerator<FeedEvent> {
    for (;;) {
      let seconds = 0.2;
      try {
        const headers = { Accept: "text/event-stream", "Last-Event-ID": cursor };
        const response = await fetch(`${this.#url}${path}/events`, { headers, signal: AbortSignal.timeout(60_000) });
        if (!response.ok) throw new ChatApiError(await response.text(), { cause: response });
        let text = "";
        for await (const chunk of response.body!.pipeThrough(new TextDecoderStream())) {
          const blocks = (text + chunk).split("\n\n"); // An empty line ends an event.
          text = blocks.pop()!;
          for (const block of blocks) {
            const field = (name: string) => block.match(new RegExp(`^${name}: (.*)$`, "m"))?.[1];
            const data = field("data");
            cursor = field("id") ?? cursor;
            if (data) yield { id: cursor, event: field("event")!, data: JSON.parse(data) };
          }
        }
      } catch (error) {
        if (error instanceof ChatApiError) seconds = Number(error.cause.headers.get("Retry-After"));
        if (!seconds) throw error;
      }
      await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
    }
  }

  /** Sends a request. Repeats it after a lost connection and where the server asks for it. */
  async #send<T>(method: string, path: string, body?: object, more = {}): Promise<Answer<T>> {
    const headers = new Headers({ "Content-Type": "application/json", ...more });
    // All attempts carry the same key: the server executes the command once.
    if (method === "POST") headers.set("Idempotency-Key", `"${crypto.randomUUID()}"`);
    // The response includes all that this client has written or read.
    if (this.consistencyToken) headers.set("Consistency-Token", this.consistencyToken);
    for (let attempt = 1; ; attempt++) {
      try {
        const options = { method, headers, body: JSON.stringify(body), signal: AbortSignal.timeout(30_000) };
        const response = await fetch(this.#url + path, options);
        const content = await response.text();
        // After a 400, the log of the server may have been restored: it does not know the token.
        if (response.ok || response.status === 400) this.consistencyToken = response.headers.get("Consistency-Token");
        if (!response.ok) throw new ChatApiError(content, { cause: response });
        if (response.headers.has("Idempotency-Replayed")) this.replays++;
        return { headers: response.headers, body: JSON.parse(content) };
      } catch (error) {
        let seconds = Math.min(0.05 * 2 ** attempt, 5);
        if (error instanceof ChatApiError) seconds = Number(error.cause.headers.get("Retry-After"));
        if (!seconds || attempt === 10) throw error;
        await new Promise((resolve) => setTimeout(resolve, seconds * 1_000));
      }
    }
  }
}

const client = new ChatClient(process.env.CHAT_API_URL ?? "http://127.0.0.1:8000");
const app = await client.create("/api/v1/apps", { name: "example" });
const chat = await client.create(`${app}/chats`, {});
const cursor = client.consistencyToken!;
const nadia = { id: "u-17", name: "Nadia" };
const question = await client.create(`${chat}/messages`, { body: "Where is the fox?", sender: nadia });
for (const text of ["At the <gate>", "Which gate?", "The north gate", "Quick foxes"]) {
  await client.create(`${chat}/messages`, { body: text });
}
await client.edit(question, "Where is the quick fox?", (await client.read(question)).etag);
for await (const message of client.messages(chat, 2)) console.log(message.message_number, message.body);
for (const hit of await client.search(chat, "fox")) console.log("found", hit.message_number, hit.snippet);
let events = 0;
for await (const { event, data } of client.follow(chat, cursor)) {
  console.log(event, data.message_number, data.body);
  if (++events === 6) break;
}
console.log("repeated commands that the server recognized:", client.replays);
