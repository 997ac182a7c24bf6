// The load form that Locust draws: headings of its groups, and what the server refuses at the field that it is about.
"use strict";
(() => {
  const groups = JSON.parse(document.currentScript.dataset.groups);
  const inForm = (name) => name.replace(/_./g, (found) => found[1].toUpperCase());
  // Locust draws the form on its page, and in a dialogue outside its root where a run has ended.
  const control = (name) => document.querySelector(`form [name="${inForm(name)}"]`);
  // React leaves alone what it has not drawn: headings and messages stand beside its elements.
  const around = (input) => input.closest(".MuiFormControl-root");

  const head = () => {
    for (const [title, first] of Object.entries(groups)) {
      const box = control(first) && around(control(first));
      if (!box || box.previousElementSibling?.classList.contains("raftload-group")) continue;
      const heading = document.createElement("h4");
      heading.className = "raftload-group";
      heading.textContent = title;
      box.before(heading);
    }
  };

  const clear = () => {
    for (const said of document.querySelectorAll(".raftload-error")) {
      const input = document.querySelector(`[aria-describedby="${said.id}"]`);
      input?.setAttribute("aria-invalid", "false");
      input?.removeAttribute("aria-describedby");
      said.remove();
    }
  };

  const refuse = (input, message) => {
    const said = document.createElement("p");
    // Locust's own switch between light and dark may be against the system's.
    const ground = getComputedStyle(document.body).backgroundColor.match(/\d+/g).map(Number);
    said.className = `raftload-error${ground[0] < 128 ? " on-dark" : ""}`;
    said.id = `raftload-error-${input.name}`;
    said.setAttribute("role", "alert");
    said.textContent = message;
    around(input).append(said);
    input.setAttribute("aria-invalid", "true");
    input.setAttribute("aria-describedby", said.id);
    const opener = input.closest(".MuiAccordion-root")?.querySelector("button[aria-expanded=false]");
    opener?.click();
    // What is folded takes no focus before it opens.
    setTimeout(() => { input.focus(); around(input).scrollIntoView({block: "center"}); }, opener ? 400 : 0);
  };

  const ask = window.fetch;
  window.fetch = async (...order) => {
    const response = await ask(...order);
    if (!new URL(response.url).pathname.endsWith("/swarm")) return response;
    clear();
    const answer = await response.clone().json().catch(() => ({}));
    const input = answer.field && control(answer.field);
    if (answer.success || !input) return response;
    refuse(input, answer.message);
    // Locust shows a message below the form, too; an empty one it does not.
    return new Response(JSON.stringify({...answer, message: ""}), response);
  };

  addEventListener("input", (event) => { if (event.target.hasAttribute?.("aria-describedby")) clear(); });
  addEventListener("DOMContentLoaded", () => {
    new MutationObserver(head).observe(document.body, {childList: true, subtree: true});
    head();
  });
})();
