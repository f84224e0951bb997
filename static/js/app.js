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

  // Selects of a filter bar apply at once; without script there is the button.
  document.addEventListener("change", (event) => {
    const form = event.target.closest("form[data-auto-submit]");
    if (form && event.target.matches("select")) form.requestSubmit();
  });
})();
