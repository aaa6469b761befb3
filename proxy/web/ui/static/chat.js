// A chat through the gateway: what any client sends, and how long each step took.
"use strict";

const $ = (id) => document.getElementById(id);
const STORY_TRIES = 15;
const STORY_MS = 200;
const said = [];
let call = null;

function shown(role, text) {
  const item = document.createElement("li");
  item.className = role;
  item.textContent = text;
  for (const empty of $("log").querySelectorAll(".empty")) empty.remove();
  $("log").append(item);
  item.scrollIntoView({ block: "nearest" });
  return item;
}

// Rows of what happened; texts only, so that nothing an upstream said is taken for a page.
function tell(rows) {
  const list = document.createElement("dl");
  for (const [label, text] of rows) {
    const name = document.createElement("dt");
    const value = document.createElement("dd");
    name.textContent = label;
    value.textContent = text;
    list.append(name, value);
  }
  $("told").replaceChildren(list);
}

function ms(from, to) {
  const took = to - from;
  return took < 1000 ? `${Math.round(took)} ms` : `${(took / 1000).toFixed(2)} s`;
}

// What an event says: its lines of data; others are comments and names.
function dataOf(event) {
  const lines = event.split(/\r?\n/).filter((line) => line.startsWith("data:"));
  return lines.map((line) => line.slice(5).replace(/^ /, "")).join("\n");
}

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split(/\r?\n\r?\n/);
    rest = parts.pop();
    for (const part of parts) {
      const data = dataOf(part);
      if (data && data !== "[DONE]") yield JSON.parse(data);
    }
  }
}

async function answered(response, item, steps) {
  let text = "";
  let usage = null;
  for await (const event of events(response.body)) {
    if (event.error) throw new Error(event.error.message);
    const piece = event.choices?.[0]?.delta?.content || "";
    if (piece && !steps.first) steps.first = performance.now();
    text += piece;
    usage = event.usage || usage;
    item.textContent = text;
  }
  return { text, usage };
}

function story(steps, response, usage) {
  const rows = [["Status", `${response.status}`]];
  rows.push(["Head after", ms(steps.begun, steps.head)]);
  if (steps.first) rows.push(["First word after", ms(steps.begun, steps.first)]);
  if (steps.end) rows.push(["Whole after", ms(steps.begun, steps.end)]);
  if (usage) {
    const seconds = (steps.end - (steps.first || steps.head)) / 1000;
    rows.push(["Tokens", `${usage.prompt_tokens} in, ${usage.completion_tokens} out`]);
    if (seconds > 0.05) rows.push(["Speed", `${Math.round(usage.completion_tokens / seconds)} tokens/s`]);
  }
  rows.push(["Request", response.headers.get("x-request-id") || "unknown"]);
  return rows;
}

async function ask(prompt) {
  said.push({ role: "user", content: prompt });
  shown("user", prompt);
  $("story").replaceChildren();
  const item = shown("assistant", "…");
  const steps = { begun: performance.now() };
  call = new AbortController();
  let response = null;
  try {
    response = await fetch("/v1/chat/completions", {
      method: "POST",
      credentials: "omit",
      signal: call.signal,
      headers: {
        "Authorization": `Bearer ${$("client-key").value.trim()}`,
        "Content-Type": "application/json",
      },
      body: JSON.stringify({
        model: $("model").value,
        messages: said,
        stream: true,
        stream_options: { include_usage: true },
      }),
    });
    steps.head = performance.now();
    if (!response.ok) throw new Error((await response.json()).error.message);
    const { text, usage } = await answered(response, item, steps);
    steps.end = performance.now();
    said.push({ role: "assistant", content: text });
    tell(story(steps, response, usage));
  } catch (error) {
    const isStopped = error.name === "AbortError";
    if (isStopped && item.textContent !== "…") {
      said.push({ role: "assistant", content: item.textContent });
    } else {
      said.pop();
      item.replaceChildren();
    }
    const why = document.createElement("small");
    why.textContent = isStopped ? "Stopped." : error.message;
    if (!isStopped) item.className = "assistant alert";
    item.append(why);
    if (response) tell(story(steps, response, null));
  }
  call = null;
  if (response) await tellStory(response.headers.get("x-request-id"));
}

// Who was asked, and what came of it: the gateway writes it down when the call is over.
async function tellStory(id) {
  const from = `${$("story").dataset.from}?id=${encodeURIComponent(id)}`;
  for (let tries = 0; id && tries < STORY_TRIES; tries += 1) {
    const told = await fetch(from, { headers: { "HX-Request": "true" } });
    if (told.status === 200) {
      $("story").innerHTML = await told.text();
      return;
    }
    await new Promise((resolve) => setTimeout(resolve, STORY_MS));
  }
}

$("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  const prompt = $("prompt").value.trim();
  if (!prompt || call) return;
  $("prompt").value = "";
  $("send").disabled = true;
  $("stop").disabled = false;
  await ask(prompt);
  $("send").disabled = false;
  $("stop").disabled = true;
  $("prompt").focus();
});

$("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $("ask").requestSubmit();
  }
});

$("stop").addEventListener("click", () => call && call.abort());

$("anew").addEventListener("click", () => {
  if (call) call.abort();
  said.length = 0;
  $("log").replaceChildren();
  $("told").replaceChildren();
  $("story").replaceChildren();
});
