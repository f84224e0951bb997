// Loaded in <head> without defer, so that the chosen theme is there before the first paint.
// Same key and values as the stock admin: "auto", "light" or "dark".
"use strict";
(() => {
  const KEY = "theme";
  const MODES = ["auto", "light", "dark"];
  const LABELS = { auto: "Theme: as the system", light: "Theme: light", dark: "Theme: dark" };

  function stored() {
    try {
      const mode = localStorage.getItem(KEY);
      return MODES.includes(mode) ? mode : "auto";
    } catch {
      return "auto"; // storage may be forbidden; the system's theme is a good answer
    }
  }

  function show(mode) {
    document.documentElement.dataset.theme = mode;
    for (const button of document.querySelectorAll("[data-theme-toggle]")) {
      button.hidden = false;
      const label = button.querySelector("[data-theme-label]") || button;
      label.textContent = LABELS[mode];
    }
  }

  show(stored());
  document.addEventListener("DOMContentLoaded", () => show(stored()));
  document.addEventListener("click", (event) => {
    if (!event.target.closest("[data-theme-toggle]")) return;
    const next = MODES[(MODES.indexOf(stored()) + 1) % MODES.length];
    try {
      localStorage.setItem(KEY, next);
    } catch {
      // shown for this page only
    }
    show(next);
  });
})();
