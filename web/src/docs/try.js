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
let consistencyToken; // How far the log was at the last response. Sent with each request, so that the page reads its own writes.
let feeds = []; // The open event sources: one for the list of chats, one for the messages of the open chat.

/** Sends a request. Returns the headers and the body of a success, throws the problem's detail otherwise. */
async function send(method, path, body) {
  const options = { method, headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  if (consistencyToken) options.headers["Consistency-Token"] = consistencyToken;
  // A POST that is repeated after a lost connection is executed once.
  if (method === "POST") options.headers["Idempotency-Key"] = `"${newKey()}"`;
  for (let attempt = 1; ; attempt++) {
    let response;
    try {
      response = await fetch(path, options);
    } catch (error) {
      if (attempt === 5) throw new Error("The server can't be reached.", { cause: error });
    }
    // After a 400, the log of the server may have been restored: it does not know the token.
    if (response?.ok || response?.status === 400) consistencyToken = response.headers.get("Consistency-Token");
    if (response?.ok) {
      return { headers: response.headers, body: response.status === 204 ? null : await response.json() };
    }
    const seconds = response ? Number(response.headers.get("Retry-After")) : attempt;
    if (!seconds || attempt === 5) throw new Error(await detail(response));
    await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
  }
}

/** Returns the detail of a problem. A gateway may answer with something else. */
async function detail(response) {
  const problem = await response.json().catch(() => ({}));
  return problem.detail ?? `The server answered ${response.status}.`;
}

/** Returns a new idempotency key. `crypto.randomUUID` exists only on pages of HTTPS and of the own machine. */
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
    // An error response ends the feed: the server refused the cursor, or has no place for the feed now.
    if (source.readyState === EventSource.CLOSED) setTimeout(() => feeds.includes(source) && lost(), 2000);
  };
  feeds.push(source);
}

function closeFeeds() {
  for (const source of feeds) source.close();
  feeds = [];
}

async function openApp() {
  closeFeeds();
  app = `/api/v1/apps/${stored.token}`;
  let details;
  let list;
  try {
    details = await send("GET", app);
    list = await send("GET", `${app}/chats`);
  } catch (error) {
    showStart();
    throw error;
  }
  element("start").hidden = true;
  element("app").hidden = false;
  element("name").textContent = details.body.name;
  element("chats").replaceChildren();
  for (const { chat_number } of list.body.chats) addChat(chat_number);
  const cursor = list.headers.get("Consistency-Token");
  follow(app, cursor, {
    "chat.created": (event) => addChat(event.chat_number),
    "app.renamed": (event) => { element("name").textContent = event.name; },
  }, { lost: () => run(openApp) });
  const last = list.body.chats.at(-1);
  await openChat(chat ?? (last ? last.chat_number : await createChat()));
}

async function createChat() {
  return (await send("POST", `${app}/chats`)).body.chat_number;
}

function addChat(number) {
  if (element(`chat-${number}`)) return;
  const button = document.createElement("button");
  button.id = `chat-${number}`;
  button.textContent = `Chat ${number}`;
  button.onclick = () => run(() => openChat(number));
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

/** Shows the newest page of a chat, and follows the chat from where the page stands. */
async function openChat(number) {
  feeds.splice(1).forEach((source) => source.close());
  chat = number;
  stopEditing();
  markOpenChat();
  element("chat").textContent = `Chat ${number}`;
  showState("connecting");
  const path = `${app}/chats/${number}`;
  const page = await send("GET", `${path}/messages`);
  if (chat !== number) return;
  // The same chat may have been opened twice meanwhile.
  feeds.splice(1).forEach((source) => source.close());
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
  }, { changed: showState, lost: () => run(() => openChat(number)) });
}

function showState(state) {
  element("state").textContent = state;
  element("state").classList.toggle("live", state === "live");
}

/** Shows the button for earlier messages if there are any. */
function showEarlier(page) {
  const previous = page.headers.get("Link")?.match(/<([^>]*)>; rel="prev"/)?.[1];
  const button = element("earlier");
  button.hidden = !previous;
  button.onclick = () => run(async () => {
    const earlier = await send("GET", previous);
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
  closeFeeds();
  chat = undefined;
  stored.token = null;
  element("app").hidden = true;
  element("start").hidden = false;
}

/** Calls an action when a form is submitted, instead of loading another page. */
function onSubmit(form, action) {
  element(form).addEventListener("submit", (event) => {
    event.preventDefault();
    run(action);
  });
}

onSubmit("create", async () => {
  stored.token = (await send("POST", "/api/v1/apps", { name: element("app-name").value })).body.data.app_token;
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
  element("text").value = "";
  scrollToEnd();
});
element("text").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  element("send").requestSubmit();
});
element("cancel").onclick = stopEditing;
element("new-chat").onclick = () => run(async () => openChat(await createChat()));
element("copy").onclick = () => run(() => navigator.clipboard.writeText(stored.token));
element("leave").onclick = showStart;

if (stored.token) run(openApp);
else element("start").hidden = false;
