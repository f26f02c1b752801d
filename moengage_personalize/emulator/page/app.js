// The live page asks for what is new twice a second, and draws it. Everything shown goes in as text, never as markup.
"use strict";

const byId = (id) => document.getElementById(id);
const number = new Intl.NumberFormat("en");
const ROWS = 120;

const PRESETS = [
  ["outage", "Outage", "connections are refused, open ones cut", { outage: true }],
  ["slow", "Slow answers", "median 0.5 s, long tail", { latency: 0.5, sigma: 0.8 }],
  ["errors", "Errors", "answered 503", { status: 503 }],
  ["limit", "Rate limit", "answered 429, Retry-After 2 s", { status: 429, retry_after: 2 }],
  ["hang", "Hanging", "taken, never answered", { outcome: "hang" }],
  ["reset", "Stream resets", "INTERNAL_ERROR in place of an answer", { outcome: "reset" }],
  ["lose", "Lost answers", "processed, but the answer is cut off", { outcome: "lose" }],
  ["drain", "GOAWAY", "answered, then the connection is drained", { outcome: "drain" }],
  ["key", "Wrong key", "answered 401", { status: 401 }],
];

const TITLES = new Map(PRESETS.map(([name, title]) => [name, title]));

function el(tag, given = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (name === "on") node.addEventListener("click", value);
    else if (name === "class") node.className = value;
    else if (value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== ""));
  return node;
}

function text(id, value) {
  const node = byId(id);
  if (node.textContent !== value) node.textContent = value;
}

const clock = (at) => new Date(at * 1000).toTimeString().slice(0, 8);
const plural = (count, noun) => `${number.format(count)} ${noun}${count === 1 ? "" : "s"}`;
const percent = (part, whole) => (whole ? `${Math.round((100 * part) / whole)} %` : "–");
const width = (node, share) => { node.style.width = `${Math.max(share > 0 ? 1.5 : 0, 100 * share)}%`; return node; };

// Asking -------------------------------------------------------------------------------------------------------------

const seen = { last: 0, started: null, paused: false, customer: null, troubles: new Map(), outageEnds: 0 };

async function ask(path, options) {
  const reply = await fetch(path, { signal: AbortSignal.timeout(4000), ...options });
  return reply.json();
}

async function look() {
  try {
    const live = await ask(`/_emulator/live?since=${seen.last}`);
    draw(live);
  } catch {
    gone();
  }
  setTimeout(look, document.hidden ? 3000 : 500);
}

function gone() {
  const rest = Math.ceil((seen.outageEnds - Date.now()) / 1000);
  byId("state").dataset.state = "gone";
  text("state-text", rest > 0 ? `Down as you asked, ${rest} s to go` : "The emulator does not answer");
}

// Drawing ------------------------------------------------------------------------------------------------------------

function draw(live) {
  if (seen.started !== live.started || live.last < seen.last) {
    byId("request-list").replaceChildren();
    if (seen.last && live.last < seen.last) { seen.last = 0; seen.started = live.started; return; }
  }
  seen.started = live.started;
  drawState(live);
  drawTiles(live);
  const aiming = byId("request-list").querySelector(".link:hover"); // what is about to be pressed must not move
  if (!seen.paused && !aiming) {
    drawRequests(live);
    seen.last = live.last;
  }
  drawTroubles(live.troubles);
  drawExperiences(live.experiences);
  drawBatches(live.batches);
  drawBars("elements-bars", live.elements_per_request);
  drawBars("actions-bars", live.actions_per_element);
  drawDuplicates(live);
  drawCustomers(live.customers);
  if (seen.customer !== null) drawStory();
}

function drawState(live) {
  const active = live.troubles.filter((wish) => wish.begins_in === 0);
  const state = byId("state");
  state.dataset.state = active.length ? "trouble" : "live";
  text("state-text", active.length ? active.map((wish) => TITLES.get(wish.label) || wish.label).join(", ") : "Live");
  const exports = live.exports;
  const minutes = Math.floor((live.now - live.started) / 60);
  const up = minutes < 1 ? "just started" : `up ${minutes} min`;
  text("whereabouts", [exports.MOENGAGE_PERSONALIZE_BASE_URL, exports.MOENGAGE_WORKSPACE_ID, up].filter(Boolean).join(" · "));
  byId("complaint").hidden = !live.complaint;
  text("complaint", live.complaint || "");
  const welcome = live.counts.requests === 0;
  byId("welcome").hidden = !welcome;
  if (welcome) text("exports", Object.entries(exports).map(([name, value]) => `export ${name}='${value}'`).join("\n"));
}

function drawTiles({ counts, pulse, profiles }) {
  const repeated = counts.duplicates_identical + counts.duplicates_different;
  const failed = Object.entries(counts.by_status).filter(([name]) => !name.endsWith(" 200"));
  const refused = failed.reduce((sum, [, count]) => sum + count, 0);
  const good = counts.by_status["events 200"] || 0;
  text("fetches", number.format(counts.fetch_requests));
  text("fetches-note", `${number.format(counts.anonymous_fetches)} anonymous`);
  text("served", number.format(counts.experiences_served));
  text("served-note", `of ${plural(counts.keys_asked, "key")} asked`);
  text("accepted", number.format(counts.accepted));
  text("accepted-note", `${number.format(counts.impressions)} shown, ${number.format(counts.clicks)} clicked`);
  text("ratio", good ? (counts.received / good).toFixed(1) : "–");
  text("ratio-note", `${plural(counts.event_requests, "request")}, ${plural(profiles, "profile")}`);
  text("duplicates", number.format(repeated));
  text("duplicates-note", counts.duplicates_different ? `${counts.duplicates_different} with other content` : repeated ? "all identical" : "");
  text("refused", number.format(refused));
  text("refused-note", failed.map(([name, count]) => `${name.replace(/ 0$/, " cut off")}: ${number.format(count)}`).slice(0, 2).join(", "));
  byId("refused").parentElement.dataset.mood = refused ? "bad" : "";
  byId("duplicates").parentElement.dataset.mood = counts.duplicates_different ? "bad" : repeated ? "odd" : "";
  spark("fetches-spark", pulse.map((second) => second.fetches), "Fetches");
  spark("accepted-spark", pulse.map((second) => second.accepted), "Accepted events");
  spark("refused-spark", pulse.map((second) => second.failed), "Refused requests");
}

function spark(id, values, noun) {
  const most = Math.max(...values, 1);
  const box = byId(id);
  box.setAttribute("aria-label", `${noun} in the last minute, at most ${Math.max(...values)} a second`);
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", `0 0 ${values.length * 3} 24`);
  svg.setAttribute("preserveAspectRatio", "none");
  values.forEach((value, place) => {
    const bar = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    const height = value ? Math.max(2, (22 * value) / most) : 0.6;
    for (const [name, given] of Object.entries({ x: place * 3, y: 24 - height, width: 2.2, height, opacity: value ? 1 : 0.3 })) bar.setAttribute(name, given);
    svg.append(bar);
  });
  box.replaceChildren(svg);
}

function drawRequests(live) {
  const list = byId("request-list");
  if (live.left_out) list.prepend(el("li", { class: "more" }, `… and ${number.format(live.left_out)} more`));
  for (const request of live.requests) list.prepend(requestRow(request));
  while (list.childElementCount > ROWS) list.lastElementChild.remove();
}

function requestRow(request) {
  const status = request.status || "cut";
  return el("li", { class: "new" },
    el("time", {}, clock(request.at)),
    el("span", { class: `badge ${request.endpoint}` }, request.endpoint),
    el("span", { class: `status ${request.status === 200 ? "" : "bad"}` }, String(status)),
    el("div", { class: "what" }, ...what(request), ...chips(request)));
}

function what(request) {
  if (request.error) return [request.error, " "];
  if (request.endpoint === "events" && request.elements) {
    const who = request.customer_id ? person(request.customer_id) : plural(request.elements, "customer");
    const again = request.duplicates ? [" ", el("span", { class: "chip odd" }, plural(request.duplicates, "duplicate"))] : [];
    return [who, ` · ${plural(request.actions, "event")} `, ...again];
  }
  if (request.endpoint === "fetch" && request.status === 200) {
    const who = request.customer_id ? person(request.customer_id) : el("span", { class: "muted" }, "anonymous");
    const served = (request.served || []).map(([key, , audience, id]) => el("span", { class: "chip", title: audience }, `${key} ${id}`));
    const missed = (request.unserved || []).map(([key, reason]) => el("span", { class: "chip off", title: words(reason) }, key));
    return [who, " ", ...served, ...missed];
  }
  return [];
}

const words = (reason) => reason.toLowerCase().replaceAll("_", " ");

function chips(request) {
  const found = [];
  if (request.identity === "unknown") found.push(el("span", { class: "chip", title: "no profile with this id yet: only what is for all users" }, "unknown customer"));
  for (const note of request.notes || []) found.push(el("span", { class: "chip odd" }, note));
  if (request.trouble) found.push(el("span", { class: "chip bad" }, TITLES.get(request.trouble) || request.trouble));
  return found;
}

function person(id) {
  return el("button", { type: "button", class: "link", on: () => follow(id) }, id);
}

// Trouble ------------------------------------------------------------------------------------------------------------

function makeSwitches() {
  const list = byId("switches");
  for (const [name, title, hint, wish] of PRESETS) {
    const button = el("button", { type: "button", role: "switch", class: "switch", "aria-checked": "false", id: `switch-${name}`, on: () => toggle(name, wish) },
      el("b", {}, title), el("small", {}, hint), el("span", { class: "left" }), el("i", { "aria-hidden": "true" }));
    list.append(el("li", {}, button));
  }
}

async function toggle(name, wish) {
  const on = seen.troubles.get(name);
  if (on) return quell(on.number);
  const duration = byId("duration").value;
  const body = { name, ...wish, endpoints: byId("endpoints").value.split(","), share: byId("share").value / 100 };
  if (duration) body.duration = Number(duration);
  if (wish.outage) {
    body.share = 1;
    if (!duration) body.duration = 10; // nobody could switch it off on a connection that is refused
    seen.outageEnds = Date.now() + body.duration * 1000;
  }
  drawTroubles((await ask("/_emulator/trouble", { method: "POST", body: JSON.stringify(body), headers: { "content-type": "application/json" } })).troubles);
}

async function quell(wish) {
  const path = wish === undefined ? "/_emulator/trouble" : `/_emulator/trouble?number=${wish}`;
  seen.outageEnds = 0;
  drawTroubles((await ask(path, { method: "DELETE" })).troubles);
}

function drawTroubles(troubles) {
  const before = new Set(seen.troubles.keys());
  seen.troubles = new Map(troubles.filter((wish) => TITLES.has(wish.label)).map((wish) => [wish.label, wish]));
  for (const [name, title] of PRESETS) {
    const wish = seen.troubles.get(name);
    const button = byId(`switch-${name}`);
    button.setAttribute("aria-checked", String(Boolean(wish)));
    const left = !wish ? "" : wish.ends_in === null ? "on" : `${Math.ceil(wish.ends_in)} s`;
    button.querySelector(".left").textContent = left;
    if (Boolean(wish) !== before.has(name)) text("trouble-news", `${title} ${wish ? "on" : "off"}`);
  }
  byId("calm").disabled = troubles.length === 0;
  const others = troubles.filter((wish) => !TITLES.has(wish.label)).map((wish) => el("li", {},
    el("span", {}, `${wish.label} · `, wish.begins_in ? `in ${Math.ceil(wish.begins_in)} s` : wish.ends_in === null ? "on" : `${Math.ceil(wish.ends_in)} s left`),
    el("button", { type: "button", class: "quiet", on: () => quell(wish.number) }, "End")));
  if (others.length || byId("wishes").childElementCount) byId("wishes").replaceChildren(...others);
}

// Experiences --------------------------------------------------------------------------------------------------------

function drawExperiences(experiences) {
  const fresh = JSON.stringify(experiences);
  if (fresh === seen.experiences) return;
  seen.experiences = fresh;
  const most = Math.max(1, ...experiences.flatMap((one) => one.audiences.flatMap((audience) => audience.variations.flatMap((v) => [v.served, v.impressions, v.clicks]))));
  byId("experience-list").replaceChildren(...experiences.map((one) => experienceCard(one, most)));
}

function experienceCard(one, most) {
  const state = one.status === "Active" ? null : el("span", { class: "chip" }, one.status);
  const control = one.control_group ? el("span", { class: "chip" }, `control group ${percent(one.control_group, 1)}`) : null;
  const card = el("article", { class: one.status === "Active" ? "experience" : "experience idle" },
    el("h3", {}, one.name, el("code", {}, one.key), state, control));
  for (const audience of one.audiences) {
    card.append(el("p", { class: "audience" }, audience.when ? `${audience.name}: ${audience.when}` : audience.name));
    for (const variation of audience.variations) card.append(variationRow(variation, most));
  }
  return card;
}

function variationRow(variation, most) {
  const bar = (kind, count) => width(el("span", { class: kind }), count / most);
  const { served, impressions, clicks } = variation;
  const label = `${served} served, ${impressions} shown, ${clicks} clicked`;
  return el("div", { class: served || impressions || clicks ? "variation" : "variation unseen" },
    el("div", { class: "says", title: variation.says }, `${variation.id}. ${variation.says}`),
    el("div", { class: "meter", role: "img", "aria-label": label, title: label }, bar("served", served), bar("shown", impressions), bar("clicked", clicks)),
    el("div", { class: "numbers" }, el("span", { class: "served" }, number.format(served)), el("span", { class: "shown" }, number.format(impressions)),
      el("span", { class: "clicked" }, number.format(clicks)), el("span", { title: "clicks per impression" }, percent(clicks, impressions))));
}

// Coalescing ---------------------------------------------------------------------------------------------------------

const FRAMES = 12, DOTS = 40; // of a batch, at the most

function drawBatches(batches) {
  const fresh = JSON.stringify(batches);
  if (fresh === seen.batches) return;
  const newest = seen.newestBatch || 0;
  seen.batches = fresh;
  seen.newestBatch = batches.length ? batches[0].request : 0;
  const none = el("li", { class: "muted" }, "No event has come yet.");
  byId("batch-list").replaceChildren(...(batches.length ? batches.map((batch) => batchRow(batch, batch.request > newest)) : [none]));
}

function batchRow({ at, elements }, isNew) {
  const events = elements.reduce((sum, [shown, clicked]) => sum + shown + clicked, 0);
  const label = `${plural(events, "event")} of ${plural(elements.length, "customer")}`;
  const frames = elements.slice(0, FRAMES).map(frame);
  const more = elements.length > FRAMES ? [el("span", { class: "muted" }, `+${plural(elements.length - FRAMES, "customer")}`)] : [];
  return el("li", { class: isNew ? "new" : "" }, el("time", {}, clock(at)),
    el("div", { class: "drawn", role: "img", "aria-label": label, title: label }, ...frames, ...more), el("span", { class: "sum" }, number.format(events)));
}

function frame([shown, clicked]) {
  const rest = Math.max(0, shown + clicked - DOTS);
  const dots = [...Array(shown).fill(""), ...Array(clicked).fill("click")].slice(rest).map((kind) => el("i", { class: kind }));
  return el("span", { class: "frame" }, ...dots, rest ? `+${number.format(rest)}` : "");
}

function drawBars(id, buckets) {
  const most = Math.max(1, ...buckets.map((bucket) => bucket.count));
  const fresh = JSON.stringify(buckets);
  if (byId(id).dataset.drawn === fresh) return;
  byId(id).dataset.drawn = fresh;
  byId(id).replaceChildren(...buckets.map((bucket) => el("div", { class: "bar" },
    el("span", {}, bucket.label.replace("-", "–")), el("div", {}, width(el("span"), bucket.count / most)), el("span", {}, number.format(bucket.count)))));
}

function drawDuplicates({ duplicates, counts }) {
  const fresh = JSON.stringify(duplicates);
  if (fresh === seen.duplicates) return;
  seen.duplicates = fresh;
  const rows = duplicates.map((one) => el("li", {}, el("span", { class: "muted" }, `${clock(one.at)} `), person(one.customer), " ",
    el("span", { class: one.identical ? "chip odd" : "chip bad" }, one.identical ? "identical" : "other content"), " ", el("code", { class: "muted" }, one.uuid.slice(0, 8))));
  const none = el("li", { class: "muted" }, counts.accepted ? "None: every event came once." : "None yet.");
  byId("duplicate-list").replaceChildren(...(rows.length ? rows : [none]));
}

// One customer -------------------------------------------------------------------------------------------------------

function drawCustomers(customers) {
  const fresh = JSON.stringify(customers);
  if (fresh === seen.customers || byId("recent").matches(":hover, :focus-within")) return;
  seen.customers = fresh;
  byId("customers").replaceChildren(...customers.map((id) => el("option", { value: id })));
  byId("recent").replaceChildren(...(customers.length ? [el("span", { class: "muted" }, "Here of late:"), ...customers.slice(0, 8).map(person)] : [el("span", { class: "muted" }, "Nobody has been here yet.")]));
}

function follow(id) {
  seen.customer = id;
  seen.story = null;
  byId("customer").value = id;
  drawStory().then(() => byId("story-title").scrollIntoView({ block: "nearest" }));
}

async function drawStory() {
  let story;
  try { story = await ask(`/_emulator/story?customer=${encodeURIComponent(seen.customer)}`); } catch { return; }
  const fresh = JSON.stringify(story);
  if (fresh === seen.story || story.customer !== seen.customer) return;
  seen.story = fresh;
  const attributes = Object.entries(story.profile || {}).map(([name, value]) => el("span", {}, el("span", { class: "muted" }, `${name} `), typeof value === "string" ? value : JSON.stringify(value)));
  const known = story.profile ? [el("span", { class: "muted" }, "Profile:"), ...(attributes.length ? attributes : ["no attributes"])] : [el("span", { class: "chip" }, "no profile")];
  byId("profile").replaceChildren(el("b", {}, story.customer), ...known);
  byId("story-list").replaceChildren(...(story.steps.length ? story.steps.map(storyRow) : [el("li", { class: "more" }, "Nothing yet.")]));
}

function storyRow(step) {
  const told = step.kind === "fetch"
    ? [...step.served.map(([key, , audience, id]) => el("span", { class: "chip" }, `${key} ${id}, ${audience}`)),
       ...step.unserved.map(([key, reason]) => el("span", { class: "chip off", title: words(reason) }, `${key}: ${words(reason)}`))]
    : [step.experience, " ", el("span", { class: "muted" }, `variation ${step.variation}, ${step.audience}, ${step.platform || "unknown"}`), " ", step.b_id ? el("span", { class: "chip" }, step.b_id) : ""];
  return el("li", {}, el("time", {}, clock(step.at)), el("span", { class: `badge ${step.kind}` }, step.kind), el("div", { class: "what" }, ...told));
}

// Buttons ------------------------------------------------------------------------------------------------------------

byId("pause").addEventListener("click", () => {
  seen.paused = !seen.paused;
  byId("pause").setAttribute("aria-pressed", String(seen.paused));
  text("pause", seen.paused ? "Go on" : "Pause");
});
byId("calm").addEventListener("click", () => quell());
byId("share").addEventListener("input", () => text("share-text", `${byId("share").value} %`));
byId("copy").addEventListener("click", async () => {
  await navigator.clipboard.writeText(byId("exports").textContent);
  text("copy", "Copied");
});
byId("story-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const id = byId("customer").value.trim();
  if (id) follow(id);
});

makeSwitches();
look();
