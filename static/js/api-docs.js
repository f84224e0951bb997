// The reference of the HTTP API, drawn from its own OpenAPI document. Everything comes from this server.
// Loaded in <head> after theme.js and without defer, so that the chosen theme is there before the first paint.
"use strict";
(() => {
  const root = document.documentElement;
  const system = window.matchMedia("(prefers-color-scheme: dark)");

  // The reference's own stylesheet has a dark theme, which it asks for by a class instead of `color-scheme`.
  function dress() {
    const chosen = root.dataset.theme;
    root.classList.toggle("dark-mode", chosen === "dark" || (chosen !== "light" && system.matches));
  }

  dress();
  system.addEventListener("change", dress);
  new MutationObserver(dress).observe(root, { attributeFilter: ["data-theme"] });
})();

window.addEventListener("DOMContentLoaded", () => {
  const place = document.getElementById("api-reference");
  window.SwaggerUIBundle({
    url: place.dataset.document,
    domNode: place,
    deepLinking: true,
    docExpansion: "list",
    defaultModelsExpandDepth: -1,
    validatorUrl: null,
    presets: [window.SwaggerUIBundle.presets.apis],
  });
});
