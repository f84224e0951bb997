// The reference of the HTTP API, drawn from its own OpenAPI document. Everything comes from this server.
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
