// A form that is sent before the scripts are there that send it waits for them.
"use strict";

const early = new Map();

function keepForLater(event) {
  if (!event.target.hasAttribute("hx-post")) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  early.set(event.target, event.submitter); // once, however often
}

function release() {
  document.removeEventListener("submit", keepForLater, true);
  for (const [form, button] of early) form.requestSubmit(button);
}

document.addEventListener("submit", keepForLater, true);
// The other scripts have been run by then, or could not be had: then the answer says so. After
// all that they do at this event themselves.
document.addEventListener("DOMContentLoaded", () => setTimeout(release));
