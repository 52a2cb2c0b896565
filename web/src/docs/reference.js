// Starts Swagger UI on the reference page, in the colour scheme that the reader prefers.
"use strict";
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const follow = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", follow);
follow();
SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#reference",
  deepLinking: true,
  displayRequestDuration: true,
  defaultModelsExpandDepth: 0,
  docExpansion: "list",
  operationsSorter: (a, b) => {
    const order = ["post", "get", "put", "delete"];
    return a.get("path").length - b.get("path").length || a.get("path").localeCompare(b.get("path"))
      || order.indexOf(a.get("method")) - order.indexOf(b.get("method"));
  },
  tryItOutEnabled: true,
  validatorUrl: null,
});
