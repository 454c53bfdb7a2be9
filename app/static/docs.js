// Starts Swagger UI with what /openapi.json says. A file of its own: the page's policy allows no inline script.
window.addEventListener("load", () => {
  window.ui = SwaggerUIBundle({
    url: "/openapi.json",
    dom_id: "#swagger-ui",
    deepLinking: true,
    validatorUrl: null, // asks no other server for an opinion
  });
});
