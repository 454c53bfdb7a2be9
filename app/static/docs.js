// Starts Swagger UI with what /openapi.json says. A file of its own: the page's policy allows no inline script.
window.addEventListener("load", () => {
  window.ui = SwaggerUIBundle({
    url: "/openapi.json",
    dom_id: "#swagger-ui",
    deepLinking: true,
    validatorUrl: null, // asks no other server for an opinion
    syntaxHighlight: { theme: "obsidian" }, // of its themes, one with enough contrast
    plugins: [forEverybody],
  });
});

// What Swagger UI leaves out for those who do not see the page: landmarks, names of what can be used, headings.
function forEverybody({ React }) {
  const make = React.createElement;
  const inside = (tag, attributes, ...before) => (Original) => (props) => make(tag, attributes, ...before, make(Original, props));
  const withLevels = (Original) => (props) => {
    const box = React.useRef();
    React.useEffect(() => box.current.querySelector("h6")?.setAttribute("aria-level", "5")); // it follows an h4
    return make("div", { ref: box }, make(Original, props));
  };
  const unseen = (tag, words) => make(tag, { className: "unseen", key: words }, words);
  return {
    wrapComponents: {
      InfoContainer: inside("section", { "aria-label": "About" }),
      SchemesContainer: inside("section", { "aria-label": "Authorization" }),
      ServersContainer: () => () => null, // there is one to choose from
      authorizationPopup: inside("section", { "aria-label": "API key" }, unseen("h2", "API key")),
      HttpAuth: withLevels,
      operations: inside(React.Fragment, {}, unseen("h2", "Operations")),
      DeepLink: () => ({ text }) => make("span", {}, text), // it was a link inside a button
      ExamplesSelect: inside("label", {}, unseen("span", "Example")),
      TextArea: (Original) => (props) => make(Original, { "aria-label": "Body", ...props }),
      CloseIcon: inside(React.Fragment, {}, unseen("span", "Close")),
    },
  };
}

// Its own style sheet has a dark half, for a class. Light or dark is the browser's choice.
const dark = matchMedia("(prefers-color-scheme: dark)");
const follow = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", follow);
follow();
