// What all pages of the console do: ask each second for what is live, count down, and say when
// the gateway does not answer.
"use strict";

const TICK_MS = 1000;
const aheadMs = Number(document.body.dataset.now) * 1000 - Date.now();
const away = document.getElementById("away");

function tick() {
  countDown(document);
  if (!document.hidden) htmx.trigger(document.body, "tick");
}

function countDown(root) {
  const now = (Date.now() + aheadMs) / 1000;
  for (const time of root.querySelectorAll("time[data-until]")) {
    const left = Math.ceil(Number(time.dataset.until) - now);
    time.textContent = left <= 0 ? "until now" : left < 120 ? `${left} s`
      : left < 7200 ? `${Math.round(left / 60)} min` : `${Math.round(left / 3600)} h`;
  }
}

// Of a live part the browser keeps nothing; that it is still the same, its ETag says.
document.body.addEventListener("htmx:configRequest", (event) => {
  const part = event.detail.elt;
  if (part.dataset.etag) event.detail.headers["If-None-Match"] = part.dataset.etag;
});

document.body.addEventListener("htmx:beforeSwap", (event) => {
  const { target, elt, xhr } = event.detail;
  if (target.hasAttribute("data-live")) {
    // Whoever put something else there, the next tick brings what is true.
    if (elt === target) target.dataset.etag = xhr.getResponseHeader("ETag") || "";
    else if (xhr.status < 300) delete target.dataset.etag;
    else event.detail.target = document.getElementById("checks") || target;
  }
});

document.body.addEventListener("htmx:afterSwap", (event) => {
  countDown(event.detail.target);
  markMistake(event.detail.target);
  goBack(event.detail.requestConfig?.elt);
});

// Whoever had its card answered is where they were before it.
function goBack(card) {
  const button = card && card.dataset.back && document.getElementById(card.dataset.back);
  if (button) button.focus();
}

document.body.addEventListener("click", (event) => {
  const card = event.target.closest("[data-leaves]")?.closest("form");
  if (!card) return;
  card.remove();
  goBack(card);
});

document.body.addEventListener("htmx:afterRequest", (event) => {
  if (event.detail.successful) away.hidden = true;
});

document.body.addEventListener("htmx:responseError", (event) => {
  const { status } = event.detail.xhr;
  if (status === 401) return; // the page goes to the door
  if (away.hidden) {
    const since = new Date().toLocaleTimeString();
    away.textContent =
      `The gateway answered with ${status}, and its log says why; what you see is of ${since}.`;
  }
  away.hidden = false;
});

for (const kind of ["htmx:sendError", "htmx:timeout"]) {
  document.body.addEventListener(kind, () => {
    if (away.hidden) {
      const since = new Date().toLocaleTimeString();
      away.textContent = `The gateway does not answer; what you see is of ${since}.`;
    }
    away.hidden = false;
  });
}

// The field that a message is about.
function markMistake(root) {
  for (const field of document.querySelectorAll("[aria-invalid]")) {
    field.removeAttribute("aria-invalid");
  }
  const alert = root.querySelector(".alert[data-param]");
  const name = alert && alert.dataset.param.split(".")[0];
  const field = name && document.getElementById(`field-${name}`);
  if (field) {
    field.setAttribute("aria-invalid", "true");
    field.focus();
  }
}

// What a form changes is shown before it is saved; written on, it has to be shown again.
for (const form of document.querySelectorAll("form[data-edit]")) {
  form.addEventListener("input", (event) => {
    if (!event.target.hasAttribute("data-keeps")) {
      document.getElementById("preview").replaceChildren();
    }
  });
}

for (const choice of document.querySelectorAll("select[data-submits]")) {
  choice.addEventListener("change", () => choice.form.requestSubmit());
}

document.body.addEventListener("click", (event) => {
  const button = event.target.closest("[data-copies]");
  if (!button) return;
  navigator.clipboard.writeText(document.getElementById(button.dataset.copies).textContent)
    .then(() => { button.textContent = "Copied"; });
});

document.addEventListener("visibilitychange", () => { if (!document.hidden) tick(); });
countDown(document);
(function wait() {
  // At the gateway's whole seconds: where many pages ask at once, each costs it less.
  setTimeout(() => { tick(); wait(); }, TICK_MS - ((Date.now() + aheadMs) % TICK_MS));
})();
