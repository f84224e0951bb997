// Comforts only: every page works without this file.
"use strict";
(() => {
  const POPS = "details.menu, details.def, details.dialog";

  function closeOthers(keep) {
    for (const open of document.querySelectorAll(POPS)) {
      if (open.open && open !== keep && !open.contains(keep)) open.open = false;
    }
  }

  document.addEventListener("click", (event) => {
    const inside = event.target.closest(POPS);
    closeOthers(inside);
    if (event.target.closest("[data-close]")) {
      const pop = event.target.closest(POPS);
      if (pop) {
        pop.open = false;
        pop.querySelector("summary").focus();
      }
    }
  });

  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    const open = [...document.querySelectorAll(POPS)].filter((pop) => pop.open).pop();
    if (open) {
      open.open = false;
      open.querySelector("summary").focus();
    }
  });

  // A dialog takes the focus when it opens.
  document.addEventListener(
    "toggle",
    (event) => {
      if (event.target.matches?.("details.dialog") && event.target.open) {
        event.target.querySelector("textarea, input:not([type=hidden]), select, button")?.focus();
      }
    },
    true,
  );

  // A second click on a button whose answer is on its way would drop that answer with what it says.
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.method !== "post" || event.defaultPrevented) return;
    if (form.dataset.sent) event.preventDefault();
    form.dataset.sent = "yes";
  });
  window.addEventListener("pageshow", () => {
    for (const form of document.querySelectorAll("form[data-sent]")) delete form.dataset.sent;
  });

  // Selects of a filter bar apply at once; without script there is the button.
  document.addEventListener("change", (event) => {
    const form = event.target.closest("form[data-auto-submit]");
    if (form && event.target.matches("select")) form.requestSubmit();
  });

  // Charts: what a column stands for, at the pointer. The table below the chart has the same numbers.
  let tip = null;
  document.addEventListener("pointerover", (event) => {
    const column = event.target.closest?.("[data-tip]");
    if (tip) {
      tip.remove();
      tip = null;
    }
    if (!column) return;
    const plot = column.closest("[data-chart]");
    tip = document.createElement("div");
    tip.className = "tip";
    tip.setAttribute("aria-hidden", "true");
    tip.textContent = column.dataset.tip;
    plot.append(tip);
    const box = plot.getBoundingClientRect();
    const at = column.querySelector(".column-hit").getBoundingClientRect();
    const wanted = at.right - box.left + 6;
    const left = wanted + tip.offsetWidth > box.width ? at.left - box.left - tip.offsetWidth - 6 : wanted;
    tip.style.left = `${Math.max(0, left)}px`;
  });

  // Live parts: polled by htmx, paused by the reader, and never swapped under the hand of somebody who uses them.
  const live = document.querySelector("[data-live]");
  const state = document.querySelector("[data-live-state]");
  if (live && state && window.htmx) {
    const text = state.querySelector("[data-live-text]");
    const dot = state.querySelector(".dot");
    const button = state.querySelector("[data-live-toggle]");
    let paused = false;
    state.hidden = false;

    const show = (tone, words) => {
      dot.dataset.tone = tone;
      text.textContent = words;
    };
    button.addEventListener("click", () => {
      paused = !paused;
      button.setAttribute("aria-pressed", String(paused));
      button.textContent = paused ? "Resume" : "Pause";
      show(paused ? "neutral" : "success", paused ? "Paused" : "Live");
    });
    live.addEventListener("htmx:beforeRequest", (event) => {
      if (paused || document.hidden) event.preventDefault();
    });
    live.addEventListener("htmx:afterRequest", (event) => {
      if (!paused) show(event.detail.successful ? "success" : "danger", event.detail.successful ? "Live" : "No connection");
    });
    document.body.addEventListener("htmx:oobBeforeSwap", (event) => {
      const part = event.detail.target;
      if (part.contains(document.activeElement) || part.querySelector("details[open]")) event.detail.shouldSwap = false;
    });
  }

  // --- one box for all boxes of a list ----------------------------------------------------------
  document.addEventListener("change", (event) => {
    if (!event.target.matches("[data-check-all]")) return;
    for (const box of event.target.form.querySelectorAll("input[name=_selected_action]")) box.checked = event.target.checked;
  });
})();
