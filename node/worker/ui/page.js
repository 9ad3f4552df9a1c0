// The page: a list of runs with search, and one run. It only looks. Everything shown is set as text, never as HTML.

import { picture } from "./picture.js";
import { span, timeline } from "./timeline.js";

const API = "../v1/";
const STATES = ["queued", "running", "blocked", "completed", "failed", "cancelled", "terminated", "continued"];
const LINKS = ["parent", "continued_from", "continued_to", "forked_from"];
const AGAIN_MS = 2000;
const main = document.getElementById("main");
const search = document.getElementById("search");
let turn = 0; // what was asked before the page moved on is not shown any more

for (const state of STATES) search.elements.state.append(new Option(state));
search.addEventListener("submit", (event) => {
  event.preventDefault();
  const asked = new URLSearchParams([...new FormData(search)].filter(([, value]) => value));
  location.hash = `#?${asked}`;
});
document.getElementById("open").addEventListener("submit", (event) => {
  event.preventDefault();
  location.hash = `#${encodeURIComponent(event.target.elements.id.value.trim())}`;
});
window.addEventListener("hashchange", show);
show();

async function show() {
  const mine = ++turn;
  const hash = location.hash.slice(1);
  main.replaceChildren();
  while (mine === turn) {
    const again = await attempt(() => (hash === "" || hash[0] === "?" ? list(hash.slice(1), mine) : run(decodeURIComponent(hash), mine)));
    if (!again) return;
    do await new Promise((wake) => setTimeout(wake, AGAIN_MS));
    while (document.hidden && mine === turn);
  }
}

/** Shows what went wrong instead of hiding it, and tries again: a worker restarts now and then. */
async function attempt(work) {
  const box = document.getElementById("problem");
  try {
    const again = await work();
    box.hidden = true;
    return again;
  } catch (error) {
    box.textContent = error.message;
    box.hidden = false;
    return error.retryable ?? true;
  }
}

async function get(path) {
  const answer = await fetch(API + path, { headers: { accept: "application/json" } });
  const body = await answer.json().catch(() => ({ detail: `HTTP ${answer.status}`, retryable: answer.status >= 500 }));
  if (!answer.ok) throw Object.assign(new Error(body.detail), { retryable: body.retryable });
  return body;
}

/** The list; answers whether it is to be looked at again. A later page stays as it is. */
async function list(query, mine) {
  const asked = new URLSearchParams(query);
  for (const field of search.elements) if (field.name) field.value = asked.get(field.name) ?? "";
  const wanted = new URLSearchParams(asked);
  if (asked.get("created_after")) wanted.set("created_after", new Date(asked.get("created_after")).toISOString());
  const page = await get(`runs?${wanted}`);
  if (mine !== turn) return false;
  document.title = "Runs";
  const rows = page.runs.map((each) => [
    node("a", { href: `#${encodeURIComponent(each.id)}` }, each.id), each.workflow, state(each), when(each.created_at), each.waits.join(", "),
  ]);
  const found = rows.length ? table(["Run", "Workflow", "State", "Started", "Waits for"], rows) : node("p", { class: "none" }, "No run matches.");
  main.replaceChildren(found);
  if (page.cursor) main.append(node("p", {}, node("a", { href: `#?${more(asked, page.cursor)}` }, "Older runs")));
  return !asked.has("cursor");
}

function more(asked, cursor) {
  const next = new URLSearchParams(asked);
  next.set("cursor", cursor);
  return next;
}

/** One run; answers whether it is to be looked at again: as long as it has not ended. */
async function run(id, mine) {
  const path = `runs/${encodeURIComponent(id)}`;
  const each = await get(path);
  const events = await history(path);
  if (mine !== turn) return false;
  document.title = `${each.workflow} ${id}`;
  const facts = [["Run", each.id], ["Workflow", each.workflow], ["State", state(each)], ["Started", when(each.created_at)], [each.closed_at ? "Ended" : "Changed", when(each.closed_at ?? each.updated_at)]];
  for (const key of LINKS) if (each[key]) facts.push([key.replace("_", " "), node("a", { href: `#${encodeURIComponent(each[key])}` }, each[key])]);
  for (const key of ["queue", "schedule"]) if (each[key]) facts.push([key, each[key].name ?? each[key]]);
  if (Object.keys(each.attributes).length) facts.push(["attributes", Object.entries(each.attributes).map(([name, value]) => `${name}=${value}`).join(", ")]);
  if (each.waits.length) facts.push(["Waits for", each.waits.join(", ")]);
  for (const key of ["input", "user_state", "result", "error"]) if (each[key] !== null) facts.push([key.replace("_", " "), json(each[key])]);
  const rows = timeline(events);
  main.replaceChildren(
    node("dl", {}, ...facts.flatMap(([name, value]) => [node("dt", {}, name), node("dd", {}, value)])),
    node("h2", {}, "Timeline"), rows.length ? picture(rows, span(events, Date.now())) : node("p", { class: "none" }, "No step yet."),
    node("h2", {}, "History"), table(["", "Time", "What", ""], events.map((event) => [event.seq, when(event.at), event.kind, json(event.body)])),
  );
  return each.closed_at === null;
}

async function history(path) {
  const events = [];
  let cursor = null;
  do {
    const page = await get(`${path}/history${cursor === null ? "" : `?cursor=${encodeURIComponent(cursor)}`}`);
    events.push(...page.events);
    cursor = page.cursor ?? null;
  } while (cursor !== null && events.length < 20_000);
  return events;
}

function table(names, rows) {
  const head = node("tr", {}, ...names.map((name) => node("th", { scope: "col" }, name)));
  const body = rows.map((cells) => node("tr", {}, ...cells.map((cell) => node("td", {}, cell))));
  return node("table", {}, node("thead", {}, head), node("tbody", {}, ...body));
}

const state = (each) => node("span", { class: `state ${each.paused ? "paused" : each.state}` }, each.paused ? `${each.state}, paused` : each.state);
const when = (text) => node("time", { datetime: text }, new Date(text).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" }));
const json = (value) => node("pre", {}, typeof value === "string" ? value : JSON.stringify(value, null, 1));

function node(name, attributes, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children.map((child) => (child instanceof Node ? child : String(child))));
  return element;
}
