// Enhancements of the console. Every page works without this module, except for live updates.
// README.md names the attributes that pages use to ask for an enhancement.

const MAX_HELD_ROWS = 500;
const MAX_SHOWN_ROWS = 500;
const MAX_FAILED_CONNECTIONS = 10;
const RECONNECT_MS = 5_000;

/** Returns the elements that match, `root` included. */
const all = (selector, root = document) => [
  ...(root.matches?.(selector) ? [root] : []),
  ...root.querySelectorAll(selector),
];

/** Creates an element with properties and children. Text becomes text nodes, never HTML. */
function element(name, properties = {}, ...children) {
  const { dataset, ...others } = properties;
  const created = Object.assign(document.createElement(name), others);
  Object.assign(created.dataset, dataset);
  created.append(...children);
  return created;
}

/** Settings of this browser. If they can't be stored, they last as long as the page. */
const settings = {
  unstored: new Map(),
  get(name) {
    if (this.unstored.has(name)) return this.unstored.get(name);
    try {
      return localStorage.getItem(`console.${name}`);
    } catch {
      return null;
    }
  },
  set(name, value) {
    try {
      localStorage.setItem(`console.${name}`, value);
      this.unstored.delete(name);
    } catch {
      // Storage is full, or not allowed here.
      this.unstored.set(name, value);
    }
  },
};

// ---- Times: <time datetime>, <time datetime data-relative> ----

const pad = (number, digits = 2) => String(number).padStart(digits, "0");

/** Formats a time like the server's text and as precisely, but without `UTC`: `2026-11-29 22:13:20.123`. */
function localTime(date, text) {
  const day = `${date.getFullYear()}-${pad(date.getMonth() + 1)}-${pad(date.getDate())}`;
  const clock = text.match(/\d\d:\d\d(:\d\d(\.\d+)?)?/)?.[0] ?? "";
  const parts = [pad(date.getHours()), pad(date.getMinutes()), pad(date.getSeconds())];
  const hours = clock.length > 5 ? parts.join(":") : parts.slice(0, 2).join(":");
  const millis = clock.includes(".") ? `.${pad(date.getMilliseconds(), 3)}` : "";
  const withDay = /\d{4}-\d\d-\d\d/.test(text);
  return [withDay ? day : "", clock ? hours + millis : ""].filter(Boolean).join(" ");
}

const relativeFormat = new Intl.RelativeTimeFormat("en", { numeric: "always", style: "short" });

function relativeTime(date) {
  const seconds = Math.round((date - Date.now()) / 1000);
  for (const [unit, size] of [["day", 86400], ["hour", 3600], ["minute", 60]]) {
    if (Math.abs(seconds) >= size) return relativeFormat.format(Math.trunc(seconds / size), unit);
  }
  return Math.abs(seconds) < 5 ? "now" : relativeFormat.format(seconds, "second");
}

function showTimes(root = document) {
  const inUtc = settings.get("times") === "utc";
  for (const time of all("time[datetime]", root)) {
    const date = new Date(time.dateTime);
    if (Number.isNaN(date.getTime())) continue;
    time.dataset.utc ??= time.textContent;
    if ("relative" in time.dataset) {
      time.textContent = relativeTime(date);
      time.title = inUtc ? time.dataset.utc : localTime(date, time.dataset.utc);
    } else if (inUtc) {
      time.textContent = time.dataset.utc;
      time.removeAttribute("title");
    } else {
      time.textContent = localTime(date, time.dataset.utc);
      time.title = `${time.dateTime} UTC, ${relativeTime(date)}`.replace("Z UTC", " UTC").replace("T", " ");
    }
  }
}

function addTimeSwitch() {
  const foot = document.querySelector("[data-times]");
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone ?? "this browser";
  if (!foot || zone === "UTC") return;
  const button = element("button", { type: "button", className: "button quiet small" });
  const label = () => {
    button.textContent = settings.get("times") === "utc" ? "Times in UTC" : `Times in ${zone}`;
    button.title = "Switch between UTC and the time zone of this browser";
  };
  button.addEventListener("click", () => {
    settings.set("times", settings.get("times") === "utc" ? "local" : "utc");
    label();
    showTimes();
  });
  label();
  foot.replaceChildren(button);
}

// ---- Copy: [data-copy], form[data-copy-token] ----

async function copyText(text) {
  try {
    return await navigator.clipboard.writeText(text);
  } catch {
    // A page without TLS has no clipboard API unless it is from localhost, and a browser may not permit its use.
  }
  const area = element("textarea", { value: text, className: "visually-hidden", readOnly: true });
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  if (!done) throw new Error("the browser refused to copy");
}

async function copyWith(button, getText) {
  const label = button.dataset.label ?? button.textContent;
  button.dataset.label = label;
  try {
    await copyText(await getText());
    button.textContent = "Copied";
    announce("Copied");
  } catch {
    button.textContent = "Not copied";
    announce("The text could not be copied");
  }
  setTimeout(() => (button.textContent = label), 1500);
}

function addCopyButtons(root = document) {
  for (const source of all("[data-copy]", root)) {
    if (source.nextElementSibling?.classList.contains("copy")) continue;
    const text = source.dataset.copy || source.textContent.trim();
    const button = element("button", { type: "button", className: "copy" }, "Copy");
    button.setAttribute("aria-label", `Copy ${source.dataset.copyName ?? text.slice(0, 40)}`);
    button.addEventListener("click", () => copyWith(button, () => text));
    source.after(button);
  }
}

// ---- Announcements for screen readers ----

const status = element("p", { className: "visually-hidden", role: "status" });

function announce(text) {
  status.textContent = text;
}

// ---- Live rows and fragments: [data-tail], [data-live] ----

/** Turns HTML of the server's own templates into nodes. The server has escaped all stored text in it. */
function fragment(html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  return template.content;
}

function enhance(root) {
  showTimes(root);
  addCopyButtons(root);
}

/**
 * Follows server-sent events. The browser connects again after a lost connection, and this function after an answer with
 * an error status. `after` in the URL is then the last id that came, if the server sends ids.
 */
function follow(address, handlers, onState = () => {}) {
  const url = new URL(address, location.href);
  let failures = 0;
  let timer = 0;
  let source = null;
  const connect = () => {
    source = new EventSource(url);
    source.addEventListener("open", () => {
      failures = 0;
      onState("live");
    });
    source.addEventListener("error", () => {
      if (source.readyState === EventSource.CLOSED) {
        failures += 1;
        if (failures > MAX_FAILED_CONNECTIONS) {
          onState("broken");
          return;
        }
        timer = setTimeout(connect, RECONNECT_MS);
      }
      onState("connecting");
    });
    for (const [type, handler] of Object.entries(handlers)) {
      source.addEventListener(type, (event) => {
        if (event.lastEventId) url.searchParams.set("after", event.lastEventId);
        handler(event);
      });
    }
  };
  const close = () => {
    clearTimeout(timer);
    source.close();
  };
  window.addEventListener("pagehide", close);
  window.addEventListener("pageshow", (event) => {
    if (event.persisted) connect();
  });
  connect();
  return close;
}

/** Follows the events of a list. New rows wait while it is paused, hidden, focused, or under the pointer. */
function followTail(bar) {
  const body = document.querySelector(`#${bar.dataset.rows} tbody`);
  if (!body) return;
  let held = [];
  let missed = 0;
  let isPaused = false;
  const state = element("span", { className: "state" });
  const count = element("span", { className: "muted" });
  const pause = element("button", { type: "button", className: "button small" });
  const show = element("button", { type: "button", className: "button small" }, "Show them");
  bar.replaceChildren(state, pause, count, show);

  const isHeld = () => isPaused || document.hidden || body.matches(":hover, :focus-within");
  const render = (name = bar.dataset.state) => {
    bar.dataset.state = name;
    bar.classList.toggle("paused", isPaused);
    const names = { live: "Live", paused: "Paused", connecting: "Connecting", broken: "Not connected. Load the page again." };
    state.textContent = names[isPaused && name === "live" ? "paused" : name];
    pause.textContent = isPaused ? "Resume" : "Pause";
    const waiting = held.length + missed;
    count.textContent = waiting === 1 ? "1 new event" : `${waiting.toLocaleString("en")} new events`;
    count.hidden = show.hidden = waiting === 0;
  };
  const flush = () => {
    if (missed > 0) {
      // More rows came than this page keeps. The server's page has the newest ones.
      location.reload();
      return;
    }
    for (const html of held) {
      const rows = fragment(html);
      for (const row of rows.children) row.classList.add("new");
      enhance(rows);
      body.prepend(rows);
    }
    held = [];
    while (body.rows.length > MAX_SHOWN_ROWS) body.lastElementChild.remove();
    document.querySelector(`#${bar.dataset.rows} + .empty`)?.remove();
    render();
  };

  pause.addEventListener("click", () => {
    isPaused = !isPaused;
    if (!isPaused) flush();
    render();
    announce(isPaused ? "Paused" : "Live");
  });
  show.addEventListener("click", flush);
  const flushIfFree = () => {
    if (held.length > 0 && !isHeld()) flush();
  };
  body.addEventListener("pointerleave", flushIfFree);
  body.addEventListener("focusout", () => setTimeout(flushIfFree));
  document.addEventListener("visibilitychange", flushIfFree);
  const row = (event) => {
    if (held.length < MAX_HELD_ROWS) held.push(event.data);
    else missed += 1;
    if (isHeld()) render();
    else flush();
  };
  render("connecting");
  follow(bar.dataset.tail, { row }, render);
}

/** Replaces the content of an element with each fragment that the server sends, such as the progress of a job. */
function followFragment(target) {
  const close = follow(target.dataset.live, {
    fragment(event) {
      target.replaceChildren(fragment(event.data));
      enhance(target);
    },
    end() {
      close();
      // The page of a finished job has its outcome, and the actions that follow.
      location.reload();
    },
  });
}

// ---- Time slider: input[data-number] ----

/** Shows the state at a position while the slider moves, by loading the same page in the background. */
function enhanceSlider(range) {
  const form = range.form;
  const number = document.getElementById(range.dataset.number);
  let loading = null;
  const load = async () => {
    loading?.abort();
    loading = new AbortController();
    const url = new URL(form.action);
    url.search = new URLSearchParams(new FormData(form));
    const shown = document.getElementById("state");
    shown?.setAttribute("aria-busy", "true");
    try {
      const response = await fetch(url, { signal: loading.signal });
      const page = new DOMParser().parseFromString(await response.text(), "text/html");
      const next = page.getElementById("state");
      if (!response.ok || !next || !shown) throw new Error("not a state");
      shown.replaceWith(document.adoptNode(next));
      enhance(next);
      history.replaceState(null, "", url);
    } catch (error) {
      if (error.name !== "AbortError") location.assign(url);
    }
  };
  let timer = 0;
  range.addEventListener("input", () => {
    if (number) number.value = range.value;
    clearTimeout(timer);
    timer = setTimeout(load, 120);
  });
}

// ---- Charts: the <title> of a column as a tooltip ----

function addTooltips(figure) {
  const tip = element("div", { className: "tip", hidden: true });
  figure.append(tip);
  for (const column of figure.querySelectorAll("svg g")) {
    const title = column.querySelector("title");
    if (!title) continue;
    const text = title.textContent;
    const date = new Date(column.dataset.datetime ?? NaN);
    title.remove();
    column.addEventListener("pointerenter", () => {
      const isLocal = settings.get("times") !== "utc" && !Number.isNaN(date.getTime());
      tip.textContent = isLocal ? text.replace(/\d\d:\d\d UTC/, (utc) => localTime(date, utc)) : text;
      tip.hidden = false;
      const outer = figure.getBoundingClientRect();
      const inner = column.getBoundingClientRect();
      const left = inner.left + inner.width / 2 - outer.left - tip.offsetWidth / 2;
      // Positions are set on the object model, which the content security policy allows.
      tip.style.left = `${Math.max(0, Math.min(left, outer.width - tip.offsetWidth))}px`;
      tip.style.top = `${inner.top - outer.top - tip.offsetHeight - 4}px`;
    });
  }
  figure.addEventListener("pointerleave", () => (tip.hidden = true));
}

// ---- Dialog: list of keys ----

/** Opens a modal dialog, and removes it when it closes. */
function openDialog(title, ...content) {
  const heading = element("h2", { id: "dialog-title" }, title);
  const dialog = element("dialog", {}, heading, ...content);
  dialog.setAttribute("aria-labelledby", heading.id);
  dialog.addEventListener("close", () => dialog.remove());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

const KEYS = [
  ["/", "Go to the find box"],
  ["j", "Next row"],
  ["k", "Previous row"],
  ["Enter", "Open the row"],
  ["?", "Show this list"],
];

function showHelp() {
  const keys = element("dl", { className: "keys" });
  const add = (key, meaning) => {
    const keycaps = key.split(" ").flatMap((part) => [element("kbd", {}, part), " "]);
    keys.append(element("dt", {}, ...keycaps), element("dd", {}, meaning));
  };
  for (const [key, meaning] of KEYS) add(key, meaning);
  for (const link of all(".nav a[data-key]")) add(`g ${link.dataset.key}`, link.querySelector("span").textContent);
  const on = element("input", { type: "checkbox", checked: settings.get("keys") !== "off" });
  on.addEventListener("change", () => settings.set("keys", on.checked ? "on" : "off"));
  const close = element("button", { type: "button", className: "button" }, "Close");
  const dialog = openDialog(
    "Keyboard",
    keys,
    element("label", { className: "check" }, on, "Use these keys"),
    element("div", { className: "actions" }, close),
  );
  close.addEventListener("click", () => dialog.close());
  close.focus();
}

// ---- Keys ----

const isTyping = (target) =>
  target.isContentEditable || (target.matches?.("input, select, textarea") && !target.matches("[type=checkbox], [type=radio]"));

const rowLinks = () => all("[data-row]").filter((link) => link.checkVisibility?.() ?? true);

function moveRow(step) {
  const links = rowLinks();
  if (links.length === 0) return;
  const row = document.activeElement?.closest("tr, li");
  const current = links.findIndex((link) => link === document.activeElement || (row && row.contains(link)));
  const next = current < 0 ? (step > 0 ? 0 : links.length - 1) : Math.min(links.length - 1, Math.max(0, current + step));
  links[next].focus();
  links[next].scrollIntoView({ block: "nearest" });
}

let goPressedAt = -Infinity;

function onKey(event) {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  if (isTyping(event.target)) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  if (document.querySelector("dialog[open]")) return;
  const afterGo = event.timeStamp - goPressedAt < 1500;
  goPressedAt = -Infinity;
  // A button at the foot of the page opens the list of keys, which has the switch to use them again.
  if (settings.get("keys") === "off") return;
  if (event.key === "?") showHelp();
  else if (afterGo) {
    const link = document.querySelector(`.nav a[data-key="${CSS.escape(event.key)}"]`);
    if (!link) return;
    link.click();
  } else if (event.key === "g") goPressedAt = event.timeStamp;
  else if (event.key === "/") document.querySelector(".find input[type=search]")?.focus();
  else if (event.key === "j") moveRow(1);
  else if (event.key === "k") moveRow(-1);
  else return;
  event.preventDefault();
}

// ---- Checkboxes for many rows: [data-check-all], [data-checked-count] ----

function enhanceSelection(box) {
  const form = box.form;
  const rows = () => all(`input[type=checkbox][name="${box.dataset.checkAll}"]`, form);
  const count = form.querySelector("[data-checked-count]");
  const render = () => {
    const checked = rows().filter((row) => row.checked).length;
    box.checked = checked > 0 && checked === rows().length;
    box.indeterminate = checked > 0 && checked < rows().length;
    if (count) count.textContent = `${checked} of ${rows().length} selected`;
  };
  box.hidden = false;
  box.addEventListener("change", () => {
    for (const row of rows()) row.checked = box.checked;
    render();
  });
  form.addEventListener("change", render);
  render();
}

// ---- Files as the text of a field: input[data-text-into] ----

function enhanceTextFile(input) {
  const field = document.getElementById(input.dataset.textInto);
  input.hidden = false;
  input.addEventListener("change", async () => {
    const [file] = input.files;
    if (file) field.value = await file.text();
  });
}

// ---- Times as input: input[data-time] ----

/** Turns a time that pages show in the browser's zone into one that the server reads. Other text stays as it is. */
function timeAsInput(text) {
  const isLocal = settings.get("times") !== "utc" && /^\d{4}-\d\d-\d\d \d\d:\d\d(:\d\d(\.\d{1,3})?)?$/.test(text.trim());
  const date = isLocal ? new Date(text.trim().replace(" ", "T")) : new Date(NaN);
  return Number.isNaN(date.getTime()) ? text : date.toISOString();
}

// ---- Signing out in all tabs ----

/** A tab that shows the sign-in page tells the others, and each looks whether its session has ended. */
function followSignOut() {
  const tabs = new BroadcastChannel("console");
  if (document.querySelector('form[action="/console/sign-in"]')) {
    tabs.postMessage("signed out");
    return;
  }
  if (!document.querySelector('form[action="/console/sign-out"] button')) return;
  tabs.addEventListener("message", async () => {
    const answer = await fetch("/console/jobs", { method: "HEAD" });
    if (answer.status === 401) location.assign("/console/sign-in");
  });
}

// ---- Start ----

// After a form was sent, a reload of its answer would send it again. With this, a reload is a GET request, which leads
// to the page of the form.
history.replaceState(history.state, "", location.href);
document.body.append(status);
showTimes();
addTimeSwitch();
addCopyButtons();
document.querySelector(".nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
all("[data-tail]").forEach(followTail);
all("[data-live]").forEach(followFragment);
all("input[data-number]").forEach(enhanceSlider);
all(".chart").forEach(addTooltips);
all("[data-check-all]").forEach(enhanceSelection);
all("[data-text-into]").forEach(enhanceTextFile);
followSignOut();
all("[data-help]").forEach((button) => {
  button.hidden = false;
  button.addEventListener("click", showHelp);
});
setInterval(() => all("time[data-relative]").forEach((time) => showTimes(time)), 10_000);

document.addEventListener("keydown", onKey);

document.addEventListener("click", (event) => {
  for (const menu of all("details.menu[open]")) {
    if (!menu.contains(event.target)) menu.open = false;
  }
});

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  for (const menu of all("details.menu[open]")) {
    menu.open = false;
    menu.querySelector("summary").focus();
  }
});

let busyTimer = 0;

function showBusy() {
  clearTimeout(busyTimer);
  busyTimer = setTimeout(() => (document.documentElement.dataset.busy = ""), 200);
}

document.addEventListener("submit", (event) => {
  const { target: form, submitter } = event;
  if (event.defaultPrevented) return;
  if ("copyToken" in form.dataset && submitter) {
    event.preventDefault();
    copyWith(submitter, async () => {
      const body = new URLSearchParams(new FormData(form));
      const response = await fetch(form.action, { method: "POST", body, headers: { Accept: "text/plain" } });
      if (!response.ok) throw new Error(`status ${response.status}`);
      return response.text();
    });
    return;
  }
  for (const input of all("input[data-time]", form)) input.value = timeAsInput(input.value);
  // A second press must not send an action twice.
  if (form.getAttribute("aria-busy") === "true") event.preventDefault();
  else if (!("download" in form.dataset)) {
    form.setAttribute("aria-busy", "true");
    showBusy();
  }
});

document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[href]");
  const isPlain = link && !link.download && !link.target && link.origin === location.origin && !event.defaultPrevented;
  const opensElsewhere = event.button !== 0 || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey;
  if (isPlain && !opensElsewhere && link.pathname + link.search !== location.pathname + location.search) showBusy();
});

// A page that comes back from the browser's cache is not busy any more.
window.addEventListener("pageshow", () => {
  clearTimeout(busyTimer);
  delete document.documentElement.dataset.busy;
  for (const form of all("form[aria-busy]")) form.removeAttribute("aria-busy");
});
