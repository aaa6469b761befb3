// A form that is sent before the scripts are there that send it waits for them.
"use strict";

const early = [];

function keepForLater(event) {
  if (!event.target.hasAttribute("hx-post")) return;
  event.preventDefault();
  early.push([event.target, event.submitter]);
}

document.addEventListener("submit", keepForLater, true);
// Whatever came of the other scripts by then: without them the answer says what is the matter.
addEventListener("load", () => {
  document.removeEventListener("submit", keepForLater, true);
  for (const [form, button] of early) form.requestSubmit(button);
});
