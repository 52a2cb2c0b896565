// A chat in a browser: `fetch` sends commands and reads pages, an `EventSource` follows what comes after them.
"use strict";

const element = (id) => document.getElementById(id);

/** The app's token is kept for this tab only. */
const stored = {
  get token() { return sessionStorage.getItem("app_token"); },
  set token(token) { token ? sessionStorage.setItem("app_token", token) : sessionStorage.removeItem("app_token"); },
};

let app; // The path of the app.
let chat; // The number of the open chat.
let edited; // The number of the message that is being edited.
let consistencyToken; // The token of the last response. Sent with each request, so that the page reads its own writes.
let opening = 0; // Counts the openings of chats: only the chat that was opened last is shown.
let feeds = []; // The open event sources: one for the list of chats, one for the messages of the open chat.

/** An error response, or no response at all (status 0). */
class RequestError extends Error {
  constructor(status, problem) {
    super(problem.detail ?? (status ? `The server answered ${status}.` : "The server can't be reached."));
    this.status = status;
    this.code = problem.code;
  }
}

/** Sends a request, again if that can help. Returns the headers and the body of a success, or throws a `RequestError`. */
async function send(method, path, body) {
  const headers = { "Content-Type": "application/json" };
  // A POST that is repeated after a lost connection is executed once.
  if (method === "POST") headers["Idempotency-Key"] = `"${newKey()}"`;
  for (let attempt = 1; ; attempt++) {
    if (consistencyToken) headers["Consistency-Token"] = consistencyToken;
    else delete headers["Consistency-Token"];
    const response = await fetch(path, { method, headers, body: JSON.stringify(body) }).catch(() => null);
    if (response?.ok) {
      const token = response.headers.get("Consistency-Token");
      // The response to a query may be older than a command that was sent after it.
      const isNewer = method !== "GET" || consistencyToken === headers["Consistency-Token"];
      if (token && isNewer) consistencyToken = token;
      return { headers: response.headers, body: response.status === 204 ? null : await response.json() };
    }
    // A gateway may answer with something that is no problem document.
    const problem = (await response?.json().catch(() => null)) ?? {};
    const error = new RequestError(response?.status ?? 0, problem);
    let seconds = Number(response?.headers.get("Retry-After"));
    if (error.status === 0 || error.status >= 500) seconds ||= attempt;
    if (error.code === "consistency_token_unknown" && headers["Consistency-Token"]) {
      // The log of the server was restored to an earlier state.
      if (consistencyToken === headers["Consistency-Token"]) consistencyToken = undefined;
      seconds = 0.1;
    }
    if (!seconds || attempt === 5) throw error;
    await pause(seconds);
  }
}

const pause = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));

/** Returns a new idempotency key. `crypto.randomUUID` exists only on pages of HTTPS and of localhost. */
function newKey() {
  return Array.from(crypto.getRandomValues(new Uint32Array(4)), (number) => number.toString(36)).join("-");
}

/** Runs an action of the user, and shows its error if it fails. */
async function run(action) {
  element("error").hidden = true;
  try {
    await action();
  } catch (error) {
    element("error").textContent = error.message;
    element("error").hidden = false;
  }
}

/** Calls an action when a button is pressed, and ignores presses until it has ended. */
function onPress(button, action) {
  button.onclick = async () => {
    button.disabled = true;
    await run(action);
    button.disabled = false;
  };
}

/**
 * Repeats a load until it succeeds or fails with a final error, which is thrown. Returns nothing once the result is not
 * wanted any more.
 */
async function untilLoaded(load, isWanted, isFinal = () => false) {
  while (isWanted()) {
    try {
      const loaded = await load();
      return isWanted() ? loaded : undefined;
    } catch (error) {
      if (!isWanted()) return;
      if (isFinal(error)) throw error;
      element("error").textContent = error.message;
      element("error").hidden = false;
    }
    await pause(2);
    element("error").hidden = true;
  }
}

/** Follows events after a cursor. The browser reconnects by itself and sends the last id that it has seen. */
function follow(path, cursor, types, { changed, lost }) {
  const query = new URLSearchParams({ after: cursor, types: Object.keys(types).join() });
  const source = new EventSource(`${path}/events?${query}`);
  for (const [type, apply] of Object.entries(types)) {
    source.addEventListener(type, (event) => apply(JSON.parse(event.data)));
  }
  source.onopen = () => changed?.("live");
  source.onerror = () => {
    changed?.("reconnecting");
    // An error response ends the feed, for example if the server refused the cursor or has reached its limit of feeds.
    if (source.readyState !== EventSource.CLOSED) return;
    pause(2).then(() => { if (feeds.includes(source)) run(lost); });
  };
  feeds.push(source);
}

function closeFeeds() {
  for (const source of feeds) source.close();
  feeds = [];
}

/** Shows the app whose token is stored, and follows it. */
async function openApp() {
  const token = stored.token;
  const path = `/api/v1/apps/${token}`;
  // An app that was shown exists. A server that was restored may not find it until it has read its log.
  const isFinal = (error) => app !== path && error.status >= 400 && error.status < 500;
  let loaded;
  try {
    loaded = await untilLoaded(() => loadApp(path), () => stored.token === token, isFinal);
  } catch (error) {
    showStart();
    element("app-token").value = token;
    throw error;
  }
  if (!loaded) return;
  closeFeeds();
  app = path;
  element("start").hidden = true;
  element("app").hidden = false;
  element("name").textContent = loaded.name;
  element("chats").replaceChildren();
  loaded.chats.forEach(addChat);
  follow(app, loaded.cursor, {
    "chat.created": (event) => addChat(event.chat_number),
    "app.renamed": (event) => { element("name").textContent = event.name; },
  }, { lost: openApp });
  const number = chat ?? loaded.chats.at(-1);
  await (number ? openChat(number) : openNewChat());
}

async function loadApp(path) {
  const { body } = await send("GET", path);
  const chats = [];
  let list;
  for (let next = `${path}/chats?limit=100`; next; next = nextPage(list, "next")) {
    list = await send("GET", next);
    chats.push(...list.body.chats.map((chat) => chat.chat_number));
  }
  return { name: body.name, chats, cursor: list.headers.get("Consistency-Token") };
}

/** The path of the next or the previous page of a list, if there is one. */
function nextPage(page, relation) {
  return page.headers.get("Link")?.match(new RegExp(`<([^>]*)>; rel="${relation}"`))?.[1];
}

/** Creates a chat, and opens it if nothing else was opened or left meanwhile. */
async function openNewChat() {
  const opened = opening;
  const { body } = await send("POST", `${app}/chats`);
  if (opened === opening) await openChat(body.chat_number);
}

function addChat(number) {
  if (element(`chat-${number}`)) return;
  const button = document.createElement("button");
  button.id = `chat-${number}`;
  button.textContent = `Chat ${number}`;
  onPress(button, () => openChat(number));
  const item = document.createElement("li");
  item.append(button);
  element("chats").append(item);
  markOpenChat();
}

function markOpenChat() {
  for (const button of element("chats").querySelectorAll("button")) {
    if (button.id === `chat-${chat}`) button.setAttribute("aria-current", "true");
    else button.removeAttribute("aria-current");
  }
}

/** Shows the newest page of a chat, and follows the chat from the position of the page. */
async function openChat(number) {
  const opened = ++opening;
  feeds.splice(1).forEach((source) => source.close());
  chat = number;
  stopEditing();
  markOpenChat();
  element("chat").textContent = `Chat ${number}`;
  showState("connecting");
  const path = `${app}/chats/${number}`;
  const page = await untilLoaded(() => send("GET", `${path}/messages`), () => opened === opening);
  if (!page) return;
  element("messages").replaceChildren(...page.body.messages.map(messageItem));
  showEarlier(page);
  scrollToEnd();
  follow(path, page.headers.get("Consistency-Token"), {
    "message.created": (event) => {
      const atEnd = isAtEnd();
      element("messages").append(messageItem({ ...event, created_at: event.at, updated_at: event.at }));
      element("empty").hidden = true;
      if (atEnd) scrollToEnd();
    },
    "message.edited": (event) => {
      const item = element(`message-${event.message_number}`);
      if (!item) return;
      item.querySelector(".body").textContent = event.body;
      item.querySelector(".edited").hidden = false;
    },
    "message.deleted": (event) => {
      const item = element(`message-${event.message_number}`);
      if (!item) return;
      item.querySelector(".body").textContent = "This message was deleted.";
      item.querySelector(".body").classList.add("deleted");
      item.querySelectorAll("button").forEach((button) => button.remove());
    },
  }, { changed: showState, lost: () => openChat(number) });
}

function showState(state) {
  element("state").textContent = state;
  element("state").classList.toggle("live", state === "live");
}

/** Shows the button for earlier messages if there are any. */
function showEarlier(page) {
  const previous = nextPage(page, "prev");
  const button = element("earlier");
  button.hidden = !previous;
  const opened = opening;
  onPress(button, async () => {
    const earlier = await send("GET", previous);
    if (opened !== opening) return;
    element("messages").prepend(...earlier.body.messages.map(messageItem));
    showEarlier(earlier);
  });
  element("empty").hidden = element("messages").children.length > 0;
}

/** Returns the list item of a message. Text of users is only ever set as text. */
function messageItem(message) {
  const number = message.message_number;
  const part = (name, text, className = "") => {
    const created = document.createElement(name);
    created.textContent = text;
    created.className = className;
    return created;
  };
  const time = part("time", new Date(message.created_at).toLocaleTimeString());
  time.dateTime = message.created_at;
  const marker = part("span", "edited", "edited");
  marker.hidden = message.updated_at === message.created_at;
  const edit = part("button", "Edit");
  edit.onclick = () => startEditing(number);
  const remove = part("button", "Delete");
  remove.onclick = () => run(() => send("DELETE", `${app}/chats/${chat}/messages/${number}`));
  const head = part("p", "", "head");
  const sender = message.sender?.name || message.sender?.id || "no sender";
  head.append(part("span", `${number}`), part("b", sender), time, marker, edit, remove);
  const item = document.createElement("li");
  item.id = `message-${number}`;
  item.append(head, part("p", message.body, "body"));
  return item;
}

function startEditing(number) {
  edited = number;
  element("text").value = element(`message-${number}`).querySelector(".body").textContent;
  element("text").focus();
  element("submit").textContent = "Save";
  element("cancel").hidden = false;
}

function stopEditing() {
  if (edited) element("text").value = "";
  edited = undefined;
  element("submit").textContent = "Send";
  element("cancel").hidden = true;
}

const isAtEnd = () => element("scroll").scrollHeight - element("scroll").scrollTop - element("scroll").clientHeight < 40;
const scrollToEnd = () => element("scroll").scrollTo({ top: element("scroll").scrollHeight });

function showStart() {
  opening++;
  app = undefined;
  closeFeeds();
  chat = undefined;
  stored.token = null;
  element("app").hidden = true;
  element("start").hidden = false;
}

/** Calls an action when a form is submitted, instead of loading another page. */
function onSubmit(form, action) {
  let isRunning = false;
  element(form).addEventListener("submit", async (event) => {
    event.preventDefault();
    if (isRunning) return;
    isRunning = true;
    await run(action);
    isRunning = false;
  });
}

onSubmit("create", async () => {
  const created = await send("POST", "/api/v1/apps", { name: element("app-name").value });
  stored.token = created.body.data.app_token;
  await openApp();
});
onSubmit("open", () => {
  stored.token = element("app-token").value.trim();
  return openApp();
});
onSubmit("send", async () => {
  const text = element("text").value;
  const path = `${app}/chats/${chat}/messages`;
  if (edited) {
    await send("PUT", `${path}/${edited}`, { body: text });
    stopEditing();
    return;
  }
  const name = element("sender").value.trim();
  await send("POST", path, name ? { body: text, sender: { id: name, name } } : { body: text });
  // Text that was typed meanwhile stays.
  if (element("text").value === text) element("text").value = "";
  scrollToEnd();
});
element("text").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  element("send").requestSubmit();
});
element("cancel").onclick = stopEditing;
onPress(element("new-chat"), openNewChat);
onPress(element("copy"), () => navigator.clipboard.writeText(stored.token));
element("leave").onclick = showStart;

if (stored.token) run(openApp);
else element("start").hidden = false;
